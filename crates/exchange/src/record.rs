//! Moments of a step → what it cost.

use expertmesh_telemetry::{Phase, StepRecord};

use crate::ledger::TrafficLedger;
use crate::timeline::Timeline;

/// Moments of a step on the coordinator's clock, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepMoments {
    /// Hidden states were there.
    pub begun: u64,
    /// They were found fit; no phase has this part, so it is residual.
    pub checked: u64,
    /// The gate had answered.
    pub gated: u64,
    /// The plan was made: packing starts.
    pub planned: u64,
    /// Outputs were there in token order.
    pub done: u64,
    /// Time in the shared expert at the coordinator: where it is home, or homes have latent rows.
    pub shared: u64,
}

/// Moments of a shard that came back (`all-to-all`), on the coordinator's clock, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardMoments {
    /// It was handed to the transport.
    pub packed: u64,
    /// Its home had it.
    pub received: u64,
    /// Its outputs left the home.
    pub left: u64,
    /// They were at the coordinator.
    pub arrived: u64,
    /// The home's exchange.
    pub line: Timeline,
    /// How far off the home's moments may be.
    pub clock_error: u64,
}

/// The phases between packing and outputs, nanoseconds, along the critical path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way {
    /// [`Phase::Pack`].
    pub pack: u64,
    /// [`Phase::Send`].
    pub send: u64,
    /// [`Phase::Queue`].
    pub queue: u64,
    /// [`Phase::Experts`].
    pub experts: u64,
    /// [`Phase::Return`].
    pub back: u64,
    /// [`Phase::Combine`].
    pub combine: u64,
    /// Start of packing to the last worker having its rows.
    pub dispatch: u64,
    /// First result leaving a worker to outputs in token order.
    pub combine_span: u64,
    /// Longest time that one worker spent in experts for one home.
    pub longest_experts: u64,
    /// Longest time of shared experts.
    pub shared: u64,
    /// How far off moments of other clocks may be.
    pub clock_error: u64,
    /// Endpoint id of the worker on the critical path; 0 if no row left.
    pub critical: u32,
}

// === impl Way ===

impl Way {
    /// The coordinator is home: its timeline is the way.
    pub fn of_star(line: Timeline, at: &StepMoments) -> Self {
        if line.arrived == 0 {
            return Self {
                combine: at.done - at.planned,
                shared: line.shared,
                ..Self::default()
            };
        }
        Self {
            pack: line.packed,
            send: line.received - line.packed,
            queue: line.started - line.received,
            experts: line.computed - line.started,
            back: line.arrived - line.computed,
            combine: line.done - line.arrived,
            dispatch: line.dispatched,
            combine_span: line.done - line.first_result,
            longest_experts: line.longest_experts,
            shared: line.shared,
            clock_error: line.clock_error,
            critical: u32::try_from(line.critical).unwrap_or(0),
        }
    }

    /// The way of the shard that came back last, of several the one of the highest home: to its
    /// home, through the home's exchange, and back.
    pub fn of_shards(shards: impl IntoIterator<Item = ShardMoments>, at: &StepMoments) -> Self {
        let mut way = Self {
            shared: at.shared,
            ..Self::default()
        };
        let mut first_result = at.done;
        let mut critical: Option<ShardMoments> = None;
        for shard in shards {
            let (home, line) = (shard.received, shard.line);
            let dispatched = (home + line.dispatched).saturating_sub(at.planned);
            way.dispatch = way.dispatch.max(dispatched);
            first_result = first_result.min(home + line.first_result);
            way.longest_experts = way.longest_experts.max(line.longest_experts);
            way.shared = way.shared.max(line.shared);
            let error = line.clock_error.max(shard.clock_error);
            way.clock_error = way.clock_error.max(error);
            if critical.is_none_or(|last| last.arrived <= shard.arrived) {
                critical = Some(shard);
            }
        }
        way.combine_span = at.done.saturating_sub(first_result);
        let Some(shard) = critical else {
            return way;
        };
        let ShardMoments {
            packed,
            received: home,
            left,
            arrived,
            line,
            ..
        } = shard;
        way.pack = packed.saturating_sub(at.planned) + line.packed;
        way.send = (home - packed) + (line.received - line.packed);
        way.queue = line.started - line.received;
        way.experts = line.computed - line.started;
        way.back = (line.arrived - line.computed) + (arrived - left);
        way.combine = (left - home).saturating_sub(line.arrived) + (at.done - arrived);
        way.critical = u32::try_from(line.critical).unwrap_or(0);
        way
    }

    /// The record of a step that went this way. `choices_per_worker` is what
    /// [`HostTable::executed`](crate::HostTable::executed) counts.
    pub fn record(
        &self,
        at: &StepMoments,
        ledger: &TrafficLedger,
        choices_per_worker: Vec<u64>,
    ) -> StepRecord {
        let mut phases_ns = [0; Phase::COUNT];
        let phases = [
            (Phase::Gate, at.gated - at.checked),
            (Phase::Plan, at.planned - at.gated),
            (Phase::Pack, self.pack),
            (Phase::Send, self.send),
            (Phase::Queue, self.queue),
            (Phase::Experts, self.experts),
            (Phase::Shared, self.shared),
            (Phase::Return, self.back),
            (Phase::Combine, self.combine),
        ];
        for (phase, ns) in phases {
            phases_ns[phase.index()] = ns;
        }
        let total = ledger.total();
        StepRecord {
            step_ns: at.done - at.begun,
            exchange_ns: at.done - at.gated,
            dispatch_ns: self.dispatch,
            combine_ns: self.combine_span,
            phases_ns,
            longest_experts_ns: self.longest_experts,
            clock_error_ns: self.clock_error,
            payload_bytes: total.bytes,
            local_bytes: ledger.local_bytes,
            saved_by_dedup_bytes: ledger.saved_by_dedup_bytes,
            messages: total.messages,
            matrix: ledger.matrix(),
            choices_per_worker,
            ..StepRecord::default()
        }
    }
}
