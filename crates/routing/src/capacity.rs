//! How many choices an expert accepts in a batch, and which are refused.

mod formula;
mod names;
mod overflow;
mod preset;

use std::num::NonZeroU32;

pub use formula::{CapacityFormula, capacity, smallest_sufficient_factor};
pub use overflow::{CapacityScope, CapacityShare, Overflow, Priority, QueueOrder, WeightRule};
pub use preset::CapacityPreset;

use crate::error::RoutingError;

/// The capacity rule of a run. The default refuses nothing.
///
/// ```
/// use expertmesh_routing::{CapacityConfig, CapacityPreset, Overflow};
///
/// let rule = CapacityConfig {
///     factor: Some(1.25),
///     overflow: Overflow::Reroute,
///     ..CapacityConfig::default()
/// };
/// // ceil(1024 · 2 / 64 · 1.25)
/// assert_eq!(rule.capacity(1024, 2, 64), Some(40));
///
/// let tutel = "tutel".parse::<CapacityPreset>()?.config();
/// let tutel = CapacityConfig { factor: Some(1.25), ..tutel };
/// // 2 · int(1.25 · ceil(1000 / 64))
/// assert_eq!(tutel.capacity(1000, 2, 64), Some(40));
/// # Ok::<(), expertmesh_routing::RoutingError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CapacityConfig {
    /// The capacity factor in training, and outside it where [`eval_factor`](Self::eval_factor)
    /// is `None`.
    pub factor: Option<f64>,
    /// The capacity factor outside training.
    pub eval_factor: Option<f64>,
    /// Whether batches are admitted in training.
    pub training: bool,
    /// A capacity is no larger than the batch needs, and without a factor exactly what it needs.
    pub automatic: bool,
    /// What happens past the capacity.
    pub overflow: Overflow,
    /// How the capacity follows from the factor.
    pub formula: CapacityFormula,
    /// The formula gives at least this, whatever the factor.
    pub min_capacity: u32,
    /// A capacity is rounded up to a multiple of this, after all else; 0 and 1 round nothing.
    pub alignment: u32,
    /// In which order choices ask for room.
    pub order: QueueOrder,
    /// What ranks tokens under [`Overflow::DropPrioritised`].
    pub priority: Priority,
    /// Whose capacity it is.
    pub scope: CapacityScope,
    /// Which tokens share a capacity.
    pub share: CapacityShare,
    /// What becomes of a token's gate weights when some of its choices are dropped.
    pub weights: WeightRule,
}

// === impl CapacityConfig ===

impl CapacityConfig {
    /// The factor that counts: `factor` in training, else `eval_factor` and failing that `factor`.
    #[must_use]
    pub fn active_factor(&self) -> Option<f64> {
        if self.training {
            self.factor
        } else {
            self.eval_factor.or(self.factor)
        }
    }

    /// Checks that factor and policy fit each other.
    ///
    /// # Errors
    /// A factor that the formula does not take, any factor or `automatic` with
    /// [`Overflow::Dropless`], another policy without a factor that counts and not automatic.
    pub fn validate(&self) -> Result<(), RoutingError> {
        for (field, factor) in [
            ("capacity factor", self.factor),
            ("eval capacity factor", self.eval_factor),
        ] {
            let Some(factor) = factor else { continue };
            let expected = if !self.formula.takes(factor) {
                self.formula.expected_factor()
            } else if self.overflow == Overflow::Dropless {
                "none with overflow dropless; choose another, such as overflow drop-position"
            } else {
                continue;
            };
            return Err(RoutingError::config(field, factor, expected));
        }
        if self.overflow == Overflow::Dropless {
            if self.automatic {
                let expected = "false with overflow dropless, which has no capacity";
                return Err(RoutingError::config("automatic capacity", true, expected));
            }
        } else if self.active_factor().is_none() && !self.automatic {
            let expected = "a number above 0, such as 1.25, or overflow dropless";
            return Err(RoutingError::config("capacity factor", "none", expected));
        }
        Ok(())
    }

    /// What the factor gives for `tokens` tokens that are not padding, before a look at what they
    /// chose; `None` where nothing limits: dropless, and automatic without a cap.
    ///
    /// `experts` is the number of workers under [`CapacityScope::Worker`].
    #[must_use]
    pub fn capacity(&self, tokens: usize, top_k: usize, experts: usize) -> Option<u64> {
        let factor = self.limiting_factor()?;
        let capacity = self.formula.apply(tokens, top_k, experts, factor);
        let automatic = capacity == 0 && self.formula == CapacityFormula::MegaBlocks;
        (!automatic).then(|| self.round(capacity))
    }

    /// The capacity for tokens of which at most `needed` choices go to the same expert (or
    /// worker); otherwise as [`Self::capacity`]. `None` if dropless.
    #[must_use]
    pub fn capacity_for(
        &self,
        tokens: usize,
        top_k: usize,
        experts: usize,
        needed: u64,
    ) -> Option<u64> {
        if self.overflow == Overflow::Dropless {
            return None;
        }
        let limit = self.capacity(tokens, top_k, experts);
        let capped = self.automatic || self.active_factor().is_some_and(|factor| factor < 0.0);
        Some(match limit {
            None => self.align(needed),
            // Both are multiples: the lesser of two roundings is the rounding of the lesser.
            Some(limit) if capped => limit.min(self.align(needed)),
            Some(limit) => limit,
        })
    }

    /// The smallest factor above 0, to the last bit, with which the formula gives at least
    /// `needed`; zero when `min_capacity` suffices by itself.
    #[must_use]
    pub fn smallest_sufficient_factor(
        &self,
        needed: u64,
        tokens: usize,
        top_k: usize,
        experts: usize,
    ) -> f64 {
        formula::smallest_factor(|factor| {
            self.round(self.formula.apply(tokens, top_k, experts, factor)) >= needed
        })
    }

    /// Whether the capacity cannot be told before counting what a batch chose.
    pub(crate) fn asks_for_demand(&self) -> bool {
        let automatic = match self.formula {
            CapacityFormula::Tutel => self.active_factor().is_some_and(|factor| factor <= 0.0),
            CapacityFormula::MegaBlocks => true,
            _ => false,
        };
        automatic || self.automatic || self.overflow == Overflow::GrowAndReplay
    }

    /// Whether the policy looks at the logits of a route.
    #[must_use]
    pub fn asks_for_logits(&self) -> bool {
        match self.overflow {
            Overflow::Reroute => true,
            Overflow::DropPrioritised => self.priority == Priority::Probability,
            _ => false,
        }
    }

    pub(crate) fn align(&self, capacity: u64) -> u64 {
        let multiple = u64::from(self.alignment.max(1));
        capacity
            .checked_next_multiple_of(multiple)
            .unwrap_or(u64::MAX)
    }

    fn round(&self, capacity: u64) -> u64 {
        self.align(capacity.max(u64::from(self.min_capacity)))
    }

    /// The factor of the formula, where there is one: its sign only says that it is a cap.
    fn limiting_factor(&self) -> Option<f64> {
        let factor = self.active_factor()?.abs();
        (factor > 0.0).then_some(factor)
    }
}

impl CapacityShare {
    /// Each of `senders` has a capacity of its own.
    ///
    /// # Errors
    /// No sender.
    pub fn senders(senders: u32) -> Result<Self, RoutingError> {
        NonZeroU32::new(senders)
            .map(Self::Senders)
            .ok_or_else(|| RoutingError::config("senders", senders, "at least 1"))
    }
}
