//! What became of the gate's choices.

use crate::TelemetryError;
use serde::{Deserialize, Serialize};

/// Choices by fate, over all recorded steps: `assigned = computed + rerouted + dropped + skipped
/// + lost`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OverflowReport {
    /// Choices that the gate made.
    pub assigned: u64,
    /// Computed by the chosen expert.
    pub computed: u64,
    /// Computed by another expert.
    pub rerouted: u64,
    /// Beyond the expert's capacity.
    pub dropped: u64,
    /// Of masked tokens and null experts.
    pub skipped: u64,
    /// Of a worker that failed without a replica that answered.
    pub lost: u64,
    /// Gate weight of all choices.
    #[serde(default)]
    pub assigned_gate_weight: f64,
    /// Gate weight of dropped and lost choices: what the outputs miss.
    pub lost_gate_weight: f64,
    /// The policy in force, such as `drop-position`, which a comparison of policies follows by the
    /// rule for gate weights where they are not kept: `drop-position+renormalise`; `None` where
    /// nobody said.
    #[serde(default)]
    pub policy: Option<String>,
    /// The capacity factor in force; `None` when dropless.
    pub capacity_factor: Option<f64>,
    /// The smallest factor under which no step would have dropped a choice; `None` where a
    /// capacity does not apply.
    pub smallest_sufficient_capacity_factor: Option<f64>,
    /// What the overflow policy did besides.
    #[serde(flatten)]
    pub events: OverflowEvents,
    /// The same by expert: entry `e` is expert `e`.
    pub per_expert: Vec<ExpertOverflow>,
}

/// What an overflow policy does besides giving choices their fates, over all recorded steps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OverflowEvents {
    /// Tokens of which no choice was computed, at least one being dropped or lost.
    pub tokens_without_expert: u64,
    /// Choices that were sent in a later wave than the first.
    pub spilled: u64,
    /// Waves of the step that had most.
    pub waves: u64,
    /// Steps that were admitted again under a larger capacity.
    pub replays: u64,
    /// Choices dropped in each slot: of all first choices, of all second ones, and so on.
    pub dropped_by_slot: Vec<u64>,
}

/// Choices of one expert by fate. A rerouted choice stays with the expert that the gate chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ExpertOverflow {
    /// Choices that the gate made for it.
    pub assigned: u64,
    /// Computed by it.
    pub computed: u64,
    /// Computed by another expert.
    pub rerouted: u64,
    /// Beyond its capacity.
    pub dropped: u64,
    /// Of masked tokens, or because it is a null expert.
    pub skipped: u64,
    /// Of a worker that failed without a replica that answered.
    pub lost: u64,
    /// Gate weight of its choices.
    pub assigned_gate_weight: f64,
    /// Gate weight of its dropped and lost choices.
    pub lost_gate_weight: f64,
    /// Choices of other experts that it computed.
    #[serde(default)]
    pub received: u64,
}

// === impl OverflowEvents ===

impl OverflowEvents {
    /// Adds the events of `other`.
    pub fn add(&mut self, other: &OverflowEvents) {
        for (mine, more) in [
            (&mut self.tokens_without_expert, other.tokens_without_expert),
            (&mut self.spilled, other.spilled),
            (&mut self.replays, other.replays),
        ] {
            *mine = mine.saturating_add(more);
        }
        self.waves = self.waves.max(other.waves);
        let slots = self.dropped_by_slot.len().max(other.dropped_by_slot.len());
        self.dropped_by_slot.resize(slots, 0);
        for (sum, more) in self.dropped_by_slot.iter_mut().zip(&other.dropped_by_slot) {
            *sum = sum.saturating_add(*more);
        }
    }
}

// === impl ExpertOverflow ===

impl ExpertOverflow {
    /// Sum of the five fates; equals `assigned` when every choice is accounted for.
    pub fn fates(&self) -> u64 {
        [
            self.computed,
            self.rerouted,
            self.dropped,
            self.skipped,
            self.lost,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// Choices that asked for work: assigned ones that were not skipped.
    pub fn demand(&self) -> u64 {
        self.assigned.saturating_sub(self.skipped)
    }

    /// Adds the choices of `other`.
    pub fn add(&mut self, other: &ExpertOverflow) {
        for (mine, more) in [
            (&mut self.assigned, other.assigned),
            (&mut self.computed, other.computed),
            (&mut self.rerouted, other.rerouted),
            (&mut self.dropped, other.dropped),
            (&mut self.skipped, other.skipped),
            (&mut self.lost, other.lost),
            (&mut self.received, other.received),
        ] {
            *mine = mine.saturating_add(more);
        }
        self.assigned_gate_weight += other.assigned_gate_weight;
        self.lost_gate_weight += other.lost_gate_weight;
    }
}

// === impl OverflowReport ===

impl OverflowReport {
    /// Totals over experts.
    pub fn of(
        per_expert: Vec<ExpertOverflow>,
        capacity_factor: Option<f64>,
        smallest_sufficient_capacity_factor: Option<f64>,
    ) -> Self {
        let mut total = ExpertOverflow::default();
        per_expert.iter().for_each(|expert| total.add(expert));
        Self {
            assigned: total.assigned,
            computed: total.computed,
            rerouted: total.rerouted,
            dropped: total.dropped,
            skipped: total.skipped,
            lost: total.lost,
            assigned_gate_weight: total.assigned_gate_weight,
            lost_gate_weight: total.lost_gate_weight,
            policy: None,
            capacity_factor,
            smallest_sufficient_capacity_factor,
            events: OverflowEvents::default(),
            per_expert,
        }
    }

    /// Checks that every choice of every expert has exactly one fate.
    ///
    /// # Errors
    ///
    /// [`TelemetryError::NotConserved`] naming the first expert that does not add up.
    pub fn check_conservation(&self) -> Result<(), TelemetryError> {
        check_conservation(&self.per_expert)
    }

    pub(super) fn non_finite(&self) -> Option<String> {
        let bad = |value: f64| !value.is_finite();
        super::first_bad([
            (
                "overflow.assigned_gate_weight",
                Some(self.assigned_gate_weight),
            ),
            ("overflow.lost_gate_weight", Some(self.lost_gate_weight)),
            ("overflow.capacity_factor", self.capacity_factor),
            (
                "overflow.smallest_sufficient_capacity_factor",
                self.smallest_sufficient_capacity_factor,
            ),
        ])
        .or_else(|| {
            let expert = self
                .per_expert
                .iter()
                .position(|e| bad(e.assigned_gate_weight) || bad(e.lost_gate_weight))?;
            Some(format!("overflow.per_expert[{expert}]"))
        })
    }
}

pub(crate) fn check_conservation(per_expert: &[ExpertOverflow]) -> Result<(), TelemetryError> {
    match per_expert
        .iter()
        .enumerate()
        .find(|(_, counts)| counts.fates() != counts.assigned)
    {
        None => Ok(()),
        Some((expert, counts)) => Err(TelemetryError::NotConserved {
            expert,
            assigned: counts.assigned,
            fates: counts.fates(),
        }),
    }
}
