//! Lanes tell the same step as its record and its ledger.

use expertmesh_coordinator::{StepInput, StepOutput};
use expertmesh_exchange::ExchangeKind;
use expertmesh_kernels::Format;
use expertmesh_telemetry::{Lane, Phase, Trace};
use expertmesh_testkit::{Cluster, ClusterSpec, inputs, tensor};

use crate::common::{EXCHANGES, small};

async fn step(exchange: ExchangeKind, workers: usize, want_lanes: bool) -> StepOutput {
    let mut spec = ClusterSpec::new(small(Format::F32), workers).exchange(exchange);
    spec.chunk_bytes = 1500;
    let cluster = Cluster::start(spec).await;
    let input = StepInput {
        want_lanes,
        ..StepInput::default()
    };
    let x = tensor(&inputs(3, 37, 64, Format::F32), 64);
    cluster.coordinator().forward_in(x, input).await.unwrap()
}

fn of(step: &StepOutput, phase: Phase) -> impl Iterator<Item = &Lane> {
    step.lanes.iter().filter(move |lane| lane.phase == phase)
}

#[tokio::test]
async fn a_step_has_lanes_only_where_they_are_asked_for() {
    for exchange in EXCHANGES {
        assert!(
            step(exchange, 2, false).await.lanes.is_empty(),
            "{exchange}"
        );
    }
}

#[tokio::test]
async fn lanes_are_of_the_cluster_within_the_step_and_as_long_as_its_phases() {
    for exchange in EXCHANGES {
        for workers in [1, 3] {
            let step = step(exchange, workers, true).await;
            let trace = Trace {
                endpoints: vec![String::new(); workers + 1],
                lanes: step.lanes.clone(),
            };
            trace.check().unwrap();
            assert_eq!(trace.steps().into_iter().collect::<Vec<_>>(), [step.step]);
            let begin = step.lanes.iter().map(|lane| lane.begin_ns).min().unwrap();
            let end = step.lanes.iter().map(|lane| lane.end_ns).max().unwrap();
            assert!(end - begin <= step.record.step_ns, "{exchange}");
            // Gate and plan are the coordinator's own.
            for phase in [Phase::Gate, Phase::Plan] {
                let took: u64 = of(&step, phase).map(Lane::duration_ns).sum();
                assert_eq!(
                    took,
                    step.record.phases_ns[phase.index()],
                    "{exchange} {phase}"
                );
            }
            // The critical chunk is among them, with the times that the record has.
            for phase in [Phase::Queue, Phase::Experts] {
                let critical = step.record.phases_ns[phase.index()];
                let found = of(&step, phase).any(|lane| {
                    lane.duration_ns() == critical
                        && lane.endpoint == step.traffic.critical_endpoint
                });
                assert!(found, "{exchange} {phase} of {critical} ns");
            }
        }
    }
}

#[tokio::test]
async fn a_chunk_goes_out_waits_is_computed_and_comes_back() {
    for exchange in EXCHANGES {
        let step = step(exchange, 3, true).await;
        let mut chunks = 0;
        for experts in of(&step, Phase::Experts) {
            let (host, home) = (experts.endpoint, experts.peer.unwrap());
            let pair = |lane: &&Lane| lane.endpoint == host && lane.peer == Some(home);
            let waited = of(&step, Phase::Queue).filter(pair);
            assert!(
                waited
                    .into_iter()
                    .any(|lane| lane.end_ns == experts.begin_ns)
            );
            let back = of(&step, Phase::Return).filter(pair);
            assert!(back.into_iter().any(|lane| lane.begin_ns == experts.end_ns));
            chunks += 1;
        }
        assert!(chunks >= 3, "{exchange}: {chunks}");
    }
}

#[tokio::test]
async fn lanes_carry_the_bytes_of_the_ledger() {
    // A relayed chunk is one lane, from its home to its host: the ledger counts both legs.
    for exchange in [ExchangeKind::Star, ExchangeKind::AllToAll] {
        let step = step(exchange, 3, true).await;
        let ledger = &step.traffic.ledger;
        let sum = |phase, from: u32, to: u32| -> u64 {
            let lanes = of(&step, phase);
            let lanes = lanes.filter(|lane| lane.endpoint == from && lane.peer == Some(to));
            lanes.map(|lane| lane.bytes).sum()
        };
        for (from, to, _) in ledger.links() {
            assert_eq!(sum(Phase::Send, from, to), ledger.requested(from, to));
            assert_eq!(sum(Phase::Return, from, to), ledger.answered(from, to));
        }
    }
}
