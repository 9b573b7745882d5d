//! Stragglers and the lost.

use expertmesh_exchange::{ExchangeKind, LossCause, OnLoss, StepError};
use expertmesh_routing::Fate;

use super::{admitted, config, free, lab, route, table};
use crate::{Failure, Fault, SimError, Simulator, StepInput};

const EXCHANGES: [ExchangeKind; 2] = [ExchangeKind::Star, ExchangeKind::AllToAll];

#[test]
fn a_straggler_is_the_critical_one_and_costs_its_factor() {
    let mut costs = free();
    costs.experts.tables = vec![table(1, 10_000.0)];
    let mut config = config(3, 3, ExchangeKind::Star);
    let route = route(3, &[0, 1, 2]);
    let step = |config| {
        let mut sim = Simulator::new(&lab(3, 4), costs.clone(), config).unwrap();
        sim.step(&route, &admitted(&route)).unwrap()
    };
    let plain = step(config.clone());
    config.faults = vec![Fault::SlowCompute {
        endpoint: 2,
        factor: 4.0,
    }];
    let slow = step(config);
    assert_eq!(slow.critical_endpoint, 2);
    assert_eq!(slow.record.longest_experts_ns, 40_000);
    let more = slow.record.step_ns - plain.record.step_ns;
    assert!((20_000..=30_000).contains(&more), "{more}");
    assert_eq!(slow.ledger, plain.ledger);
}

#[test]
fn a_lost_worker_fails_the_step_by_name_or_takes_its_choices_along() {
    let tokens: Vec<u32> = (0..12).map(|token| token % 3).collect();
    let route = route(3, &tokens);
    for exchange in EXCHANGES {
        for how in [Failure::Dies, Failure::Hangs] {
            let mut config = config(3, 3, exchange);
            config.deadline_ns = 50_000_000;
            config.faults = vec![Fault::Lost {
                endpoint: 2,
                at_ns: 0,
                how,
            }];
            let mut sim = Simulator::new(&lab(3, 4), free(), config.clone()).unwrap();
            match sim.step(&route, &admitted(&route)) {
                Err(SimError::Step(StepError::Lost { endpoint, .. })) => assert_eq!(endpoint, 2),
                other => panic!("{exchange}, {how:?}: {other:?}"),
            }
            config.on_loss = OnLoss::Drop;
            let mut sim = Simulator::new(&lab(3, 4), free(), config).unwrap();
            let step = sim.step(&route, &admitted(&route)).unwrap();
            let lost: Vec<usize> = (0..12).filter(|at| step.fates[*at] == Fate::Lost).collect();
            let hosted = |at: &usize| tokens[*at] == 1;
            let homed = |at: &usize| exchange == ExchangeKind::AllToAll && (4..8).contains(at);
            let expected: Vec<usize> = (0..12).filter(|at| hosted(at) || homed(at)).collect();
            assert_eq!(lost, expected, "{exchange}, {how:?}");
            let others: u64 = step.record.choices_per_worker.iter().sum();
            assert_eq!(others as usize, 12 - lost.len());
            if how == Failure::Hangs {
                let late = |(endpoint, cause): &(u32, LossCause)| {
                    *endpoint == 2 && matches!(cause, LossCause::Deadline { .. })
                };
                assert!(step.lost.iter().any(late), "{:?}", step.lost);
                assert!(step.record.step_ns >= 37_500_000);
            }
            // The next step begins without it: its tokens have other homes.
            sim_goes_on(&mut sim, &route, exchange);
        }
    }
}

fn sim_goes_on(sim: &mut Simulator, route: &expertmesh_routing::Route, exchange: ExchangeKind) {
    assert!(sim.standing().down(2).is_some());
    let step = sim.step(route, &admitted(route)).unwrap();
    let lost = step
        .fates
        .iter()
        .filter(|fate| **fate == Fate::Lost)
        .count();
    assert_eq!(lost, 4, "{exchange}: those of its expert alone");
    assert_eq!(step.carried, step.ledger);
    assert_eq!(step.ledger.cell(0, 2).messages, 0);
}

#[test]
fn faults_that_make_no_sense_are_refused() {
    for (fault, field) in [
        (
            Fault::SlowCompute {
                endpoint: 9,
                factor: 2.0,
            },
            "fault endpoint",
        ),
        (
            Fault::SlowLink {
                endpoint: 1,
                factor: 0.5,
            },
            "fault factor",
        ),
        (
            Fault::Lost {
                endpoint: 0,
                at_ns: 0,
                how: Failure::Dies,
            },
            "fault",
        ),
    ] {
        let mut config = config(3, 3, ExchangeKind::Star);
        config.faults = vec![fault];
        match Simulator::new(&lab(3, 4), free(), config) {
            Err(SimError::Field { field: held, .. }) => assert_eq!(held, field),
            other => panic!("{other:?}"),
        }
    }
}

/// The clock of faults runs through all steps; what came true stays so.
#[test]
fn a_fault_comes_when_the_clock_says_and_once() {
    let route = route(3, &[0, 1, 2]);
    let mut config = config(3, 3, ExchangeKind::Star);
    config.on_loss = OnLoss::Drop;
    config.faults = vec![Fault::Lost {
        endpoint: 2,
        at_ns: 500_000_000,
        how: Failure::Dies,
    }];
    let mut sim = Simulator::new(&lab(3, 4), free(), config).unwrap();
    let mut lost = |begins_ns| {
        let run = sim.run(&[StepInput::at(begins_ns, &route, &admitted(&route))]);
        let fates = run.unwrap().steps.remove(0).fates;
        let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
        (lost, sim.standing().happened(0))
    };
    assert_eq!(lost(0), (0, false));
    assert_eq!(lost(400_000_000), (0, false));
    // It failed between two steps.
    assert_eq!(lost(600_000_000), (1, true));
    assert_eq!(lost(700_000_000), (1, true));
}

/// The worker has no part in the step in which it fails; the next one finds it dead.
#[test]
fn a_failure_that_nobody_saw_is_one_all_the_same() {
    for how in [Failure::Dies, Failure::Hangs] {
        let mut config = config(3, 3, ExchangeKind::Star);
        (config.on_loss, config.deadline_ns) = (OnLoss::Drop, 50_000_000);
        config.faults = vec![Fault::Lost {
            endpoint: 2,
            at_ns: 1000,
            how,
        }];
        let mut sim = Simulator::new(&lab(3, 4), free(), config).unwrap();
        let mut lost = |of: &[u32], begins_ns| {
            let route = route(3, of);
            let run = sim.run(&[StepInput::at(begins_ns, &route, &admitted(&route))]);
            let fates = run.unwrap().steps.remove(0).fates;
            fates.iter().filter(|fate| **fate == Fate::Lost).count()
        };
        assert_eq!(lost(&[0, 0, 2], 0), 0, "{how:?}");
        assert_eq!(lost(&[0, 1, 2], 100_000_000), 1, "{how:?}");
        assert_eq!(lost(&[1, 1, 2], 200_000_000), 2, "{how:?}");
    }
}
