//! What would change a step, whoever is first among the workers, and what answers count.

use expertmesh_bench::simulate::{Answers, Simulated};
use expertmesh_simulator::ExpertTable;

use super::*;
use crate::commands::simulate::what_if::what_if;

fn on(words: &str, topology: &Topology, costs: Costs) -> (Planned, Simulated) {
    let machines = Machines {
        topology: topology.clone(),
        costs,
        cores: None,
        trust: None,
    };
    let mut planned = plan_on(&flags(words), 0, machines).unwrap();
    let (simulated, _) = simulate(&mut planned).unwrap();
    (planned, simulated)
}

/// By how many percent the step would change.
fn changes(words: &str, topology: &Topology, costs: Costs) -> Vec<(String, f64)> {
    let (planned, simulated) = on(words, topology, costs);
    let page = what_if(&planned, &simulated).unwrap();
    let lines = page.lines().skip(2);
    let parsed = lines.map(|line| {
        let change: f64 = line
            .split_whitespace()
            .rev()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        (line[2..26].trim().to_owned(), change)
    });
    parsed.collect()
}

fn change(all: &[(String, f64)], name: &str) -> f64 {
    let found = all.iter().find(|(one, _)| one == name);
    found.unwrap_or_else(|| panic!("no {name} in {all:?}")).1
}

const SHAPE: &str = "--workers 4 --tokens 64 --hidden 256 --ffn 256 --steps 2 --scores drawn";

fn racks(spine: &str) -> Topology {
    let text = format!(
        "[[host]]\nname = \"node\"\ncount = 4\nper_rack = 2\nslots = 1\ncores = 4\n[tier.rack]\nlatency = \"1 us\"\n\
         bandwidth = \"100 Gbit/s\"\n[tier.spine]\nlatency = \"1 us\"\n{spine}"
    );
    Topology::parse(&text, "racks.toml").unwrap()
}

#[test]
fn links_that_hold_everybody_up_are_worth_it_however_they_are_stated() {
    let slow = [
        "uplink = \"0.2 Gbit/s\"\n",
        "oversubscription = 500\n",
        "uplink = \"1 Tbit/s\"\n[[override]]\nfrom = \"node0\"\nto = \"*\"\nbandwidth = \"0.1 Gbit/s\"\n",
    ];
    for spine in slow {
        let all = changes(SHAPE, &racks(spine), Costs::loopback());
        let faster = change(&all, "links twice as fast");
        assert!(faster < -30.0, "{spine}: {all:?}");
    }
    let far =
        "uplink = \"1 Tbit/s\"\n[[override]]\nfrom = \"node0\"\nto = \"*\"\nlatency = \"50 ms\"\n";
    let all = changes(SHAPE, &racks(far), Costs::loopback());
    assert!(change(&all, "half the latency") < -30.0, "{all:?}");
}

#[test]
fn faster_experts_are_faster_beside_each_other_too() {
    let mut costs = Costs::loopback();
    let points = vec![(1, 1e6), (128, 1e8)];
    costs.experts.tables = vec![ExpertTable {
        hidden: 256,
        ffn: 256,
        matrices: 3,
        weight_bytes: 3 * 256 * 256 * 4,
        beside: points.iter().map(|(rows, ns)| (*rows, 3.0 * ns)).collect(),
        points,
    }];
    let topology = Topology::preset("loopback").unwrap();
    let all = changes(SHAPE, &topology, costs);
    let faster = change(&all, "experts twice as fast");
    assert!((-51.0..-45.0).contains(&faster), "{all:?}");
}

#[test]
fn faster_experts_leave_attention_as_it_is() {
    let words = "--model olmoe --workers 16 --layers 2 --steps 2 --context 20000";
    let topology = Topology::preset("h800").unwrap();
    let (planned, simulated) = on(words, &topology, Costs::preset("h800").unwrap());
    let placement = &planned.simulation.layers[0].config().placement;
    let path = Answers::of(&simulated, placement, |_| String::new()).path;
    let (first, share) = path[0];
    assert_eq!(first, "between layers", "{path:?}");
    assert!(share > 0.5, "{path:?}");
    let all = changes(words, &topology, Costs::preset("h800").unwrap());
    let faster = change(&all, "experts twice as fast");
    assert!(faster < 0.0 && faster > -100.0 * (1.0 - share), "{all:?}");
    // Its hosts make groups, and its load is even.
    change(&all, "exchange hierarchical");
    assert!(all.iter().all(|(name, _)| name != "even load"), "{all:?}");
    let forced = changes(
        &format!("{words} --force-routes skew:4"),
        &topology,
        Costs::preset("h800").unwrap(),
    );
    assert!(change(&forced, "even load") <= 0.0, "{forced:?}");
}

/// Four hosts, the `slow` one with few cores and a slow device.
fn one_slow(slow: usize) -> Topology {
    let host = |at: usize| match at == slow {
        true => format!("[[host]]\nname = \"h{at}\"\ncores = 2\nslots = 1\ndevice = \"slow\"\n"),
        false => format!("[[host]]\nname = \"h{at}\"\ncores = 8\nslots = 1\ndevice = \"fast\"\n"),
    };
    let device = |name: &str, rate: u32| {
        format!(
            "[[device]]\nname = \"{name}\"\nflops = \"{rate} TFLOP/s\"\nmemory = \"{rate} GB/s\"\nsource = \"made up\"\n"
        )
    };
    let hosts: String = (0..4).map(host).collect();
    let links = "[tier.rack]\nlatency = \"1 us\"\nbandwidth = \"100 Gbit/s\"\n";
    let text = hosts + links + &device("fast", 900) + &device("slow", 9);
    Topology::parse(&text, "slow.toml").unwrap()
}

#[test]
fn everybody_waits_for_the_slowest_host_wherever_it_stands() {
    let words = "--model olmoe --workers 4 --layers 1 --steps 1";
    let planned = |slow: usize, words: &str| {
        let machines = Machines {
            topology: one_slow(slow),
            costs: Costs::loopback(),
            cores: None,
            trust: None,
        };
        plan_on(&flags(words), 0, machines).unwrap()
    };
    let of = |planned: &Planned| {
        let simulation = &planned.simulation;
        (simulation.between_ns, simulation.simulator.config().threads)
    };
    let first = of(&planned(0, words));
    assert_eq!(first.1, 2);
    assert_eq!(of(&planned(3, words)), first);
    // Rows on the wire have a format of their own, which weights do not follow.
    let wide = planned(0, &format!("{words} --wire-dtype f32"));
    assert_eq!(of(&wide), first);
}

#[test]
fn choices_are_those_that_workers_computed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("placement.toml");
    std::fs::write(&file, "experts = [[0, 1], [0, 1], [0, 1], [0, 1]]\n").unwrap();
    let words = format!(
        "--workers 2 --tokens 64 --hidden 64 --ffn 64 --experts 4 --steps 3 --placement {}",
        file.display()
    );
    let topology = Topology::preset("loopback").unwrap();
    let (planned, simulated) = on(&words, &topology, Costs::loopback());
    // Both hold every expert, and the first of its replicas computes one.
    assert_eq!(simulated.choices, [3 * 64 * 2, 0]);
    let placement = &planned.simulation.layers[0].config().placement;
    let slowest = Answers::of(&simulated, placement, |_| String::new()).slowest;
    let slowest = slowest.unwrap();
    assert_eq!((slowest.name.as_str(), slowest.choices), ("worker-0", 2.0));
}
