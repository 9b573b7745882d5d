//! Moments and plans → what a step cost.

use expertmesh_exchange::{Timeline, TrafficLedger};
use expertmesh_telemetry::{Phase, StepRecord, spans};
use tracing::debug_span;

use crate::engine::{Engine, Exchange};

/// Moments of a step on the coordinator's clock, nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moments {
    /// Hidden states were there.
    pub(crate) begun: u64,
    /// They were found fit; no phase has this part, so it is residual.
    pub(crate) checked: u64,
    /// The gate had answered.
    pub(crate) gated: u64,
    /// The plan was made: packing starts.
    pub(crate) planned: u64,
    /// Outputs were there in token order.
    pub(crate) done: u64,
    /// Time in the shared expert at the coordinator.
    pub(crate) shared: u64,
}

/// The phases between packing and outputs, nanoseconds.
#[derive(Debug, Default)]
struct Way {
    pack: u64,
    send: u64,
    queue: u64,
    experts: u64,
    back: u64,
    combine: u64,
    dispatch: u64,
    combine_span: u64,
    longest_experts: u64,
    shared: u64,
    clock_error: u64,
    critical: u32,
}

/// The record of a step, and the endpoint on its critical path.
pub(crate) fn record(
    engine: &Engine,
    exchange: &Exchange,
    at: &Moments,
    ledger: &TrafficLedger,
    choices_per_worker: Vec<u64>,
) -> (StepRecord, u32) {
    let way = match exchange {
        Exchange::Star(run) => star(run.timeline(at.done, at.shared), at),
        Exchange::AllToAll(run) => all_to_all(engine, run, at),
        Exchange::Floor(_) => Way::default(),
    };
    let mut phases_ns = [0; Phase::COUNT];
    let phases = [
        (Phase::Gate, at.gated - at.checked),
        (Phase::Plan, at.planned - at.gated),
        (Phase::Pack, way.pack),
        (Phase::Send, way.send),
        (Phase::Queue, way.queue),
        (Phase::Experts, way.experts),
        (Phase::Shared, way.shared),
        (Phase::Return, way.back),
        (Phase::Combine, way.combine),
    ];
    for (phase, ns) in phases {
        phases_ns[phase.index()] = ns;
    }
    // These pass on the wire and in other processes: no code here runs while they do, so their
    // spans are opened and closed when the step ends and carry the duration.
    drop(debug_span!(spans::SEND, ns = way.send));
    drop(debug_span!(spans::QUEUE, ns = way.queue));
    drop(debug_span!(spans::EXPERTS, ns = way.experts));
    drop(debug_span!(spans::RETURN, ns = way.back));
    let total = ledger.total();
    let endpoints = u32::try_from(ledger.endpoints()).unwrap_or(u32::MAX);
    let row = |from: u32| {
        (0..endpoints)
            .map(|to| ledger.cell(from, to).bytes)
            .collect()
    };
    let record = StepRecord {
        step_ns: at.done - at.begun,
        exchange_ns: at.done - at.gated,
        dispatch_ns: way.dispatch,
        combine_ns: way.combine_span,
        phases_ns,
        longest_experts_ns: way.longest_experts,
        clock_error_ns: way.clock_error,
        payload_bytes: total.bytes,
        local_bytes: ledger.local_bytes,
        saved_by_dedup_bytes: ledger.saved_by_dedup_bytes,
        messages: total.messages,
        matrix: (0..endpoints).map(row).collect(),
        choices_per_worker,
        ..StepRecord::default()
    };
    (record, way.critical)
}

/// The coordinator is home: its timeline is the way.
fn star(line: Timeline, at: &Moments) -> Way {
    if line.arrived == 0 {
        return Way {
            combine: at.done - at.planned,
            shared: line.shared,
            ..Way::default()
        };
    }
    Way {
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

/// The way of the shard that came back last: to its home, through the home's exchange, and back.
fn all_to_all(engine: &Engine, run: &crate::shards::ShardsRun, at: &Moments) -> Way {
    let mut way = Way::default();
    let mut first_result = at.done;
    for shard in &run.shards {
        let Some((combined, arrived)) = &shard.combined else {
            continue;
        };
        let (line, times) = (combined.timeline, combined.frame.header.times);
        let clock = engine.clock(shard.plan.home);
        let home = clock
            .to_local(times.received_ns)
            .clamp(shard.packed_ns, *arrived);
        way.dispatch = way
            .dispatch
            .max((home + line.dispatched).saturating_sub(at.planned));
        first_result = first_result.min(home + line.first_result);
        way.longest_experts = way.longest_experts.max(line.longest_experts);
        way.shared = way.shared.max(line.shared);
        way.clock_error = way.clock_error.max(line.clock_error).max(clock.error_ns());
    }
    way.combine_span = at.done.saturating_sub(first_result);
    let Some((shard, line, arrived)) = run.critical() else {
        return way;
    };
    let Some((combined, _)) = &shard.combined else {
        return way;
    };
    let times = combined.frame.header.times;
    let clock = engine.clock(shard.plan.home);
    let home = clock
        .to_local(times.received_ns)
        .clamp(shard.packed_ns, arrived);
    let left = clock.to_local(times.sent_ns).clamp(home, arrived);
    way.pack = shard.packed_ns.saturating_sub(at.planned) + line.packed;
    way.send = (home - shard.packed_ns) + (line.received - line.packed);
    way.queue = line.started - line.received;
    way.experts = line.computed - line.started;
    way.back = (line.arrived - line.computed) + (arrived - left);
    way.combine = (left - home).saturating_sub(line.arrived) + (at.done - arrived);
    way.critical = u32::try_from(line.critical).unwrap_or(0);
    way
}
