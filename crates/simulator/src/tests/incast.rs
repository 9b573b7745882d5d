//! Several senders, one port.

use expertmesh_exchange::ExchangeKind;
use expertmesh_telemetry::Phase;

use super::{admitted, config, free, lab, route};
use crate::{Fault, Simulator};

/// Four homes send 64 rows each to the expert of a fifth: its port takes them one after another.
#[test]
fn four_senders_share_the_receivers_port() {
    let mut config = config(5, 5, ExchangeKind::AllToAll);
    config.resident = true;
    let mut sim = Simulator::new(&lab(5, 4), free(), config).unwrap();
    // Homes have 64 tokens each, in order; the fifth's own stay at home.
    let route = route(5, &[4; 5 * 64]);
    let step = sim.step(&route, &admitted(&route)).unwrap();
    let bytes = step.ledger.cell(1, 5).bytes;
    let record = &step.record;
    assert_eq!(record.dispatch_ns, 1000 + 4 * bytes);
    // Nobody sent shards, and nobody counts them.
    assert_eq!(record.payload_bytes, step.carried.total().bytes);
    assert!(record.payload_bytes < step.ledger.total().bytes);
    // Results leave through the same port's other direction, one after another too; the last home
    // has its own when the first three are through.
    let back = step.ledger.cell(5, 1).bytes;
    assert!(record.phases_ns[Phase::Return.index()] >= 1000 + back);
    let run = sim
        .run(&[crate::StepInput {
            route: &route,
            admission: &admitted(&route),
            begins_ns: 0,
        }])
        .unwrap();
    let queued: u64 = run.ports.iter().map(|port| port.queued_ns).sum();
    assert!(queued >= (1 + 2 + 3) * bytes, "three wait for those before");
}

#[test]
fn a_slow_link_takes_its_factor() {
    let mut with = config(1, 1, ExchangeKind::Star);
    let route = route(1, &[0]);
    let plain = Simulator::new(&lab(1, 4), free(), with.clone())
        .unwrap()
        .step(&route, &admitted(&route))
        .unwrap();
    with.faults = vec![Fault::SlowLink {
        endpoint: 1,
        factor: 3.0,
    }];
    let slow = Simulator::new(&lab(1, 4), free(), with)
        .unwrap()
        .step(&route, &admitted(&route))
        .unwrap();
    let bytes = plain.ledger.total().bytes;
    assert_eq!(slow.record.step_ns, plain.record.step_ns + 2 * bytes);
}

/// Worker 3 is slow: what 2 sends to both reaches 1 as soon as it would without.
#[test]
fn a_slow_link_holds_up_nobody_elses_port() {
    let mut with = config(3, 3, ExchangeKind::AllToAll);
    with.resident = true;
    // All tokens are at home with the first two; the first's go to the slow third.
    let route = route(
        3,
        &[2; 64].iter().chain(&[0; 64]).copied().collect::<Vec<_>>(),
    );
    let arrivals = |config| {
        let mut sim = Simulator::new(&lab(3, 4), free(), config).unwrap();
        let run = sim.run(&[crate::StepInput {
            route: &route,
            admission: &admitted(&route),
            begins_ns: 0,
        }]);
        run.unwrap().ports
    };
    let plain = arrivals(with.clone());
    with.faults = vec![Fault::SlowLink {
        endpoint: 3,
        factor: 50.0,
    }];
    let slow = arrivals(with);
    let busier: Vec<usize> = (0..plain.len())
        .filter(|at| slow[*at].busy_ns > plain[*at].busy_ns)
        .collect();
    assert_eq!(busier.len(), 2, "its own port, in and out: {busier:?}");
}
