//! The gate's answer for a batch, and what may become of each choice.

use std::{fmt, ops::Range};

use crate::error::RoutingError;

/// The experts and gate weights of every choice of a batch of `T` tokens.
///
/// Most gates make `k` choices for every token: the tables are `[T, k]` in slot order. Gates
/// without a fixed number have [`offsets`](Self::offsets), and list a token's choices in slot order
/// too; expert choice by ascending expert.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Number of token rows `T`; may be zero.
    pub tokens: usize,
    /// Choices for each token, `k`; without a fixed number the most that a token may have.
    pub top_k: usize,
    /// `[T + 1]` for gates without a fixed number of choices: those of token `t` are
    /// `offsets[t]..offsets[t + 1]`. `None` means `k` for each.
    pub offsets: Option<Vec<u32>>,
    /// Experts of the layer, `E`.
    pub experts_total: usize,
    /// `[T, E]`, or empty for a route that no gate made.
    pub logits: Vec<f32>,
    /// `[T, k]`: the chosen experts, in slot order.
    pub experts: Vec<u32>,
    /// `[T, k]`: gate weights, in slot order.
    pub weights: Vec<f32>,
    /// `[T]`, true for padding: its choices are [`Fate::Skipped`] and use no capacity. `None`
    /// means that no token is padding.
    pub padding: Option<Vec<bool>>,
}

/// What became of a choice. The numbers are those of the `fate` output and of the wire.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// Its expert computed it.
    Computed = 0,
    /// Another expert computed it.
    Rerouted = 1,
    /// Its expert was full.
    Dropped = 2,
    /// There was nothing to compute: padding, or an expert that does nothing.
    Skipped = 3,
    /// Its worker failed and no replica answered.
    Lost = 4,
}

// === impl Route ===

impl Route {
    /// Checks that the lengths fit the shape and that every expert exists, for routes that come
    /// from outside.
    ///
    /// # Errors
    /// [`RoutingError::Config`], [`RoutingError::Length`] or [`RoutingError::NoSuchExpert`].
    pub fn check(&self) -> Result<(), RoutingError> {
        let (t, k, e) = (self.tokens, self.top_k, self.experts_total);
        if e == 0 {
            return Err(RoutingError::config("experts", e, "at least 1"));
        }
        if !(1..=e).contains(&k) {
            let expected = format!("1 to {e}, the number of experts");
            return Err(RoutingError::config("top_k", k, expected));
        }
        if !self.logits.is_empty() {
            RoutingError::check_length("logits", self.logits.len(), [t, e], "tokens x experts")?;
        }
        self.check_choices("experts", self.experts.len())?;
        self.check_choices("weights", self.weights.len())?;
        if let Some(padding) = &self.padding {
            RoutingError::check_length("padding", padding.len(), [t, 1], "tokens x 1")?;
        }
        // Usually there is none, which is soon seen where nobody asks for the first.
        let limit = u32::try_from(e).unwrap_or(u32::MAX);
        let beyond = |found, &expert: &u32| found | (expert >= limit);
        let any = self.experts.iter().fold(false, beyond);
        let mut choices = self.experts.iter();
        match any.then(|| choices.position(|&expert| expert as usize >= e)) {
            Some(Some(choice)) => {
                let (token, slot) = self.place_of(choice);
                Err(RoutingError::NoSuchExpert {
                    token,
                    slot,
                    expert: self.experts[choice],
                    experts: e,
                })
            }
            _ => Ok(()),
        }
    }

    /// Refuses a table that has not one entry for each choice.
    pub(crate) fn check_choices(
        &self,
        field: &'static str,
        found: usize,
    ) -> Result<(), RoutingError> {
        let (t, k) = (self.tokens, self.top_k);
        let Some(offsets) = &self.offsets else {
            return RoutingError::check_length(field, found, [t, k], "tokens x top_k");
        };
        RoutingError::check_length("offsets", offsets.len(), [t + 1, 1], "tokens + 1")?;
        let orderly = offsets.first() == Some(&0)
            && offsets
                .windows(2)
                .all(|pair| pair[0] <= pair[1] && (pair[1] - pair[0]) as usize <= k);
        if !orderly {
            let expected = format!("rising from 0 by at most {k} a token");
            return Err(RoutingError::config("offsets", "others", expected));
        }
        let choices = offsets.last().map_or(0, |&end| end as usize);
        RoutingError::check_length(field, found, [choices, 1], "choices")
    }

    /// The choices of `token`, as a range of the tables.
    #[must_use]
    pub fn choices_of(&self, token: usize) -> Range<usize> {
        match &self.offsets {
            None => token * self.top_k..(token + 1) * self.top_k,
            Some(offsets) => offsets[token] as usize..offsets[token + 1] as usize,
        }
    }

    /// Token and slot of a choice.
    #[must_use]
    pub fn place_of(&self, choice: usize) -> (usize, usize) {
        match &self.offsets {
            None => (choice / self.top_k, choice % self.top_k),
            Some(offsets) => {
                let token = offsets.partition_point(|&first| first as usize <= choice) - 1;
                (token, choice - offsets[token] as usize)
            }
        }
    }

    /// Number of choices, `T · k` where `k` is fixed.
    #[must_use]
    pub fn choices(&self) -> usize {
        self.experts.len()
    }

    /// Whether `token` is padding.
    #[must_use]
    pub fn is_padding(&self, token: usize) -> bool {
        self.padding
            .as_ref()
            .is_some_and(|padding| padding.get(token) == Some(&true))
    }

    /// Tokens that are not padding: the `T` of the capacity formula.
    #[must_use]
    pub fn real_tokens(&self) -> usize {
        let padding = self.padding.as_ref();
        self.tokens - padding.map_or(0, |padding| padding.iter().filter(|&&pad| pad).count())
    }

    /// Choices of tokens that are not padding, for each expert, `[E]`: what the capacity of
    /// each is asked for.
    #[must_use]
    pub fn demand(&self) -> Vec<u64> {
        let mut demand = vec![0; self.experts_total];
        if self.padding.is_none() {
            self.experts
                .iter()
                .for_each(|&expert| demand[expert as usize] += 1);
            return demand;
        }
        for token in (0..self.tokens).filter(|&token| !self.is_padding(token)) {
            self.experts[self.choices_of(token)]
                .iter()
                .for_each(|&expert| demand[expert as usize] += 1);
        }
        demand
    }
}

// === impl Fate ===

impl Fate {
    /// Every fate, by number.
    pub const ALL: [Self; 5] = [
        Self::Computed,
        Self::Rerouted,
        Self::Dropped,
        Self::Skipped,
        Self::Lost,
    ];

    /// The word for it: `computed`, `rerouted`, `dropped`, `skipped` or `lost`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Computed => "computed",
            Self::Rerouted => "rerouted",
            Self::Dropped => "dropped",
            Self::Skipped => "skipped",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<Fate> for u8 {
    fn from(fate: Fate) -> Self {
        fate as Self
    }
}

impl TryFrom<u8> for Fate {
    type Error = RoutingError;

    fn try_from(found: u8) -> Result<Self, Self::Error> {
        Self::ALL
            .get(usize::from(found))
            .copied()
            .ok_or(RoutingError::NoSuchFate { found })
    }
}
