//! The overflow ledger: what became of every choice, expert by expert.

use std::ops::AddAssign;

use crate::{
    capacity::{CapacityConfig, smallest_sufficient_factor},
    error::RoutingError,
    route::{Fate, Route},
};

/// The choices that the gate made for one expert, by fate. A rerouted choice is counted here,
/// at the expert that the gate chose, and not at the one that computed it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ExpertCount {
    /// Choices that the gate made, padding included.
    pub assigned: u64,
    /// Computed by this expert.
    pub computed: u64,
    /// Computed by another expert.
    pub rerouted: u64,
    /// Refused by capacity.
    pub dropped: u64,
    /// Padding, or nothing to compute.
    pub skipped: u64,
    /// No worker answered.
    pub lost: u64,
    /// Gate weight of the choices assigned.
    pub assigned_weight: f64,
    /// Gate weight of the choices computed.
    pub computed_weight: f64,
    /// Gate weight of the choices rerouted.
    pub rerouted_weight: f64,
    /// Gate weight of the choices dropped.
    pub dropped_weight: f64,
    /// Gate weight of the choices skipped.
    pub skipped_weight: f64,
    /// Gate weight of the choices lost.
    pub lost_weight: f64,
}

/// The counts of one batch, or of several merged.
#[derive(Debug, Clone, PartialEq)]
pub struct OverflowLedger {
    /// `[E]`.
    pub per_expert: Vec<ExpertCount>,
    /// Choices that each expert accepted at most; the largest of a merge; `None` without a
    /// limit.
    pub capacity: Option<u64>,
    /// The factor behind it.
    pub capacity_factor: Option<f64>,
    /// The smallest factor that would have dropped nothing in any batch: see
    /// [`smallest_sufficient_factor`].
    pub smallest_sufficient_capacity_factor: f64,
}

// === impl ExpertCount ===

impl ExpertCount {
    fn add(&mut self, fate: Fate, weight: f64) {
        self.assigned += 1;
        self.assigned_weight += weight;
        let (count, sum) = match fate {
            Fate::Computed => (&mut self.computed, &mut self.computed_weight),
            Fate::Rerouted => (&mut self.rerouted, &mut self.rerouted_weight),
            Fate::Dropped => (&mut self.dropped, &mut self.dropped_weight),
            Fate::Skipped => (&mut self.skipped, &mut self.skipped_weight),
            Fate::Lost => (&mut self.lost, &mut self.lost_weight),
        };
        *count += 1;
        *sum += weight;
    }

    fn check(&self, expert: usize) -> Result<(), RoutingError> {
        let parts = [
            self.computed,
            self.rerouted,
            self.dropped,
            self.skipped,
            self.lost,
        ];
        let sum = parts
            .iter()
            .try_fold(0_u64, |sum, &part| sum.checked_add(part));
        if sum != Some(self.assigned) {
            return Err(RoutingError::NotConserved {
                expert,
                what: "choices",
                assigned: self.assigned as f64,
                accounted: parts.iter().map(|&part| part as f64).sum(),
            });
        }
        let weights = [
            self.computed_weight,
            self.rerouted_weight,
            self.dropped_weight,
            self.skipped_weight,
            self.lost_weight,
        ];
        let accounted: f64 = weights.iter().sum();
        // Sums of the same f32 numbers in different orders: they differ by rounding in f64,
        // far below one choice's weight.
        let size = weights.iter().map(|weight| weight.abs()).sum::<f64>() + self.assigned as f64;
        if (accounted - self.assigned_weight).abs() <= 1e-9 * size {
            return Ok(());
        }
        let assigned = self.assigned_weight;
        Err(RoutingError::NotConserved {
            expert,
            what: "gate weight",
            assigned,
            accounted,
        })
    }
}

impl AddAssign<&Self> for ExpertCount {
    fn add_assign(&mut self, other: &Self) {
        self.assigned += other.assigned;
        self.computed += other.computed;
        self.rerouted += other.rerouted;
        self.dropped += other.dropped;
        self.skipped += other.skipped;
        self.lost += other.lost;
        self.assigned_weight += other.assigned_weight;
        self.computed_weight += other.computed_weight;
        self.rerouted_weight += other.rerouted_weight;
        self.dropped_weight += other.dropped_weight;
        self.skipped_weight += other.skipped_weight;
        self.lost_weight += other.lost_weight;
    }
}

// === impl OverflowLedger ===

impl OverflowLedger {
    /// A ledger of no batch, to merge others into.
    #[must_use]
    pub fn empty(experts: usize, config: &CapacityConfig) -> Self {
        Self {
            per_expert: vec![ExpertCount::default(); experts],
            capacity: None,
            capacity_factor: config.factor,
            smallest_sufficient_capacity_factor: 0.0,
        }
    }

    /// Counts a batch by its final fates, `[choices]`, under the rule that admitted it.
    ///
    /// # Errors
    /// What [`CapacityConfig::validate`] and [`Route::check`] refuse, and another number of
    /// fates than choices.
    pub fn tally(
        route: &Route,
        fates: &[Fate],
        config: &CapacityConfig,
    ) -> Result<Self, RoutingError> {
        config.validate()?;
        route.check()?;
        route.check_choices("fates", fates.len())?;
        let mut ledger = Self::empty(route.experts_total, config);
        for ((&expert, &weight), &fate) in route.experts.iter().zip(&route.weights).zip(fates) {
            ledger.per_expert[expert as usize].add(fate, f64::from(weight));
        }
        let (tokens, k, e) = (route.real_tokens(), route.top_k, route.experts_total);
        let needed = route.demand().into_iter().max().unwrap_or_default();
        ledger.capacity = config.capacity(tokens, k, e);
        ledger.smallest_sufficient_capacity_factor =
            smallest_sufficient_factor(needed, tokens, k, e, config.min_capacity);
        Ok(ledger)
    }

    /// The sum over experts.
    #[must_use]
    pub fn totals(&self) -> ExpertCount {
        let mut totals = ExpertCount::default();
        self.per_expert.iter().for_each(|count| totals += count);
        totals
    }

    /// Gate weight that reached no expert's result: dropped and lost.
    #[must_use]
    pub fn lost_gate_weight(&self) -> f64 {
        let totals = self.totals();
        totals.dropped_weight + totals.lost_weight
    }

    /// The law of conservation: for every expert, what the gate assigned is what became of it,
    /// in choices exactly and in gate weight up to the rounding of the sums.
    ///
    /// # Errors
    /// [`RoutingError::NotConserved`] for the first expert whose count does not add up.
    pub fn check_conservation(&self) -> Result<(), RoutingError> {
        self.per_expert
            .iter()
            .enumerate()
            .try_for_each(|(expert, count)| count.check(expert))
    }

    /// Adds the counts of another batch of the same layer under the same rule.
    ///
    /// # Errors
    /// Another number of experts or another capacity factor; nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<(), RoutingError> {
        if self.per_expert.len() != other.per_expert.len() {
            let expected = format!("{}, as in the ledger merged into", self.per_expert.len());
            return Err(RoutingError::config(
                "experts",
                other.per_expert.len(),
                expected,
            ));
        }
        if self.capacity_factor != other.capacity_factor {
            let expected = format!("{:?}, as in the ledger merged into", self.capacity_factor);
            let found = format!("{:?}", other.capacity_factor);
            return Err(RoutingError::config("capacity factor", found, expected));
        }
        for (count, more) in self.per_expert.iter_mut().zip(&other.per_expert) {
            *count += more;
        }
        self.capacity = self.capacity.max(other.capacity);
        self.smallest_sufficient_capacity_factor = self
            .smallest_sufficient_capacity_factor
            .max(other.smallest_sufficient_capacity_factor);
        Ok(())
    }
}
