//! Links that are late by chance.

use std::collections::BTreeSet;

use expertmesh_exchange::ExchangeKind;
use expertmesh_telemetry::Phase;
use expertmesh_topology::Topology;

use super::{admitted, config, free, lab, route};
use crate::{Simulator, StepInput};

fn noisy(workers: usize, jitter_us: u64) -> Topology {
    let mut topology = lab(workers, 4);
    topology.tiers.rack.jitter_ns = 1000 * jitter_us;
    topology
}

#[test]
fn jitter_goes_on_from_step_to_step() {
    let config = config(1, 1, ExchangeKind::Star);
    let layer = || Simulator::new(&noisy(1, 500), free(), config.clone()).unwrap();
    let route = route(1, &[0]);
    let took = |sim: &mut Simulator| {
        let step = sim.step(&route, &admitted(&route)).unwrap();
        step.record.step_ns
    };
    let mut one = layer();
    let steps: Vec<u64> = (0..20).map(|_| took(&mut one)).collect();
    let distinct: BTreeSet<u64> = steps.iter().copied().collect();
    assert_eq!(distinct.len(), 20, "{steps:?}");
    // Another simulator of the same goes through the same numbers.
    let mut other = layer();
    assert!(steps.iter().all(|expected| took(&mut other) == *expected));
}

#[test]
fn messages_of_a_stream_keep_their_order() {
    let mut config = config(1, 1, ExchangeKind::Star);
    // A row a message, and none waits for another's results.
    (config.chunk_bytes, config.credits, config.lanes) = (8192, 64, true);
    let route = route(1, &[0; 40]);
    let mut sim = Simulator::new(&noisy(1, 500), free(), config).unwrap();
    let run = sim.run(&[StepInput::at(7_000_000_000, &route, &admitted(&route))]);
    let lanes = run.unwrap().steps.remove(0).lanes;
    for phase in [Phase::Send, Phase::Return] {
        let mut sent: Vec<_> = lanes.iter().filter(|lane| lane.phase == phase).collect();
        assert!(sent.len() >= 20, "{} messages", sent.len());
        sent.sort_by_key(|lane| lane.begin_ns);
        assert!(sent.windows(2).all(|pair| pair[0].end_ns <= pair[1].end_ns));
        assert!(sent[0].begin_ns >= 7_000_000_000);
    }
}
