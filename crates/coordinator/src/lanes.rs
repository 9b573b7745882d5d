//! Moments of a step → lanes for pictures of it.
//!
//! Made when the step has ended, and only where its caller asked: no figure of the step holds them.

use std::collections::BTreeMap;

use expertmesh_exchange::{COORDINATOR, ChunkWay, HomeRun, StepMoments, TrafficLedger};
use expertmesh_telemetry::{Lane, Phase};
use expertmesh_wire::v1;
use tracing::debug;

use crate::connect::Coordinator;
use crate::engine::{Engine, Exchange};
use crate::shards::ShardsRun;

/// What homes told of their chunks, by endpoint id.
pub(crate) type Ways = BTreeMap<u32, Vec<v1::ChunkWay>>;

// === impl Coordinator ===

impl Coordinator {
    /// Asks every home of a step for the ways of its chunks. It is only a picture: a home that does
    /// not answer is left out.
    pub(crate) async fn ways(&self, exchange: &Exchange, step: u64) -> Ways {
        let mut ways = Ways::new();
        let Exchange::AllToAll(run) = exchange else {
            return ways;
        };
        for shard in run.shards.iter().filter(|shard| shard.combined.is_some()) {
            let home = shard.plan.home;
            let Some(worker) = self.workers.get((home as usize).wrapping_sub(1)) else {
                continue;
            };
            let request = v1::ChunksRequest {
                session: self.session,
                step,
            };
            match worker.chunks(request).await {
                Ok(reply) => {
                    let known = |way: &v1::ChunkWay| (way.endpoint as usize) < self.endpoints.len();
                    ways.insert(home, reply.ways.into_iter().filter(known).collect());
                }
                Err(error) => debug!(home, %error, "chunks are unknown"),
            }
        }
        ways
    }
}

/// The lanes of a step, in no particular order.
pub(crate) fn lanes(
    engine: &Engine,
    exchange: &Exchange,
    at: &StepMoments,
    ledger: &TrafficLedger,
    ways: &Ways,
    step: u64,
) -> Vec<Lane> {
    let mut lanes = Lanes {
        step,
        lanes: Vec::new(),
    };
    lanes.work(COORDINATOR, Phase::Gate, at.checked, at.gated);
    lanes.work(COORDINATOR, Phase::Plan, at.gated, at.planned);
    let last = match exchange {
        Exchange::Star(run) => lanes.star(run, at),
        Exchange::AllToAll(run) => lanes.all_to_all(engine, run, at, (ledger, ways)),
        Exchange::Floor(_) => at.planned,
    };
    lanes.work(COORDINATOR, Phase::Combine, last, at.done);
    lanes.lanes
}

struct Lanes {
    step: u64,
    lanes: Vec<Lane>,
}

impl Lanes {
    /// Work of an endpoint that concerns no other.
    fn work(&mut self, endpoint: u32, phase: Phase, begin_ns: u64, end_ns: u64) {
        self.push(endpoint, phase, None, (begin_ns, end_ns), 0);
    }

    fn push(
        &mut self,
        endpoint: u32,
        phase: Phase,
        peer: Option<u32>,
        (begin_ns, end_ns): (u64, u64),
        bytes: u64,
    ) {
        self.lanes.push(Lane {
            endpoint,
            phase,
            step: self.step,
            begin_ns,
            end_ns: end_ns.max(begin_ns),
            peer,
            bytes,
            predicted: false,
        });
    }

    /// A chunk, from `home` to its host and back.
    fn chunk(&mut self, home: u32, way: ChunkWay) {
        let (host, peer) = (way.endpoint, Some(way.endpoint));
        // What a home sends itself never leaves it, and no ledger counts it.
        let (request, result) = match host == home {
            true => (0, 0),
            false => (way.request_bytes, way.result_bytes),
        };
        self.push(home, Phase::Pack, peer, (way.began, way.packed), request);
        self.push(home, Phase::Send, peer, (way.packed, way.received), request);
        let waits = (way.received, way.started);
        self.push(host, Phase::Queue, Some(home), waits, 0);
        let works = (way.started, way.computed);
        self.push(host, Phase::Experts, Some(home), works, 0);
        let back = (way.computed, way.arrived);
        self.push(host, Phase::Return, Some(home), back, result);
    }

    /// Every chunk; returns when the last results were there.
    fn star(&mut self, run: &HomeRun, at: &StepMoments) -> u64 {
        let (mut packed, mut arrived) = (at.planned, at.planned);
        for way in run.ways() {
            self.chunk(COORDINATOR, way);
            packed = packed.max(way.packed);
            arrived = arrived.max(way.arrived);
        }
        self.shared(COORDINATOR, packed, at.shared);
        arrived
    }

    /// Every shard, and in each home its chunks; of a home that did not tell, the one whose results
    /// came last. Returns when the last outputs were there.
    fn all_to_all(
        &mut self,
        engine: &Engine,
        run: &ShardsRun,
        at: &StepMoments,
        (ledger, ways): (&TrafficLedger, &Ways),
    ) -> u64 {
        let mut last = at.planned;
        // Shards are packed one after another.
        let mut packing = at.planned;
        for shard in &run.shards {
            let home = shard.plan.home;
            let sent = ledger.requested(COORDINATOR, home);
            let packs = (packing.min(shard.packed_ns), shard.packed_ns);
            self.push(COORDINATOR, Phase::Pack, Some(home), packs, sent);
            packing = shard.packed_ns;
            let Some((combined, arrived)) = &shard.combined else {
                continue;
            };
            let (line, times) = (combined.timeline, combined.frame.header.times);
            let clock = engine.clock(home);
            let here = |theirs, least| clock.to_local(theirs).clamp(least, *arrived);
            let begun = here(times.received_ns, shard.packed_ns);
            let left = here(times.sent_ns, begun);
            let since = |moment: u64| begun.saturating_add(moment).min(left);
            let travels = (shard.packed_ns, begun);
            self.push(COORDINATOR, Phase::Send, Some(home), travels, sent);
            let told = ways.get(&home).map(Vec::as_slice).unwrap_or_default();
            for way in told {
                self.chunk(
                    home,
                    ChunkWay::from_wire(way, |theirs| here(theirs, begun).min(left)),
                );
            }
            let critical = u32::try_from(line.critical).unwrap_or(COORDINATOR);
            if told.is_empty() && critical != COORDINATOR {
                self.chunk(
                    home,
                    ChunkWay {
                        endpoint: critical,
                        began: begun,
                        packed: since(line.packed),
                        received: since(line.received),
                        started: since(line.started),
                        computed: since(line.computed),
                        left: since(line.arrived),
                        arrived: since(line.arrived),
                        ..ChunkWay::default()
                    },
                );
            }
            self.shared(home, since(line.packed), line.shared);
            self.work(home, Phase::Combine, since(line.arrived), left);
            let answered = ledger.answered(home, COORDINATOR);
            let back = (left, *arrived);
            self.push(home, Phase::Return, Some(COORDINATOR), back, answered);
            last = last.max(*arrived);
        }
        // With latent rows the coordinator has the shared expert.
        self.shared(COORDINATOR, packing, at.shared);
        last
    }

    /// The shared expert: it is started when the first rows have left.
    fn shared(&mut self, home: u32, begin_ns: u64, took_ns: u64) {
        if took_ns > 0 {
            self.work(home, Phase::Shared, begin_ns, begin_ns + took_ns);
        }
    }
}
