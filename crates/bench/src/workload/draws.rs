//! The choices of a workload, before any gate.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;

use crate::draw::generator;
use crate::trace::{Header, NO_CHOICE, Record, Trace, TraceError};
use crate::workload::choose::Chooser;
use crate::workload::ranks::Ranks;
use crate::workload::{Pattern, WorkloadError, WorkloadShape};

/// The stream that decides which rank has how many tokens.
const RAGGED: u64 = (1 << 63) + 1;

/// Experts for every token of every step: a function of (pattern, shape, ranks, seed, step). A
/// [`Workload`](super::Workload) makes hidden states of them; whoever needs no hidden states can
/// take the choices themselves.
#[derive(Debug, Clone)]
pub struct Draws {
    pub(super) pattern: Pattern,
    pub(super) shape: WorkloadShape,
    pub(super) ranks: Ranks,
    pub(super) seed: u64,
    pub(super) chooser: Chooser,
    pub(super) padding: Option<Vec<bool>>,
}

// === impl Draws ===

impl Draws {
    /// Choices that follow `pattern`; `shape.hidden` is not used. `ranks` hold the experts and
    /// the rows of the patterns that ask for them: 4 where `None`, or E where that is less.
    ///
    /// # Errors
    /// [`WorkloadError`]: no tokens, more choices than experts, ranks without experts, or a
    /// pattern that the shape cannot have; [`Pattern::Normal`], which draws nothing.
    pub fn new(
        pattern: Pattern,
        shape: WorkloadShape,
        ranks: Option<usize>,
        seed: u64,
    ) -> Result<Self, WorkloadError> {
        let wrong = |field: &str, held: String, expected: String| {
            Err(WorkloadError::new(pattern, field, held, expected))
        };
        let (experts, top_k) = (shape.experts, shape.top_k);
        shape.check(&pattern)?;
        let count = ranks.unwrap_or_else(|| Ranks::usual(experts));
        let Some(ranks) = Ranks::new(experts, count) else {
            let expected = format!("1 to {experts}, the number of experts");
            return wrong("ranks", count.to_string(), expected);
        };
        match pattern {
            Pattern::Normal => {
                let held = "normal".to_owned();
                return wrong("pattern", held, "one that says who is chosen".to_owned());
            }
            Pattern::ZeroExpertRank => {
                // Whichever rank is idle, the others have enough.
                let most = experts - ranks.experts_of(0).len();
                if top_k > most {
                    let expected = format!(
                        "1 to {most}, the experts that are left when one of {count} ranks has no \
                         choice"
                    );
                    return wrong("top_k", top_k.to_string(), expected);
                }
            }
            Pattern::Locality { probability } if probability * (experts as f64) < 1.0 => {
                let expected = format!("at least 1/{experts}, which chance gives");
                return wrong("probability", probability.to_string(), expected);
            }
            _ => {}
        }
        let padding = match pattern {
            Pattern::SourceRagged => Some(ranks.ragged(&mut generator(seed, RAGGED), shape.tokens)),
            _ => None,
        };
        Ok(Self {
            pattern,
            shape,
            seed,
            chooser: Chooser::new(pattern, experts, top_k, &ranks, seed),
            ranks,
            padding,
        })
    }

    /// `[T, k]`: the experts of `step`, in slot order; [`NO_CHOICE`] for padding.
    pub fn step(&self, step: u64) -> Vec<u32> {
        self.draw(&mut generator(self.seed, step), step)
    }

    /// [`Self::step`] from the generator of the step, which is left where the draws end.
    pub(super) fn draw(&self, random: &mut ChaCha8Rng, step: u64) -> Vec<u32> {
        let WorkloadShape { tokens, top_k, .. } = self.shape;
        let Some(padding) = &self.padding else {
            return self.chooser.choose(random, step, tokens);
        };
        let live = padding.iter().filter(|padding| !**padding).count();
        let chosen = self.chooser.choose(random, step, live);
        let mut rows = chosen.chunks_exact(top_k);
        let blank = vec![NO_CHOICE; top_k];
        let of_token = |padding: &bool| match padding {
            true => &blank[..],
            false => rows.next().unwrap_or(&blank),
        };
        padding.iter().flat_map(of_token).copied().collect()
    }

    /// `[T]`, true for padding.
    pub fn padding(&self) -> Option<&[bool]> {
        self.padding.as_deref()
    }

    /// A trace of these `steps`, in one layer, each token with the rank that has its row.
    ///
    /// # Errors
    /// [`TraceError`] for no steps, or numbers that no trace can hold.
    pub fn trace(&self, steps: Range<u64>) -> Result<Trace, TraceError> {
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let mut ranks = Vec::with_capacity(self.shape.tokens);
        for (rank, rows) in (0..).zip(self.ranks.rows(self.shape.tokens)) {
            ranks.resize(rows.end, rank);
        }
        let record = |step| Record {
            step,
            layer: 0,
            tokens: small(self.shape.tokens),
            ranks: Some(ranks.clone()),
            token_ids: None,
            experts: self.step(step),
            weights: None,
        };
        let header = Header {
            experts: small(self.shape.experts),
            top_k: small(self.shape.top_k),
            layers: 1,
            source: format!("workload {}", self.pattern),
            seed: Some(self.seed),
        };
        Trace::new(header, steps.map(record).collect())
    }
}
