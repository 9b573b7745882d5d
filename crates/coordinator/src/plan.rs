//! Route and capacity → who sends what: the plan of a step, checked against the limits.

use std::sync::Arc;

use expertmesh_checkpoint::Combine;
use expertmesh_exchange::{
    CombineRule, ExchangeKind, HomeRun, HomeSetup, KeptChoices, PlanRules, ShardPlan, StepMoments,
    StepPlan, TrafficLedger,
};
use expertmesh_routing::{Admission, Route, WeightDtype};
use expertmesh_transport::monotonic_ns;
use expertmesh_wire::Tag;

use crate::connect::Coordinator;
use crate::depth::Around;
use crate::engine::Exchange;
use crate::error::CoordinatorError;
use crate::shards::{Shard, ShardsRun, ShardsSetup};

/// A step on its way through [`Coordinator::forward`].
pub(crate) struct Planned {
    /// The choices of the coordinator's own shard: it has one in `star`.
    pub(crate) kept: KeptChoices,
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
        at: &mut StepMoments,
    ) -> Result<Planned, CoordinatorError> {
        let kind = self.config.exchange;
        let rules = PlanRules {
            kind,
            homes,
            table: &self.table,
            limits: self.limits,
            output_row_bytes: self.row_width() * self.rule().dtype.bytes(),
            one_by_one: self.rule().one_by_one,
            credits: self.config.credits,
        };
        let StepPlan {
            shards,
            ledger,
            extents,
        } = StepPlan::new(
            |range| around.kept(route, admission, range),
            around.present(route.tokens),
            &rules,
        );
        if kind.is_sharded() {
            let mut plans = shards.iter().map(|shard| &shard.plan);
            plans.try_for_each(|plan| self.check_shard(plan))?;
        }
        at.planned = monotonic_ns();
        let tag = Tag {
            session: self.session,
            step,
            layer: self.layer(),
            ..Tag::default()
        };
        let hidden = u32::try_from(self.row_width()).unwrap_or(u32::MAX);
        let budget = u64::try_from(self.config.deadline.as_nanos()).unwrap_or(u64::MAX);
        let (started_ns, deadline_ns) = (at.planned, at.begun.saturating_add(budget));
        let names = Arc::clone(&self.engine.names);
        let (rule, on_loss) = (self.rule(), self.config.on_loss);
        let mut kept = KeptChoices::default();
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
            let shard = shards.into_iter().next();
            let shard =
                shard.ok_or_else(|| CoordinatorError::Internal("a star has one shard".into()))?;
            kept = shard.kept;
            Exchange::Star(Box::new(HomeRun::new(shard.plan, setup)))
        } else {
            let setup = ShardsSetup {
                tag,
                hidden,
                rule,
                started_ns,
                deadline_ns,
                on_loss,
                names,
                extents,
            };
            let shards = shards.into_iter().map(|shard| Shard {
                tokens: shard.tokens,
                kept: shard.kept,
                plan: shard.plan,
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
        let output_row = self.row_width() * self.rule().dtype.bytes();
        let longest = bytes.max(plan.combined_frame_len(output_row));
        if longest <= limit {
            return Ok(());
        }
        Err(CoordinatorError::field(
            "tokens",
            format!("a shard of {} tokens, {longest} bytes", plan.tokens),
            format!(
                "shards of at most {limit} bytes where workers are homes; forward fewer tokens a step, add \
                 workers or use the star exchange"
            ),
        ))
    }

    pub(crate) fn rule(&self) -> CombineRule {
        let router = self.decider.gate.config();
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

    /// Length of hidden states and outputs.
    pub(crate) fn hidden(&self) -> usize {
        self.config.source.spec().hidden
    }

    /// Length of the rows that travel.
    pub(crate) fn row_width(&self) -> usize {
        self.config.source.spec().row_width()
    }

    fn layer(&self) -> u32 {
        self.config.source.spec().layer
    }
}
