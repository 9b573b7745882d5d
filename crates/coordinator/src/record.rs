//! Moments and plans → what a step cost.

use expertmesh_exchange::{ShardMoments, StepMoments, TrafficLedger, Way};
use expertmesh_telemetry::{StepRecord, spans};
use tracing::debug_span;

use crate::engine::{Engine, Exchange};
use crate::shards::ShardsRun;

/// The record of a step, and the endpoint on its critical path.
pub(crate) fn record(
    engine: &Engine,
    exchange: &Exchange,
    at: &StepMoments,
    ledger: &TrafficLedger,
    choices_per_worker: Vec<u64>,
) -> (StepRecord, u32) {
    let way = match exchange {
        Exchange::Star(run) => Way::of_star(run.timeline(at.done, at.shared), at),
        Exchange::AllToAll(run) => Way::of_shards(shards(engine, run), at),
        Exchange::Floor(_) => Way::default(),
    };
    // These pass on the wire and in other processes: no code here runs while they do, so their
    // spans are opened and closed when the step ends and carry the duration.
    drop(debug_span!(spans::SEND, ns = way.send));
    drop(debug_span!(spans::QUEUE, ns = way.queue));
    drop(debug_span!(spans::EXPERTS, ns = way.experts));
    drop(debug_span!(spans::RETURN, ns = way.back));
    (way.record(at, ledger, choices_per_worker), way.critical)
}

/// The shards that came back, their homes' moments on the coordinator's clock.
fn shards<'a>(engine: &'a Engine, run: &'a ShardsRun) -> impl Iterator<Item = ShardMoments> + 'a {
    run.shards.iter().filter_map(|shard| {
        let (combined, arrived) = shard.combined.as_ref()?;
        let times = combined.frame.header.times;
        let clock = engine.clock(shard.plan.home);
        let received = clock.to_local(times.received_ns);
        let received = received.clamp(shard.packed_ns, *arrived);
        Some(ShardMoments {
            packed: shard.packed_ns,
            received,
            left: clock.to_local(times.sent_ns).clamp(received, *arrived),
            arrived: *arrived,
            line: combined.timeline,
            clock_error: clock.error_ns(),
        })
    })
}
