//! Route and capacity → who sends what: the plan of a step, checked against the limits.

use std::sync::Arc;

use expertmesh_checkpoint::Combine;
use expertmesh_exchange::{
    COORDINATOR, CombineRule, ExchangeKind, HomeRun, HomeSetup, KeptChoices, ShardPlan,
    TrafficLedger, shard_ranges,
};
use expertmesh_routing::{Admission, Route, WeightDtype};
use expertmesh_transport::monotonic_ns;
use expertmesh_wire::Tag;

use crate::connect::Coordinator;
use crate::depth::Around;
use crate::engine::Exchange;
use crate::error::CoordinatorError;
use crate::record::Moments;
use crate::shards::{Shard, ShardsRun, ShardsSetup};

/// A step on its way through [`Coordinator::forward`].
pub(crate) struct Planned {
    pub(crate) kept: Vec<KeptChoices>,
    pub(crate) ledger: TrafficLedger,
    pub(crate) exchange: Exchange,
}

// === impl Coordinator ===

impl Coordinator {
    pub(crate) fn plan(
        &self,
        step: u64,
        route: &Route,
        admission: &Admission,
        around: &Around,
        homes: &[u32],
        at: &mut Moments,
    ) -> Result<Planned, CoordinatorError> {
        let kind = self.config.exchange;
        let tokens = around.present(route.tokens);
        let ranges = match kind {
            ExchangeKind::Star => vec![(COORDINATOR, 0..tokens)],
            ExchangeKind::AllToAll => homes
                .iter()
                .copied()
                .zip(shard_ranges(tokens, homes.len()))
                .filter(|(_, range)| !range.is_empty())
                .collect(),
        };
        let kept: Vec<KeptChoices> = ranges
            .iter()
            .map(|(_, range)| {
                let kept = around.kept(route, admission, range.clone());
                match self.rule().one_by_one {
                    true => kept.by_expert(),
                    false => kept,
                }
            })
            .collect();
        let plans: Vec<ShardPlan> = ranges
            .iter()
            .zip(&kept)
            .map(|((home, _), kept)| {
                ShardPlan::new(*home, kept.as_kept(), &self.table, self.limits)
            })
            .collect();
        if kind == ExchangeKind::AllToAll {
            plans.iter().try_for_each(|plan| self.check_shard(plan))?;
        }
        let output_row = self.hidden() * self.rule().dtype.bytes();
        let endpoints = self.endpoints.len();
        let ledger = TrafficLedger::of_step(kind, &plans, endpoints, self.limits, output_row);
        at.planned = monotonic_ns();
        let tag = Tag {
            session: self.session,
            step,
            layer: self.layer(),
            ..Tag::default()
        };
        let hidden = u32::try_from(self.hidden()).unwrap_or(u32::MAX);
        let budget = u64::try_from(self.config.deadline.as_nanos()).unwrap_or(u64::MAX);
        let (started_ns, deadline_ns) = (at.planned, at.begun.saturating_add(budget));
        let names = Arc::clone(&self.engine.names);
        let (rule, on_loss) = (self.rule(), self.config.on_loss);
        let exchange = if kind == ExchangeKind::Star {
            let credits = self.config.credits;
            let setup = HomeSetup {
                tag,
                hidden,
                rule,
                credits,
                on_loss,
                started_ns,
                deadline_ns,
                names,
                extents: Vec::new(),
            };
            let plan = plans.into_iter().next();
            let plan =
                plan.ok_or_else(|| CoordinatorError::Internal("a star has one shard".into()))?;
            Exchange::Star(Box::new(HomeRun::new(plan, setup)))
        } else {
            let setup = ShardsSetup {
                tag,
                hidden,
                rule,
                started_ns,
                deadline_ns,
                on_loss,
                names,
                extents: ShardPlan::first_chunks(&plans, endpoints, self.config.credits),
            };
            let shards =
                ranges
                    .into_iter()
                    .zip(plans)
                    .zip(&kept)
                    .map(|(((_, tokens), plan), kept)| Shard {
                        tokens,
                        kept: kept.clone(),
                        plan,
                        packed_ns: started_ns,
                        combined: None,
                    });
            Exchange::AllToAll(ShardsRun::new(shards.collect(), setup))
        };
        Ok(Planned {
            kept,
            ledger,
            exchange,
        })
    }

    /// A shard and its outputs travel whole, each in one message.
    fn check_shard(&self, plan: &ShardPlan) -> Result<(), CoordinatorError> {
        let limit = self.config.options.max_message_bytes;
        let bytes = plan.shard_frame_len(self.limits.row_bytes, self.endpoints.len());
        let output_row = self.hidden() * self.rule().dtype.bytes();
        let longest = bytes.max(plan.combined_frame_len(output_row));
        if longest <= limit {
            return Ok(());
        }
        Err(CoordinatorError::field(
            "tokens",
            format!("a shard of {} tokens, {longest} bytes", plan.tokens),
            format!(
                "shards of at most {limit} bytes in all-to-all; forward fewer tokens a step, add \
                 workers or use the star exchange"
            ),
        ))
    }

    pub(crate) fn rule(&self) -> CombineRule {
        let router = self.gate.config();
        let weight_in_dtype = router.weight_dtype == WeightDtype::Model;
        let spec = self.config.source.spec();
        CombineRule {
            weight_on_input: spec.weight_on_input,
            routed_scale: spec.routed_scale,
            one_by_one: spec.one_by_one,
            shared_mean: spec
                .shared
                .is_some_and(|one| one.combine == Combine::Average),
            ..CombineRule::new(self.config.wire_dtype, router.dtype, weight_in_dtype)
        }
    }

    pub(crate) fn hidden(&self) -> usize {
        self.config.source.spec().hidden
    }

    fn layer(&self) -> u32 {
        self.config.source.spec().layer
    }
}
