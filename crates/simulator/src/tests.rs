//! By hand: what small clusters must take, to the nanosecond.

mod chain;
mod cores;
mod costs;
mod faults;
mod incast;
mod latent;
mod noise;
mod one;
mod same;

use std::collections::BTreeMap;

use expertmesh_exchange::ExchangeKind;
use expertmesh_experts::{Activation, ExpertKind, ExpertSpec};
use expertmesh_kernels::Format;
use expertmesh_placement::Placement;
use expertmesh_routing::{Admission, AdmitContext, CapacityConfig, Route, admit};
use expertmesh_telemetry::Source;
use expertmesh_topology::Topology;

use crate::{CombineCost, Costs, ExpertCosts, ExpertTable, GateCost, Layer, Line, SimConfig};

/// Elements of a row: 4,096 bytes of f32.
const HIDDEN: usize = 1024;

/// Hosts of so many cores with a worker each, 1 byte per nanosecond and a latency of 1000 ns; the
/// coordinator has a host to itself.
fn lab(workers: usize, cores: usize) -> Topology {
    let text = format!(
        r#"
        coordinator = "front"
        [[host]]
        name = "node"
        count = {workers}
        cores = {cores}
        slots = 1
        [[host]]
        name = "front"
        cores = 4
        [tier.rack]
        latency = "1000 ns"
        bandwidth = "8 Gbit/s"
        "#
    );
    Topology::parse(&text, "lab.toml").expect("a topology")
}

/// Nothing takes time but the network.
fn free() -> Costs {
    Costs {
        name: "free".into(),
        origin: "made up".into(),
        source: Source::Preset,
        on_cores: true,
        wake_ns: 0.0,
        pool_ns: 0.0,
        slice_ns: 1_000_000.0,
        timer_ns: 0.0,
        check: Line::default(),
        gate: GateCost::default(),
        plan: Line::default(),
        shard_plan: Line::default(),
        pack: Line::default(),
        write: Line::default(),
        read: Line::default(),
        local: Line::default(),
        reply: Line::default(),
        combine: CombineCost::default(),
        collect: Line::default(),
        experts: ExpertCosts {
            bandwidth_share: 1.0,
            batch_ns: 0.0,
            byte_ns: 0.0,
            tables: vec![table(1, 1.0)],
        },
        sources: BTreeMap::new(),
    }
}

/// An expert of [`layer`] takes `ns` for `rows` rows, and in proportion.
fn table(rows: u32, ns: f64) -> ExpertTable {
    ExpertTable {
        hidden: HIDDEN,
        ffn: 8,
        matrices: 2,
        weight_bytes: (2 * 4 * HIDDEN * 8) as u64,
        points: vec![(rows, ns)],
        beside: Vec::new(),
    }
}

/// Experts are small: no chunk waits for its cohort.
fn layer(experts: usize, top_k: usize) -> Layer {
    let expert = ExpertSpec {
        hidden: HIDDEN,
        ffn: 8,
        kind: ExpertKind::Mlp,
        activation: Activation::Relu,
        dtype: Format::F32,
    };
    Layer::new(HIDDEN, experts, top_k, expert)
}

fn config(experts: usize, workers: usize, exchange: ExchangeKind) -> SimConfig {
    let placement = Placement::contiguous(experts, workers).unwrap();
    SimConfig::new(layer(experts, 1), placement, exchange)
}

/// One choice a token.
fn route(experts: usize, of: &[u32]) -> Route {
    Route {
        tokens: of.len(),
        top_k: 1,
        offsets: None,
        experts_total: experts,
        logits: Vec::new(),
        experts: of.to_vec(),
        weights: vec![1.0; of.len()],
        padding: None,
    }
}

fn admitted(route: &Route) -> Admission {
    admit(route, &CapacityConfig::default(), &AdmitContext::default()).unwrap()
}
