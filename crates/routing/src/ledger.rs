//! The overflow ledger: what became of every choice, expert by expert.

mod count;

pub use count::ExpertCount;

use count::ByFate;

use crate::{
    admit::{Admission, AdmitContext, Batch},
    capacity::CapacityConfig,
    error::RoutingError,
    route::{Fate, Route},
};

/// The counts of one batch, or of several merged.
#[derive(Debug, Clone, PartialEq)]
pub struct OverflowLedger {
    /// `[E]`.
    pub per_expert: Vec<ExpertCount>,
    /// `[k]` choices dropped, by their slot: the gate's first choice, its second, and so on.
    pub dropped_by_slot: Vec<u64>,
    /// Tokens with choices of which none was computed, at least one being dropped or lost.
    pub tokens_without_expert: u64,
    /// Choices that were sent in a later wave than the first.
    pub spilled: u64,
    /// Waves that were used; the most of a merge.
    pub waves: u32,
    /// Batches that were admitted again under a larger capacity.
    pub replays: u64,
    /// Choices that each expert (or worker) accepted at most; the largest of a merge; `None`
    /// without a limit.
    pub capacity: Option<u64>,
    /// The factor behind the capacity.
    pub capacity_factor: Option<f64>,
    /// The smallest factor under which no choice would have been refused its expert (or worker)
    /// in any batch, so that nothing is dropped, rerouted, spilled or replayed: see
    /// [`CapacityConfig::smallest_sufficient_factor`].
    pub smallest_sufficient_capacity_factor: f64,
}

// === impl OverflowLedger ===

impl OverflowLedger {
    /// A ledger of no batch, to merge others into.
    #[must_use]
    pub fn empty(experts: usize, config: &CapacityConfig) -> Self {
        Self {
            per_expert: vec![ExpertCount::default(); experts],
            dropped_by_slot: vec![],
            tokens_without_expert: 0,
            spilled: 0,
            waves: 0,
            replays: 0,
            capacity: None,
            capacity_factor: config.active_factor(),
            smallest_sufficient_capacity_factor: 0.0,
        }
    }

    /// Counts a batch by its admission, whose fates are final by now, under the rule and the
    /// context that admitted it.
    ///
    /// # Errors
    /// What [`admit`](crate::admit()) refuses, and tables of another length than the choices.
    pub fn tally(
        route: &Route,
        admission: &Admission,
        config: &CapacityConfig,
        context: &AdmitContext<'_>,
    ) -> Result<Self, RoutingError> {
        config.validate()?;
        route.check()?;
        let batch = Batch::new(route, config, context)?;
        let mut ledger = Self::empty(route.experts_total, config);
        ledger.count_tokens(route, admission)?;
        ledger.count_elsewhere(route, admission)?;
        ledger.replays = u64::from(admission.replays);
        ledger.capacity = admission.capacity;
        let mut demand = Vec::new();
        for tokens in batch.parts() {
            batch.count_demand(tokens.clone(), &mut demand);
            let needed = demand.iter().copied().max().unwrap_or_default();
            let (real, sharers) = (batch.real_tokens(tokens), batch.bins.sharers);
            let factor = config.smallest_sufficient_factor(needed, real, route.top_k, sharers);
            let smallest = &mut ledger.smallest_sufficient_capacity_factor;
            *smallest = smallest.max(factor);
        }
        Ok(ledger)
    }

    /// Counts every choice at the expert that the gate chose, and the tokens left with nothing.
    fn count_tokens(&mut self, route: &Route, admission: &Admission) -> Result<(), RoutingError> {
        route.check_choices("fates", admission.fates.len())?;
        self.dropped_by_slot.resize(route.top_k, 0);
        let mut experts = vec![ByFate::default(); route.experts_total];
        for token in 0..route.tokens {
            let choices = route.choices_of(token);
            let (mut computed, mut missed) = (false, false);
            let fates = &admission.fates[choices.clone()];
            let chosen = route.experts[choices.clone()].iter();
            let chosen = chosen.zip(&route.weights[choices]);
            for (slot, (&fate, (&expert, &weight))) in fates.iter().zip(chosen).enumerate() {
                experts[expert as usize].add(fate, f64::from(weight));
                // No branch on the fate here either.
                computed |= matches!(fate, Fate::Computed | Fate::Rerouted);
                missed |= matches!(fate, Fate::Dropped | Fate::Lost);
                self.dropped_by_slot[slot] += u64::from(fate == Fate::Dropped);
            }
            self.tokens_without_expert += u64::from(missed && !computed);
        }
        self.per_expert = experts.into_iter().map(ExpertCount::from).collect();
        Ok(())
    }

    /// Counts what was rerouted where it was computed, and what was sent later.
    fn count_elsewhere(
        &mut self,
        route: &Route,
        admission: &Admission,
    ) -> Result<(), RoutingError> {
        let fates = &admission.fates;
        if let Some(executed) = &admission.executed {
            route.check_choices("executed", executed.len())?;
            let pairs = executed.iter().zip(&route.experts).zip(fates);
            for ((&executed, &chosen), &fate) in pairs {
                if fate == Fate::Rerouted
                    && executed != chosen
                    && let Some(count) = self.per_expert.get_mut(executed as usize)
                {
                    count.received += 1;
                }
            }
        }
        self.waves = u32::from(!fates.is_empty());
        if let Some(waves) = &admission.waves {
            route.check_choices("waves", waves.len())?;
            for (&wave, &fate) in waves.iter().zip(fates) {
                if wave > 0 && fate != Fate::Dropped {
                    self.spilled += 1;
                    self.waves = self.waves.max(u32::from(wave) + 1);
                }
            }
        }
        Ok(())
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
        let slots = self.dropped_by_slot.len().max(other.dropped_by_slot.len());
        self.dropped_by_slot.resize(slots, 0);
        for (count, more) in self.dropped_by_slot.iter_mut().zip(&other.dropped_by_slot) {
            *count += more;
        }
        self.tokens_without_expert += other.tokens_without_expert;
        self.spilled += other.spilled;
        self.waves = self.waves.max(other.waves);
        self.replays += other.replays;
        self.capacity = self.capacity.max(other.capacity);
        self.smallest_sufficient_capacity_factor = self
            .smallest_sufficient_capacity_factor
            .max(other.smallest_sufficient_capacity_factor);
        Ok(())
    }
}
