//! Threads that share the cores of a host.

use expertmesh_exchange::ExchangeKind;
use expertmesh_topology::Topology;

use super::{admitted, config, free, route, table};
use crate::{Costs, Simulator};

/// Three workers on one host of so many cores, the coordinator elsewhere; links cost nothing that
/// counts.
fn crowded(cores: usize) -> Topology {
    let text = format!(
        r#"
        coordinator = "front"
        [[host]]
        name = "node"
        cores = {cores}
        slots = 3
        [[host]]
        name = "front"
        cores = 4
        [tier.host]
        latency = "0 ns"
        bandwidth = "1000 TB/s"
        [tier.rack]
        latency = "0 ns"
        bandwidth = "1000 TB/s"
        "#
    );
    Topology::parse(&text, "crowded.toml").expect("a topology")
}

fn step_ns(cores: usize, costs: &Costs) -> u64 {
    step_of(3, cores, costs)
}

/// A step that keeps the first `busy` workers busy.
fn step_of(busy: u32, cores: usize, costs: &Costs) -> u64 {
    let config = config(3, 3, ExchangeKind::Star);
    let mut sim = Simulator::new(&crowded(cores), costs.clone(), config).unwrap();
    // Enough rows that a batch is worth a compute thread.
    let tokens: Vec<u32> = (0..busy * 64).map(|token| token % busy).collect();
    let route = route(3, &tokens);
    sim.step(&route, &admitted(&route)).unwrap().record.step_ns
}

/// Each batch takes 100 µs, and messages next to nothing: the third waits for a core.
#[test]
fn three_batches_on_two_cores_take_twice_as_long() {
    let mut costs = free();
    costs.experts.tables = vec![table(64, 100_000.0)];
    let near = |ns: u64, expected: u64| ns.abs_diff(expected) < 100;
    assert!(near(step_ns(8, &costs), 100_000), "{}", step_ns(8, &costs));
    assert!(near(step_ns(3, &costs), 100_000), "{}", step_ns(3, &costs));
    assert!(near(step_ns(2, &costs), 200_000), "{}", step_ns(2, &costs));
    assert!(near(step_ns(1, &costs), 300_000), "{}", step_ns(1, &costs));
    costs.on_cores = false;
    assert!(near(step_ns(1, &costs), 100_000), "{}", step_ns(1, &costs));
}

/// Slices of 10 µs: all three end near the end, nobody is lost, and the sum stays.
#[test]
fn slices_share_a_core_and_lose_nothing() {
    let mut costs = free();
    costs.experts.tables = vec![table(64, 100_000.0)];
    costs.slice_ns = 10_000.0;
    let (one, two) = (step_ns(1, &costs), step_ns(2, &costs));
    assert!(one.abs_diff(300_000) < 100, "{one}");
    assert!(two.abs_diff(150_000) <= 10_100, "{two}");
}

/// Experts that take twice as long while every other core computes: alone they take their time, three
/// on three cores nearly twice that. Nearly, because who begins first finds the others idle for a while.
#[test]
fn experts_hold_each_other_up_while_they_run_together() {
    let mut costs = free();
    let mut shape = table(64, 10e6);
    shape.beside = vec![(64, 20e6)];
    costs.experts.tables = vec![shape];
    let alone = step_of(1, 3, &costs);
    assert!(alone.abs_diff(10_000_000) < 100, "{alone}");
    let together = step_of(3, 3, &costs);
    assert!((18_500_000..20_100_000).contains(&together), "{together}");
    // Two of four cores: one other of three computes.
    let two = step_of(2, 4, &costs);
    assert!((12_700_000..13_400_000).contains(&two), "{two}");
}
