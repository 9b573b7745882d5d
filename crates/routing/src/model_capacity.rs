//! Capacity rules that belong to a model, as its authors trained it.
//!
//! They differ from [`CapacityConfig`](crate::CapacityConfig), which a user sets for a run: the
//! limit is the checkpoint's, it may count per sequence, and gate weights may change with it.

use expertmesh_kernels::{Format, bf16_round};

use crate::{
    admit::Admission,
    error::RoutingError,
    route::{Fate, Route},
};

/// The capacity rule of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ModelCapacity {
    /// Switch Transformers: of each sequence, an expert takes the first `capacity` tokens that
    /// chose it. Padding counts like any token.
    PerSequence {
        /// Choices that an expert takes of one sequence.
        capacity: u64,
    },
    /// NLLB-MoE: two choices a token over the whole batch. An expert serves all first choices
    /// before any second one, dropped first choices keep their places, and the weights are
    /// normalised here: the route brings scores.
    Top2 {
        /// Choices that an expert takes of the batch.
        capacity: Top2Capacity,
        /// Whether tokens queue by falling score of their first choice (ties to the lower token)
        /// rather than by position: batch-prioritised routing.
        prioritised: bool,
        /// Whether weights are divided by the sum of both scores, dropped or not, rather than by
        /// the sum of those that were kept.
        norm_before_drop: bool,
        /// Whether padding loses both choices and uses no capacity; if not, it counts like any
        /// token.
        drop_padding: bool,
    },
}

/// How many choices an expert takes of a batch of T tokens, padding included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Top2Capacity {
    /// `ceil(fraction · T)`, in f64.
    Fraction(f64),
    /// `2 · ceil(T / E)`.
    PerExpert,
    /// So many, whatever T is.
    Fixed(u64),
}

/// The choices that a rule is applied to.
#[derive(Debug, Clone, Copy)]
pub struct ModelChoices<'a> {
    /// Experts of the layer, E.
    pub experts_total: usize,
    /// Choices of a token, k.
    pub top_k: usize,
    /// Tokens of one sequence: the batch is a whole number of sequences, one after another.
    pub sequence: usize,
    /// `[T, k]`: the chosen experts in slot order.
    pub experts: &'a [u32],
    /// `[T, k]`: their gate weights.
    pub weights: &'a [f32],
    /// `[T]`, true for padding.
    pub padding: Option<&'a [bool]>,
    /// The model's number format, in which weights are rounded.
    pub dtype: Format,
}

/// What a rule makes of the choices.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelAdmission {
    /// Choices that an expert takes at most: of a sequence, or of the batch.
    pub capacity: u64,
    /// `[T, k]`: whether the expert computes the choice.
    pub kept: Vec<bool>,
    /// `[T, k]`: the gate weights after the rule. [`ModelCapacity::PerSequence`] leaves them as they
    /// were; [`ModelCapacity::Top2`] gives choices that were not kept the weight 0.
    pub weights: Vec<f32>,
}

// === impl ModelCapacity ===

impl ModelCapacity {
    /// Checks the rule's numbers.
    ///
    /// # Errors
    /// [`RoutingError::Config`] for a fraction that is not a finite number above 0.
    pub fn validate(&self) -> Result<(), RoutingError> {
        match *self {
            Self::Top2 {
                capacity: Top2Capacity::Fraction(fraction),
                ..
            } if !(fraction.is_finite() && fraction > 0.0) => {
                let expected = "a finite number above 0";
                Err(RoutingError::config(
                    "capacity fraction",
                    fraction,
                    expected,
                ))
            }
            _ => Ok(()),
        }
    }

    /// Applies the rule to a batch.
    ///
    /// # Errors
    /// A rule that does not fit the number of choices, slices whose lengths do not fit, an expert
    /// that does not exist, a batch that is not a whole number of sequences.
    pub fn apply(&self, choices: &ModelChoices<'_>) -> Result<ModelAdmission, RoutingError> {
        self.validate()?;
        choices.check()?;
        match *self {
            Self::PerSequence { capacity } => Ok(per_sequence(capacity, choices)),
            Self::Top2 { capacity, .. } => {
                if choices.top_k != 2 {
                    let expected = "2, because the model's capacity rule is for two choices";
                    return Err(RoutingError::config("top_k", choices.top_k, expected));
                }
                let capacity = capacity.of(choices.tokens(), choices.experts_total);
                Ok(self.top2(capacity, choices))
            }
        }
    }

    /// The rule as an admission: `sequence` is the number of tokens of a sequence, 0 where the
    /// batch is one. Padding is skipped, whether or not it took a place.
    ///
    /// # Errors
    /// As [`ModelCapacity::apply`].
    pub fn admit(
        &self,
        route: &Route,
        sequence: usize,
        dtype: Format,
    ) -> Result<Admission, RoutingError> {
        if route.tokens == 0 {
            return Ok(Admission::default());
        }
        let applied = self.apply(&ModelChoices {
            experts_total: route.experts_total,
            top_k: route.top_k,
            sequence: if sequence == 0 {
                route.tokens
            } else {
                sequence
            },
            experts: &route.experts,
            weights: &route.weights,
            padding: route.padding.as_deref(),
            dtype,
        })?;
        let fate = |(choice, kept): (usize, &bool)| match kept {
            _ if route.is_padding(choice / route.top_k) => Fate::Skipped,
            true => Fate::Computed,
            false => Fate::Dropped,
        };
        Ok(Admission {
            fates: applied.kept.iter().enumerate().map(fate).collect(),
            weights: Some(applied.weights),
            capacity: Some(applied.capacity),
            ..Admission::default()
        })
    }

    fn top2(&self, capacity: u64, choices: &ModelChoices<'_>) -> ModelAdmission {
        let Self::Top2 {
            prioritised,
            norm_before_drop,
            drop_padding,
            ..
        } = *self
        else {
            return per_sequence(capacity, choices);
        };
        let tokens = choices.tokens();
        let padding = choices.padding.filter(|_| drop_padding);
        let real = |token: usize| padding.is_none_or(|padding| !padding[token]);
        let mut order: Vec<usize> = (0..tokens).collect();
        if prioritised {
            // Stable: equal scores stay in the order of the tokens.
            let score = |token: usize| choices.weights[2 * token];
            order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        }
        let mut queued = vec![0_u64; choices.experts_total];
        let mut kept = vec![false; choices.experts.len()];
        for slot in 0..2 {
            for &token in order.iter().filter(|&&token| real(token)) {
                let choice = 2 * token + slot;
                let queued = &mut queued[choices.experts[choice] as usize];
                kept[choice] = *queued < capacity;
                *queued += 1;
            }
        }
        let mut weights = choices.weights.to_vec();
        for (pair, kept) in weights.chunks_exact_mut(2).zip(kept.chunks_exact(2)) {
            let counts = |slot: usize| norm_before_drop || kept[slot];
            normalise(pair, [counts(0), counts(1)], choices.dtype);
            for (weight, _) in pair.iter_mut().zip(kept).filter(|(_, kept)| !**kept) {
                *weight = 0.0;
            }
        }
        ModelAdmission {
            capacity,
            kept,
            weights,
        }
    }
}

// === impl Top2Capacity ===

impl Top2Capacity {
    /// The capacity for a batch of `tokens` tokens, padding included.
    #[must_use]
    pub fn of(self, tokens: usize, experts: usize) -> u64 {
        match self {
            #[expect(
                clippy::cast_sign_loss,
                reason = "a fraction is above 0; the cast saturates"
            )]
            Self::Fraction(fraction) => (fraction * tokens as f64).ceil() as u64,
            Self::PerExpert => 2 * tokens.div_ceil(experts.max(1)) as u64,
            Self::Fixed(capacity) => capacity,
        }
    }
}

// === impl ModelChoices ===

impl ModelChoices<'_> {
    fn tokens(&self) -> usize {
        self.experts.len() / self.top_k.max(1)
    }

    fn check(&self) -> Result<(), RoutingError> {
        if self.top_k == 0 || self.top_k > self.experts_total {
            let expected = format!("1 to {}, the number of experts", self.experts_total);
            return Err(RoutingError::config("top_k", self.top_k, expected));
        }
        let tokens = self.tokens();
        let shape = "tokens x top_k";
        RoutingError::check_length("experts", self.experts.len(), [tokens, self.top_k], shape)?;
        RoutingError::check_length("weights", self.weights.len(), [tokens, self.top_k], shape)?;
        if let Some(padding) = self.padding {
            RoutingError::check_length("padding", padding.len(), [tokens, 1], "tokens x 1")?;
        }
        if tokens > 0 && (self.sequence == 0 || !tokens.is_multiple_of(self.sequence)) {
            let expected = format!("a divisor of {tokens}, the number of tokens");
            return Err(RoutingError::config("sequence", self.sequence, expected));
        }
        let bad = |&expert: &u32| expert as usize >= self.experts_total;
        match self.experts.iter().position(bad) {
            Some(choice) => Err(RoutingError::NoSuchExpert {
                token: choice / self.top_k,
                slot: choice % self.top_k,
                expert: self.experts[choice],
                experts: self.experts_total,
            }),
            None => Ok(()),
        }
    }
}

/// The first `capacity` choices of each expert in each sequence.
fn per_sequence(capacity: u64, choices: &ModelChoices<'_>) -> ModelAdmission {
    let mut kept = Vec::with_capacity(choices.experts.len());
    let run = (choices.sequence * choices.top_k).max(1);
    let mut taken = vec![0_u64; choices.experts_total];
    for sequence in choices.experts.chunks(run) {
        taken.fill(0);
        kept.extend(sequence.iter().map(|&expert| {
            let taken = &mut taken[expert as usize];
            *taken += 1;
            *taken <= capacity
        }));
    }
    ModelAdmission {
        capacity,
        kept,
        weights: choices.weights.to_vec(),
    }
}

/// Divides both weights by the sum of those that count, or by the format's epsilon where that is
/// more.
fn normalise(pair: &mut [f32], counts: [bool; 2], dtype: Format) {
    let (round, least): (fn(f32) -> f32, f32) = match dtype {
        Format::F32 => (|value| value, f32::EPSILON),
        // Eight bits of significand: the numbers around 1 are 2⁻⁷ apart.
        Format::Bf16 => (bf16_round, 0.007_812_5),
    };
    let counted = pair.iter().zip(counts).filter(|(_, counts)| *counts);
    let sum = counted.fold(0.0, |sum, (weight, _)| sum + weight);
    let divisor = round(sum).max(least);
    for weight in pair {
        *weight = round(*weight / divisor);
    }
}

#[cfg(test)]
mod tests;
