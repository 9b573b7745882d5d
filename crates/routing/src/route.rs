//! The gate's answer for a batch, and what may become of each choice.

use std::fmt;

use crate::error::RoutingError;

/// The experts and gate weights of every choice of a batch of `T` tokens, `k` choices each.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Number of token rows `T`; may be zero.
    pub tokens: usize,
    /// Choices for each token, `k`.
    pub top_k: usize,
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
        RoutingError::check_length("experts", self.experts.len(), [t, k], "tokens x top_k")?;
        RoutingError::check_length("weights", self.weights.len(), [t, k], "tokens x top_k")?;
        if let Some(padding) = &self.padding {
            RoutingError::check_length("padding", padding.len(), [t, 1], "tokens x 1")?;
        }
        match self.experts.iter().position(|&expert| expert as usize >= e) {
            Some(choice) => Err(RoutingError::NoSuchExpert {
                token: choice / k,
                slot: choice % k,
                expert: self.experts[choice],
                experts: e,
            }),
            None => Ok(()),
        }
    }

    /// Number of choices, `T · k`.
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
        for (token, experts) in self.experts.chunks_exact(self.top_k).enumerate() {
            if !self.is_padding(token) {
                experts
                    .iter()
                    .for_each(|&expert| demand[expert as usize] += 1);
            }
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
