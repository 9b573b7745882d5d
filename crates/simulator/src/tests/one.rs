//! One worker, one message.

use expertmesh_exchange::ExchangeKind;
use expertmesh_telemetry::Phase;
use expertmesh_wire::encoded_len;

use super::{HIDDEN, admitted, config, free, lab, route, table};
use crate::{CombineCost, GateCost, Line, Simulator};

const ROW: u64 = 4 * HIDDEN as u64;

#[test]
fn a_message_takes_latency_and_its_bytes() {
    let mut costs = free();
    costs.experts.tables = vec![table(1, 700.0)];
    let config = config(1, 1, ExchangeKind::Star);
    let mut sim = Simulator::new(&lab(1, 4), costs, config).unwrap();
    let route = route(1, &[0]);
    let step = sim.step(&route, &admitted(&route)).unwrap();
    let there = encoded_len(2, HIDDEN * 4) as u64;
    let back = encoded_len(0, HIDDEN * 4) as u64;
    let record = &step.record;
    assert_eq!(record.step_ns, (1000 + there) + 700 + (1000 + back));
    let phase = |phase: Phase| record.phases_ns[phase.index()];
    assert_eq!(phase(Phase::Send), 1000 + there);
    assert_eq!(phase(Phase::Queue), 0);
    assert_eq!(phase(Phase::Experts), 700);
    assert_eq!(phase(Phase::Return), 1000 + back);
    assert_eq!(record.dispatch_ns, 1000 + there);
    assert_eq!(record.combine_ns, 1000 + back);
    assert_eq!((record.messages, record.payload_bytes), (2, there + back));
    assert_eq!(step.critical_endpoint, 1);
    assert_eq!(step.carried, step.ledger);
}

/// Every cost once: the step is their sum.
#[test]
fn a_step_is_the_sum_of_its_parts() {
    let mut costs = free();
    costs.check = Line::new(10.0, 0.0);
    costs.gate = GateCost {
        fixed_ns: 100.0,
        token_ns: 1.0,
        flop_ns: 0.0,
    };
    costs.plan = Line::new(50.0, 2.0);
    costs.pack = Line::new(20.0, 0.0);
    costs.write = Line::new(30.0, 0.0);
    costs.read = Line::new(40.0, 0.0);
    costs.reply = Line::new(5.0, 0.0);
    costs.combine = CombineCost {
        fixed_ns: 60.0,
        row_ns: 3.0,
        byte_ns: 0.0,
    };
    costs.wake_ns = 7.0;
    costs.experts.tables = vec![table(1, 700.0)];
    let config = config(1, 1, ExchangeKind::Star);
    let mut sim = Simulator::new(&lab(1, 4), costs, config).unwrap();
    let route = route(1, &[0]);
    let step = sim.step(&route, &admitted(&route)).unwrap();
    let there = encoded_len(2, HIDDEN * 4) as u64;
    let back = encoded_len(0, HIDDEN * 4) as u64;
    let record = &step.record;
    let phase = |phase: Phase| record.phases_ns[phase.index()];
    assert_eq!(phase(Phase::Gate), 101);
    assert_eq!(phase(Phase::Plan), 52);
    assert_eq!(phase(Phase::Pack), 20);
    // A sleeper is woken: the coordinator by its first task, the worker by the rows, the
    // coordinator again by the results.
    assert_eq!(phase(Phase::Send), 30 + 1000 + there + 7 + 40);
    assert_eq!(phase(Phase::Experts), 700);
    assert_eq!(phase(Phase::Return), 5 + 30 + 1000 + back + 7 + 40);
    assert_eq!(phase(Phase::Combine), 63);
    let sum: u64 = record.phases_ns.iter().sum();
    assert_eq!(
        record.step_ns,
        7 + 10 + sum,
        "check and first wake-up are residual"
    );
}

#[test]
fn a_home_and_its_own_experts_need_no_network_between_them() {
    let mut costs = free();
    costs.local = Line::new(11.0, 0.0);
    costs.experts.tables = vec![table(1, 700.0)];
    costs.collect = Line::new(0.0, 0.0);
    let config = config(1, 1, ExchangeKind::AllToAll);
    let mut sim = Simulator::new(&lab(1, 4), costs, config).unwrap();
    let route = route(1, &[0]);
    let step = sim.step(&route, &admitted(&route)).unwrap();
    let total = step.ledger.total();
    assert_eq!(
        (total.messages, step.record.messages),
        (2, 2),
        "shard and outputs"
    );
    assert_eq!(step.record.step_ns, 2 * 1000 + total.bytes + 11 + 700);
    assert!(step.carried.local_bytes > 2 * ROW);
    assert_eq!(step.carried, step.ledger);
}
