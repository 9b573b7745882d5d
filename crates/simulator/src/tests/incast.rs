//! Several senders, one port.

use expertmesh_exchange::ExchangeKind;
use expertmesh_telemetry::Phase;

use super::{admitted, config, free, lab, route};
use crate::{Fault, Simulator};
use expertmesh_topology::Topology;

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
        .run(&[crate::StepInput::at(0, &route, &admitted(&route))])
        .unwrap();
    let queued: u64 = run.ports.iter().map(|port| port.queued_ns).sum();
    assert!(queued >= (1 + 2 + 3) * bytes, "three wait for those before");
}

/// Eight homes send 16 rows to each other: they take hosts in different orders, so that each port is
/// as busy as its bytes ask for, and nobody waits at one, be they on machines of their own or four on
/// each of two.
#[test]
fn homes_that_send_alike_do_not_meet_at_a_port() {
    let fours = r#"
        [[host]]
        name = "node"
        count = 2
        cores = 4
        slots = 4
        nics = 4
        [tier.host]
        latency = "1000 ns"
        bandwidth = "8 Gbit/s"
        [tier.rack]
        latency = "1000 ns"
        bandwidth = "8 Gbit/s"
        "#;
    let fours = Topology::parse(fours, "fours.toml").unwrap();
    // Peers that are reached through a port: all, or the four of the other machine.
    for (topology, peers) in [(lab(8, 4), 7), (fours, 4)] {
        let mut config = config(8, 8, ExchangeKind::AllToAll);
        config.resident = true;
        let mut sim = Simulator::new(&topology, free(), config).unwrap();
        let of: Vec<u32> = (0..8 * 8 * 16).map(|token| token / 16 % 8).collect();
        let route = route(8, &of);
        let step = sim.step(&route, &admitted(&route)).unwrap();
        // Where every home begins with the first host, it is up to twice as long.
        let busy = 1000 + peers * step.ledger.requested(1, 2);
        let took = step.record.dispatch_ns;
        assert!(
            (busy..busy + busy / 100).contains(&took),
            "{took} of {busy}"
        );
    }
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
        let run = sim.run(&[crate::StepInput::at(0, &route, &admitted(&route))]);
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
