//! What became of the choices of one expert.

use std::ops::AddAssign;

use crate::{error::RoutingError, route::Fate};

/// The choices that the gate made for one expert, by fate. A rerouted choice is counted here,
/// at the expert that the gate chose, and not at the one that computed it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ExpertCount {
    /// Choices that the gate made, padding included.
    pub assigned: u64,
    /// Computed by this expert.
    pub computed: u64,
    /// Computed by another expert, or on another of this expert's domains than its first.
    pub rerouted: u64,
    /// Refused by capacity.
    pub dropped: u64,
    /// Padding, or nothing to compute.
    pub skipped: u64,
    /// No worker answered.
    pub lost: u64,
    /// Choices of other experts that were rerouted here: not among those assigned.
    pub received: u64,
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

/// The choices of one expert while they are counted: fates as numbers, because a branch on the
/// fates of a full batch is as good as unpredictable.
#[derive(Debug, Clone, Default)]
pub(super) struct ByFate {
    assigned: u64,
    assigned_weight: f64,
    counts: [u64; Fate::ALL.len()],
    weights: [f64; Fate::ALL.len()],
}

// === impl ByFate ===

impl ByFate {
    #[inline]
    pub(super) fn add(&mut self, fate: Fate, weight: f64) {
        self.assigned += 1;
        self.assigned_weight += weight;
        self.counts[fate as usize] += 1;
        self.weights[fate as usize] += weight;
    }
}

impl From<ByFate> for ExpertCount {
    fn from(by_fate: ByFate) -> Self {
        let count = |fate: Fate| by_fate.counts[fate as usize];
        let weight = |fate: Fate| by_fate.weights[fate as usize];
        Self {
            assigned: by_fate.assigned,
            computed: count(Fate::Computed),
            rerouted: count(Fate::Rerouted),
            dropped: count(Fate::Dropped),
            skipped: count(Fate::Skipped),
            lost: count(Fate::Lost),
            received: 0,
            assigned_weight: by_fate.assigned_weight,
            computed_weight: weight(Fate::Computed),
            rerouted_weight: weight(Fate::Rerouted),
            dropped_weight: weight(Fate::Dropped),
            skipped_weight: weight(Fate::Skipped),
            lost_weight: weight(Fate::Lost),
        }
    }
}

// === impl ExpertCount ===

impl ExpertCount {
    pub(super) fn check(&self, expert: usize) -> Result<(), RoutingError> {
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
        self.received += other.received;
        self.assigned_weight += other.assigned_weight;
        self.computed_weight += other.computed_weight;
        self.rerouted_weight += other.rerouted_weight;
        self.dropped_weight += other.dropped_weight;
        self.skipped_weight += other.skipped_weight;
        self.lost_weight += other.lost_weight;
    }
}
