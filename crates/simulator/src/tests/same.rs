//! The same again, and all of it.

use expertmesh_exchange::ExchangeKind;
use expertmesh_routing::Route;

use super::{admitted, config, lab, layer};
use crate::{Costs, SimConfig, SimRun, Simulator, StepInput};

/// Three choices a token, spread by a formula.
fn spread(tokens: usize, experts: u32) -> Route {
    let choice = |at: u32| (at / 3 * 7 + at % 3 * 5 + at / 40) % experts;
    let choices = u32::try_from(3 * tokens).unwrap();
    Route {
        tokens,
        top_k: 3,
        offsets: None,
        experts_total: experts as usize,
        logits: Vec::new(),
        experts: (0..choices).map(choice).collect(),
        weights: vec![0.25; 3 * tokens],
        padding: None,
    }
}

fn setup(exchange: ExchangeKind) -> SimConfig {
    let mut config = config(12, 4, exchange);
    config.layer = layer(12, 3);
    config.chunk_bytes = 40_000;
    config.credits = 2;
    if exchange == ExchangeKind::Hierarchical {
        config.groups = vec![0, 0, 1, 1];
    }
    config.log = true;
    config.lanes = true;
    config
}

fn two(exchange: ExchangeKind, seed: u64) -> SimRun {
    let mut topology = lab(4, 1);
    topology.seed = seed;
    topology.tiers.rack.jitter_ns = 500;
    topology.tiers.rack.loss = 1e-3;
    let mut sim = Simulator::new(&topology, Costs::loopback(), setup(exchange)).unwrap();
    let (one, other) = (spread(100, 12), spread(77, 12));
    let admissions = [admitted(&one), admitted(&other)];
    let input = |route, admission, begins_ns| StepInput::at(begins_ns, route, admission);
    sim.run(&[
        input(&one, &admissions[0], 0),
        input(&other, &admissions[1], 50_000),
    ])
    .unwrap()
}

#[test]
fn the_same_seed_gives_the_same_log_to_the_byte() {
    for exchange in ExchangeKind::ALL {
        let (one, again, other) = (two(exchange, 1), two(exchange, 1), two(exchange, 2));
        assert_eq!(one.log, again.log);
        assert_eq!(one.digest, again.digest);
        assert_eq!(one.steps[0].record, again.steps[0].record);
        assert_ne!(one.digest, other.digest, "jitter follows the seed");
        assert_eq!(
            one.steps[0].ledger, other.steps[0].ledger,
            "the ledger does not"
        );
    }
}

#[test]
fn everything_that_is_planned_is_carried_and_nothing_else() {
    for exchange in ExchangeKind::ALL {
        let run = two(exchange, 3);
        let mut bytes = 0;
        for step in &run.steps {
            assert_eq!(step.carried, step.ledger, "{exchange}");
            let computed: u64 = step.record.choices_per_worker.iter().sum();
            assert_eq!(computed as usize, step.fates.len());
            bytes += step.ledger.total().bytes;
            assert!(step.record.messages > 50, "chunks are small");
            assert!(!step.lanes.is_empty());
            let whole = step.record.step_ns;
            let phases: u64 = step.record.phases_ns.iter().sum();
            assert!(phases <= whole, "{phases} of {whole}");
        }
        let sent: u64 = run.endpoints.iter().map(|one| one.sent_bytes).sum();
        let received: u64 = run.endpoints.iter().map(|one| one.received_bytes).sum();
        assert_eq!((sent, received), (bytes, bytes));
    }
}

/// Two steps under way share the machines: together they are sooner done than one after the other,
/// and no sooner than either alone.
#[test]
fn steps_overlap() {
    for exchange in ExchangeKind::ALL {
        let mut sim = Simulator::new(&lab(4, 4), Costs::loopback(), setup(exchange)).unwrap();
        let route = spread(100, 12);
        let admission = admitted(&route);
        let alone = sim.step(&route, &admission).unwrap().record.step_ns;
        let input = StepInput::at(0, &route, &admission);
        let both = sim.run(&[input, input]).unwrap();
        let last = both
            .steps
            .iter()
            .map(|step| step.record.step_ns)
            .max()
            .unwrap();
        assert!(
            last > alone && last < 2 * alone,
            "{exchange}: {alone}, both {last}"
        );
    }
}
