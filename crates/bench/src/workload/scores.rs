//! Scores that make a gate choose with a wanted skew, without the hidden states behind them.

use rand_chacha::rand_core::Rng as _;

use crate::draw::generator;
use crate::trace::NO_CHOICE;
use crate::workload::rows::{NOISE, fill_normal, heights};
use crate::workload::{Draws, Pattern, WorkloadError, WorkloadShape};

/// The logits that the rows of a [`Workload`](super::Workload) of the same pattern, shape, ranks and
/// seed have at a gate with orthonormal rows, but for their noise: a gate that takes the k highest
/// chooses the same experts, and their weights differ by what noise of the same size makes of them.
/// From about eight choices on the noise of rows may swap neighbouring slots, that of scores never
/// does; padding chooses by its noise either way. [`Pattern::Normal`] has no choices to share: its
/// logits are as independent as its rows.
///
/// No product is needed, so a batch of thousands of wide tokens takes no longer than one of narrow
/// ones.
#[derive(Debug, Clone)]
pub struct ScoredWorkload {
    pattern: Pattern,
    shape: WorkloadShape,
    seed: u64,
    /// `None`: independent normal logits.
    draws: Option<Draws>,
}

// === impl ScoredWorkload ===

impl ScoredWorkload {
    /// Scores that follow `pattern`; `shape.hidden` is not used. `ranks` as for [`Draws::new`].
    ///
    /// # Errors
    /// [`WorkloadError`] as for [`Draws::new`].
    pub fn new(
        pattern: Pattern,
        shape: WorkloadShape,
        ranks: Option<usize>,
        seed: u64,
    ) -> Result<Self, WorkloadError> {
        let draws = match pattern {
            Pattern::Normal => {
                shape.check(&pattern)?;
                None
            }
            _ => Some(Draws::new(pattern, shape, ranks, seed)?),
        };
        Ok(Self {
            pattern,
            shape,
            seed,
            draws,
        })
    }

    /// What it is, for reports.
    pub fn name(&self) -> String {
        format!("{}, scores drawn", self.pattern)
    }

    /// Dimensions of a step.
    pub fn shape(&self) -> WorkloadShape {
        self.shape
    }

    /// `[T]`, true for padding.
    pub fn padding(&self) -> Option<&[bool]> {
        self.draws.as_ref().and_then(Draws::padding)
    }

    /// `[T, E]`: the logits of `step`.
    pub fn logits(&self, step: u64) -> Vec<f32> {
        let WorkloadShape {
            tokens,
            experts,
            top_k,
            ..
        } = self.shape;
        let mut random = generator(self.seed, step);
        let mut logits = Vec::with_capacity(tokens * experts);
        let Some(draws) = &self.draws else {
            fill_normal(&mut random, tokens * experts, &mut logits);
            return logits;
        };
        let chosen = draws.draw(&mut random, step);
        // Two draws of 16 bits from a word: a batch has millions.
        let unit = NOISE / 32_768.0;
        for _ in 0..(tokens * experts).div_ceil(2) {
            let word = random.next_u32();
            logits.extend(
                [word as u16, (word >> 16) as u16].map(|half| (f32::from(half) - 32_767.5) * unit),
            );
        }
        logits.truncate(tokens * experts);
        let heights = heights(top_k);
        for (row, experts_of) in logits
            .chunks_exact_mut(experts)
            .zip(chosen.chunks_exact(top_k))
        {
            let live = experts_of.iter().filter(|expert| **expert != NO_CHOICE);
            for (expert, height) in live.zip(&heights) {
                row[*expert as usize] += height;
            }
        }
        logits
    }
}
