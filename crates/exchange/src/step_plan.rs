//! A whole step's plan: every home's tokens, and what follows from them.
//!
//! The coordinator over real sockets, the bus of the tests and the simulator make their plans here,
//! so that all of them send the same messages.

use std::ops::Range;

use expertmesh_routing::{Admission, Fate, Route};

use crate::error::{LossCause, StepError, name_of};
use crate::ledger::TrafficLedger;
use crate::plan::{HostTable, KeptChoices, Limits, index, shard_ranges};
use crate::shard_plan::ShardPlan;
use crate::target::Target;
use crate::{COORDINATOR, ExchangeKind, OnLoss};

/// What a step's plan follows besides the choices.
#[derive(Debug, Clone, Copy)]
pub struct PlanRules<'a> {
    /// How rows travel.
    pub kind: ExchangeKind,
    /// Endpoint ids of the workers that can be homes, ascending; a `star` does not ask.
    pub homes: &'a [u32],
    /// Who executes which expert, and in `hierarchical` who stands together.
    pub table: &'a HostTable,
    /// What bounds a chunk.
    pub limits: Limits,
    /// Bytes of a combined output row.
    pub output_row_bytes: usize,
    /// Whether each token's choices are added up in the order of their experts.
    pub one_by_one: bool,
    /// Chunks that a home may have under way at one host.
    pub credits: usize,
}

/// One home's share of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardOf {
    /// Endpoint id of the home.
    pub home: u32,
    /// Its tokens among those of the step.
    pub tokens: Range<usize>,
    /// Their choices that are to be computed.
    pub kept: KeptChoices,
    /// Who gets which rows.
    pub plan: ShardPlan,
}

/// The plan of a step: who sends what to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct StepPlan {
    /// The shards in token order: one in `star`, else one for each home that has tokens.
    pub shards: Vec<ShardOf>,
    /// What the step sends.
    pub ledger: TrafficLedger,
    /// Chunks that all homes together send to each host before they wait for results, by endpoint
    /// id; empty in `star`, where the home is alone.
    pub extents: Vec<u32>,
}

/// What is settled before a step that begins with workers missing.
#[derive(Debug, Clone, Copy)]
pub struct Missing<'a> {
    /// Number of the step.
    pub step: u64,
    /// Endpoint ids of the workers that are down, ascending, each with its cause.
    pub down: &'a [(u32, LossCause)],
    /// What a lost worker means.
    pub on_loss: OnLoss,
    /// Names of the endpoints by id.
    pub names: &'a [String],
}

// === impl StepPlan ===

impl StepPlan {
    /// Plans the `tokens` tokens of a step. `kept_of` gives the choices of a range of them that
    /// are to be computed.
    pub fn new(
        mut kept_of: impl FnMut(Range<usize>) -> KeptChoices,
        tokens: usize,
        rules: &PlanRules<'_>,
    ) -> Self {
        let shard = |(home, tokens): (u32, Range<usize>)| {
            let kept = kept_of(tokens.clone());
            let kept = match rules.one_by_one {
                true => kept.by_expert(),
                false => kept,
            };
            ShardOf {
                home,
                tokens,
                plan: ShardPlan::new(home, kept.as_kept(), rules.table, rules.limits),
                kept,
            }
        };
        let shards: Vec<ShardOf> = match rules.kind {
            ExchangeKind::Star => vec![(COORDINATOR, 0..tokens)]
                .into_iter()
                .map(shard)
                .collect(),
            ExchangeKind::AllToAll | ExchangeKind::Hierarchical => rules
                .homes
                .iter()
                .copied()
                .zip(shard_ranges(tokens, rules.homes.len()))
                .filter(|(_, range)| !range.is_empty())
                .map(shard)
                .collect(),
        };
        let plans = || shards.iter().map(|shard| &shard.plan);
        let endpoints = rules.table.endpoints();
        let ledger = TrafficLedger::of_step(
            rules.kind,
            plans(),
            endpoints,
            rules.limits,
            rules.output_row_bytes,
        );
        let extents = match rules.kind {
            ExchangeKind::Star => Vec::new(),
            ExchangeKind::AllToAll | ExchangeKind::Hierarchical => {
                ShardPlan::first_chunks(plans(), endpoints, rules.credits)
            }
        };
        Self {
            ledger,
            extents,
            shards,
        }
    }
}

// === impl Missing ===

impl Missing<'_> {
    /// Marks choices whose host is down as lost, or fails; returns the workers that can be homes.
    ///
    /// # Errors
    /// [`StepError::Lost`] naming the first worker that is down, where the policy is to fail or no
    /// worker is left to be home.
    pub fn settle(
        &self,
        kind: ExchangeKind,
        table: &HostTable,
        route: &Route,
        admission: &mut Admission,
    ) -> Result<Vec<u32>, StepError> {
        let workers = 1..index(table.endpoints());
        let Some((first, cause)) = self.down.first() else {
            return Ok(workers.collect());
        };
        let lost = || StepError::Lost {
            step: self.step,
            endpoint: *first,
            name: name_of(self.names, *first),
            cause: cause.clone(),
        };
        if self.on_loss == OnLoss::Fail {
            return Err(lost());
        }
        let is_down = |id: u32| self.down.iter().any(|(one, _)| *one == id);
        for choice in 0..route.choices() {
            if table.host_of(route, admission, choice).is_some_and(is_down) {
                admission.fates[choice] = Fate::Lost;
            }
        }
        let homes: Vec<u32> = workers.filter(|id| !is_down(*id)).collect();
        if homes.is_empty() && kind.is_sharded() {
            return Err(lost());
        }
        Ok(homes)
    }
}

// === impl HostTable ===

impl HostTable {
    /// Endpoint of the worker that computes a choice; `None` if none does.
    pub fn host_of(&self, route: &Route, admission: &Admission, choice: usize) -> Option<u32> {
        self.host_at(route, admission, choice, admission.fates[choice])
    }

    /// Choices computed by each worker, in the order of their ids; `fates` is the last word on
    /// each choice.
    pub fn executed(&self, route: &Route, admission: &Admission, fates: &[Fate]) -> Vec<u64> {
        let mut counts = vec![0; self.endpoints().saturating_sub(1)];
        for (choice, fate) in fates.iter().enumerate() {
            if let Some(host) = self.host_at(route, admission, choice, *fate) {
                counts[host as usize - 1] += 1;
            }
        }
        counts
    }

    fn host_at(
        &self,
        route: &Route,
        admission: &Admission,
        choice: usize,
        fate: Fate,
    ) -> Option<u32> {
        if !matches!(fate, Fate::Computed | Fate::Rerouted) {
            return None;
        }
        let target = Target {
            expert: admission.executed(route, choice),
            replica: admission.replica(choice),
            wave: 0,
        };
        self.host(target.pack())
    }
}
