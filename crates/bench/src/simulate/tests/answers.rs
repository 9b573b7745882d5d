//! Sentences that name the worker, the expert and the port of a load that was made up.

use expertmesh_placement::Placement;
use expertmesh_topology::PortId;

use super::*;
use crate::workload::steered_rows;

/// The expert that every token chooses.
const HOT: u32 = 5;

/// Every token's first choice is [`HOT`], its second one of the others in turn.
fn skewed() -> Vec<u32> {
    let others: Vec<u32> = (0..SHAPE.experts as u32)
        .filter(|one| *one != HOT)
        .collect();
    let of_token = |token: usize| [HOT, others[token % others.len()]];
    (0..SHAPE.tokens).flat_map(of_token).collect()
}

fn rows_of(chosen: &[u32], padding: Option<Vec<bool>>) -> SimLoad {
    let gate = expertmesh_experts::synthetic_gate(SHAPE.experts, SHAPE.hidden, 0, 0);
    let rows = steered_rows(chosen, SHAPE, &gate, 3, 0).unwrap();
    SimLoad::Rows(Workload::fixed("made up", SHAPE, rows, padding).unwrap())
}

fn answers_on(topology: &Topology, placement: Placement, load: SimLoad, steps: u64) -> Answers {
    let mut config = config(SHAPE, ExchangeKind::AllToAll);
    config.placement = placement.clone();
    let mut simulation = simulation(one(config.clone()), load);
    simulation.simulator = simulator_on(topology, &config, |_| ());
    let fabric = simulation.simulator.fabric().clone();
    let simulated = run(&mut simulation, steps);
    let port = |port: usize| fabric.port_name(PortId(port as u32));
    Answers::of(&simulated, &placement, port)
}

fn contiguous() -> Placement {
    Placement::contiguous(SHAPE.experts, WORKERS).unwrap()
}

#[test]
fn the_worker_of_the_hot_expert_is_named_wherever_it_is() {
    let turned: Vec<Vec<u32>> = (0..8).map(|expert| vec![(7 - expert) / 2]).collect();
    let turned = Placement::from_table(turned, WORKERS).unwrap();
    for placement in [contiguous(), turned] {
        let worker = placement.replicas(HOT as usize)[0];
        let held = |expert: &&u32| placement.replicas(**expert as usize) == [worker];
        let chosen = skewed();
        let choices = chosen.iter().filter(held).count() as f64;
        let mean = chosen.len() as f64 / WORKERS as f64;
        let answers = answers_on(&lab(), placement, rows_of(&chosen, None), 3);
        let slowest = answers.slowest.clone().unwrap();
        assert_eq!(slowest.name, format!("worker-{worker}"));
        assert_eq!(slowest.hottest, Some((HOT as usize, 4.0)));
        assert!(close(slowest.choices, choices / mean));
        assert!(slowest.computed > 1.1 && slowest.received > 1.1);
        let first = &answers.sentences()[0];
        let begin = format!("worker-{worker} ends 100 % of the steps: ");
        assert!(first.starts_with(&begin), "{first}");
        let share = format!("{:.1} × the mean choices", choices / mean);
        for words in [&share, "expert 5 is hot, 4.0 × the mean"] {
            assert!(first.contains(words), "{first}");
        }
    }
}

#[test]
fn the_port_that_is_waited_for_is_the_slow_one() {
    let slow = r#"
        coordinator = "front"
        [[host]]
        name = "node"
        count = 3
        slots = 1
        [[host]]
        name = "late"
        slots = 1
        bandwidth = "100 Mbit/s"
        [[host]]
        name = "front"
        cores = 4
        [tier.rack]
        latency = "10 us"
        bandwidth = "8 Gbit/s"
        "#;
    let slow = Topology::parse(slow, "slow.toml").unwrap();
    let answers = answers_on(&slow, contiguous(), drawn("balanced", 1), 2);
    let (port, share) = answers.busiest_port.as_ref().unwrap();
    assert!(port.starts_with("late.nic0"), "{port}");
    assert!((0.0..=1.0).contains(share) && *share > 0.3, "{share}");
    // Whoever ends the steps, what it waits for is the way of that worker's tokens.
    let slowest = answers.slowest.as_ref().unwrap();
    assert_ne!(slowest.name, "worker-3");
    assert_eq!(slowest.home.as_deref(), Some("worker-3"));
    let sentences = answers.sentences();
    assert!(
        sentences[0].contains("the tokens of worker-3 come last there: "),
        "{}",
        sentences[0]
    );
    let waits = sentences
        .iter()
        .find(|one| one.contains("messages wait longer"))
        .unwrap();
    let expected = format!(
        "{port} than for any other port; it is busy {:.0} %",
        100.0 * share
    );
    assert!(waits.contains(&expected), "{waits}");
}

#[test]
fn the_path_is_told_from_its_longest_phase_on() {
    let answers = answers_on(&lab(), contiguous(), drawn("zipf:1", 1), 4);
    assert!(answers.path.len() > 3);
    assert!(answers.path.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    let sum: f64 = answers.path.iter().map(|(_, share)| share).sum();
    assert!((0.5..1.01).contains(&sum), "{sum}");
    let (phase, share) = answers.path[0];
    let begin = format!("critical path: {phase} {:.0} %, ", 100.0 * share);
    let path = &answers.sentences()[1];
    assert!(path.starts_with(&begin), "{path}");
    assert_eq!(path.matches(" %").count(), 4, "{path}");
}

#[test]
fn a_step_of_padding_has_nobody_to_wait_for() {
    let padding = Some(vec![true; SHAPE.tokens]);
    let answers = answers_on(&lab(), contiguous(), rows_of(&skewed(), padding), 2);
    assert_eq!(answers.slowest, None);
    assert_eq!(answers.sentences()[0], "no worker computes anything");
}

#[test]
fn what_is_near_the_mean_is_chance_and_what_is_not_is_told() {
    let load = |received, computed, choices, hottest| WorkerLoad {
        name: "worker-3".to_owned(),
        critical_share: 0.4,
        home: None,
        received,
        computed,
        choices,
        hottest,
    };
    let said = |slowest| {
        let answers = Answers {
            slowest: Some(slowest),
            path: Vec::new(),
            busiest_port: None,
        };
        answers.sentences()
    };
    assert_eq!(
        said(load(1.09, 0.2, 1.0, Some((2, 1.0)))),
        [
            "worker-3 ends 40 % of the steps: its loads are within 10 % of the mean: who is last \
             is chance"
        ]
    );
    assert_eq!(
        said(load(2.0, 1.5, 1.25, Some((2, 3.0)))),
        [
            "worker-3 ends 40 % of the steps: 2.0 × the mean bytes arrive on its port; 1.5 × the \
             mean compute time; 1.2 × the mean choices; expert 2 is hot, 3.0 × the mean"
        ]
    );
}
