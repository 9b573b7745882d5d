//! Soft MoE: J. Puigcerver et al., "From sparse to soft mixtures of experts", ICLR 2024.

use std::ops::Range;

use expertmesh_kernels::math;

use crate::{
    config::Kind,
    error::RoutingError,
    gate::{Gate, GateContext},
};

/// What the normalisation of §2.3 divides a vector by, from the sum of its squares; the small
/// number is that of the authors' code (google-research/vmoe, `soft.py`). Only logits are made of
/// normalised rows: what mixes are the rows themselves.
pub(crate) fn soft_divisor(squares: f32) -> f32 {
    (squares + 1e-6).sqrt()
}

/// How the tokens of a batch mix into the slots of the experts, and the slots' results into
/// outputs. Slot `s` belongs to expert `s / p`. Tokens of different sequences never mix: every
/// sequence fills slots of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotMix {
    /// Token rows `T`.
    pub tokens: usize,
    /// Slots of a sequence, `S = E · p`.
    pub slots: usize,
    /// The tokens of each sequence.
    pub sequences: Vec<Range<usize>>,
    /// `[T, S]`: shares of a slot, each column of a sequence a softmax over its tokens.
    pub dispatch: Vec<f32>,
    /// `[T, S]`: shares of an output, each row a softmax over slots.
    pub combine: Vec<f32>,
}

// === impl Gate ===

impl Gate {
    /// The mixture of a batch of soft MoE: `x` is `[tokens, H]`. Padding has share 0 in every slot,
    /// and its output is 0.
    ///
    /// # Errors
    /// Another kind, a slice whose length does not fit, a logit that is not finite.
    pub fn mix(
        &self,
        x: &[f32],
        tokens: usize,
        context: &GateContext<'_>,
    ) -> Result<SlotMix, RoutingError> {
        let shape = "tokens x hidden";
        RoutingError::check_length("hidden states", x.len(), [tokens, self.hidden()], shape)?;
        let mut logits = vec![0.0; tokens * self.config().columns()];
        self.score_rows(x, context, &mut logits)?;
        self.mix_logits(&logits, context)
    }

    /// The second stage of [`Gate::mix`]: logits `[T, E · p]` of a whole batch.
    ///
    /// # Errors
    /// As [`Gate::mix`].
    pub fn mix_logits(
        &self,
        logits: &[f32],
        context: &GateContext<'_>,
    ) -> Result<SlotMix, RoutingError> {
        let kind = self.config().kind;
        let Kind::Soft {
            slots_per_expert, ..
        } = kind
        else {
            return Err(RoutingError::config("kind", kind, "soft, which mixes"));
        };
        let slots = self.config().columns();
        let tokens = logits.len() / slots;
        let shape = "tokens x slots";
        RoutingError::check_length("logits", logits.len(), [tokens, slots], shape)?;
        context.check(tokens)?;
        if let Some(at) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(RoutingError::Logit {
                token: at / slots,
                expert: at % slots / slots_per_expert,
                found: logits[at],
            });
        }
        let mut mix = SlotMix {
            tokens,
            slots,
            sequences: context.sequences(tokens).collect(),
            dispatch: vec![0.0; logits.len()],
            combine: vec![0.0; logits.len()],
        };
        for sequence in mix.sequences.clone() {
            let real: Vec<usize> = sequence
                .filter(|&token| !context.is_padding(token))
                .collect();
            mix.fill(logits, &real);
        }
        Ok(mix)
    }
}

// === impl SlotMix ===

impl SlotMix {
    fn fill(&mut self, logits: &[f32], real: &[usize]) {
        let slots = self.slots;
        for &token in real {
            let row = token * slots..(token + 1) * slots;
            self.combine[row.clone()].copy_from_slice(&logits[row.clone()]);
            math::softmax(&mut self.combine[row]);
        }
        let mut column = vec![];
        for slot in 0..slots {
            column.clear();
            column.extend(real.iter().map(|token| logits[token * slots + slot]));
            math::softmax(&mut column);
            for (token, share) in real.iter().zip(&column) {
                self.dispatch[token * slots + slot] = *share;
            }
        }
    }

    /// Rows of slots: those of the first sequence, then those of the second, and so on.
    #[must_use]
    pub fn slot_count(&self) -> usize {
        self.sequences.len() * self.slots
    }

    /// What experts compute: rows `slots` of `Dᵀ X`, each `Σ D[t, s] · x[t]` in token order, one
    /// fused multiply-add after the other from +0, however the slots are split over calls.
    /// `x` is `[T, H]`, `out` `[slots, H]`, of which slot `s` of sequence `q` is row `q · S + s`.
    ///
    /// # Errors
    /// A slice whose length does not fit, slots that do not exist.
    pub fn slot_rows(
        &self,
        x: &[f32],
        hidden: usize,
        slots: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), RoutingError> {
        let shape = "tokens x hidden";
        RoutingError::check_length("hidden states", x.len(), [self.tokens, hidden], shape)?;
        check_part("slots", &slots, self.slot_count())?;
        let shape = "slots x hidden";
        RoutingError::check_length("slot rows", out.len(), [slots.len(), hidden], shape)?;
        out.fill(0.0);
        for (slot, out) in slots.zip(out.chunks_exact_mut(hidden.max(1))) {
            for token in self.sequences[slot / self.slots].clone() {
                let share = self.dispatch[token * self.slots + slot % self.slots];
                add_scaled(share, &x[token * hidden..(token + 1) * hidden], out);
            }
        }
        Ok(())
    }

    /// The layer's outputs: rows `tokens` of `C Y`, each `Σ C[t, s] · y[s]` in slot order, as in
    /// [`SlotMix::slot_rows`]. `results` is `[slot_count, H]`, `out` `[tokens, H]`.
    ///
    /// # Errors
    /// A slice whose length does not fit, tokens that do not exist.
    pub fn outputs(
        &self,
        results: &[f32],
        hidden: usize,
        tokens: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), RoutingError> {
        let (slots, shape) = (self.slot_count(), "slots x hidden");
        RoutingError::check_length("slot results", results.len(), [slots, hidden], shape)?;
        check_part("tokens", &tokens, self.tokens)?;
        let shape = "tokens x hidden";
        RoutingError::check_length("outputs", out.len(), [tokens.len(), hidden], shape)?;
        out.fill(0.0);
        for (token, out) in tokens.zip(out.chunks_exact_mut(hidden.max(1))) {
            let sequence = self.sequences.partition_point(|range| range.end <= token);
            let shares = &self.combine[token * self.slots..(token + 1) * self.slots];
            let own = &results[sequence * self.slots * hidden..];
            for (share, result) in shares.iter().zip(own.chunks_exact(hidden.max(1))) {
                add_scaled(*share, result, out);
            }
        }
        Ok(())
    }
}

fn add_scaled(share: f32, row: &[f32], out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(row) {
        *out = share.mul_add(*value, *out);
    }
}

fn check_part(field: &'static str, part: &Range<usize>, whole: usize) -> Result<(), RoutingError> {
    if part.start <= part.end && part.end <= whole {
        return Ok(());
    }
    let expected = format!("a part of 0..{whole}");
    Err(RoutingError::config(field, format!("{part:?}"), expected))
}
