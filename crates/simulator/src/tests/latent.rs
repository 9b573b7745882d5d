//! Experts on latent rows: projections and shared expert at the coordinator.

use expertmesh_exchange::ExchangeKind;
use expertmesh_experts::{Activation, ExpertKind, ExpertSpec};
use expertmesh_kernels::Format;
use expertmesh_telemetry::Phase;

use super::{HIDDEN, admitted, config, free, lab, route, table};
use crate::{Costs, ExpertTable, GateCost, NetworkShape, SimConfig, SimStep, Simulator};

const LATENT: usize = 256;
/// One projection of one token, at a nanosecond an operation.
const PROJECTED: u64 = 2 * (HIDDEN * LATENT) as u64;
const EXPERT: u64 = 700;

fn latent(exchange: ExchangeKind) -> SimConfig {
    let mut config = config(1, 1, exchange);
    let shape = |hidden| ExpertSpec {
        hidden,
        ffn: 8,
        kind: ExpertKind::Mlp,
        activation: Activation::Relu,
        dtype: Format::F32,
    };
    config.layer.latent = Some(LATENT);
    config.layer.expert = NetworkShape::of(&shape(LATENT));
    config.layer.shared = Some(NetworkShape::of(&shape(HIDDEN)));
    config
}

/// One token, whose shared expert takes so long.
fn step(config: SimConfig, shared_ns: f64) -> SimStep {
    let mut costs: Costs = free();
    costs.gate = GateCost {
        flop_ns: 1.0,
        ..GateCost::default()
    };
    let expert = ExpertTable {
        hidden: LATENT,
        weight_bytes: (2 * 4 * LATENT * 8) as u64,
        ..table(1, EXPERT as f64)
    };
    costs.experts.tables = vec![table(1, shared_ns), expert];
    let mut sim = Simulator::new(&lab(1, 4), costs, config).unwrap();
    let route = route(1, &[0]);
    sim.step(&route, &admitted(&route)).unwrap()
}

#[test]
fn the_coordinator_projects_and_latent_rows_travel() {
    let scored = 2 * HIDDEN as u64;
    for exchange in ExchangeKind::ALL {
        let step = step(latent(exchange), 100.0);
        let record = &step.record;
        let phase = |phase: Phase| record.phases_ns[phase.index()];
        assert_eq!(phase(Phase::Gate), scored + PROJECTED, "{exchange}");
        assert_eq!(phase(Phase::Combine), PROJECTED, "{exchange}");
        assert_eq!(phase(Phase::Shared), 100, "{exchange}");
        assert_eq!(phase(Phase::Experts), EXPERT, "{exchange}");
        assert_eq!(step.carried, step.ledger, "{exchange}");
        let total = step.ledger.total();
        assert_eq!(total.messages, 2);
        let rows = 2 * 4 * LATENT as u64;
        assert!((rows..rows + 700).contains(&total.bytes), "{}", total.bytes);
        let network = 2 * 1000 + total.bytes;
        let expected = scored + 2 * PROJECTED + network + EXPERT;
        assert_eq!(record.step_ns, expected, "{exchange}");
    }
}

/// What came back waits for it.
#[test]
fn a_slow_shared_expert_holds_the_outputs_up() {
    const SHARED: u64 = 5_000_000;
    for exchange in ExchangeKind::ALL {
        let step = step(latent(exchange), SHARED as f64);
        let record = &step.record;
        let gate = record.phases_ns[Phase::Gate.index()];
        assert_eq!(record.phases_ns[Phase::Shared.index()], SHARED);
        assert_eq!(record.step_ns, gate + SHARED + PROJECTED, "{exchange}");
    }
}

/// Homes that hold their tokens have the hidden states.
#[test]
fn homes_that_hold_their_tokens_do_both_themselves() {
    let mut config = latent(ExchangeKind::AllToAll);
    config.resident = true;
    let step = step(config, 100.0);
    let record = &step.record;
    assert_eq!(record.phases_ns[Phase::Combine.index()], PROJECTED);
    assert_eq!(record.phases_ns[Phase::Shared.index()], 100);
}

#[test]
fn free_experts_are_refused() {
    let mut config = latent(ExchangeKind::Star);
    config.layer.free_experts = 2;
    let refused = Simulator::new(&lab(1, 4), free(), config);
    let error = refused.map(drop).unwrap_err().to_string();
    assert!(error.contains("free experts"), "{error}");
    assert!(error.contains("latent size of 256"), "{error}");
}
