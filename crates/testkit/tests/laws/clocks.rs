//! Law 3: one path, several clocks. The same step over real sockets, over emulated links, over the
//! bus and in simulated time has the same route, the same fates and the same ledger.

use std::time::Duration;

use expertmesh_checkpoint::SyntheticSpec;
use expertmesh_coordinator::StepInput;
use expertmesh_exchange::{ExchangeKind, OnLoss, TrafficLedger};
use expertmesh_experts::ExpertKind;
use expertmesh_kernels::Format;
use expertmesh_placement::{Placement, Strategy};
use expertmesh_routing::{
    CapacityConfig, CapacityScope, Fate, Overflow, QueueOrder, Route, WeightRule, admit,
};
use expertmesh_simulator::{Costs, Failure, Fault as SimFault, Layer, SimConfig, Simulator};
use expertmesh_testkit::{
    Bus, BusSetup, Cluster, ClusterSpec, EmulatedNetwork, FakeWorker, Fault, FaultKind, Model,
    Parts, digest, inputs, tensor,
};
use expertmesh_topology::Topology;
use expertmesh_transport::LinkOptions;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::common::{EXCHANGES, soon};

/// Configurations that are drawn.
const CASES: u64 = 50;
/// Of these, over links that are as long as no machine is slow.
const FAR: u64 = 6;
/// Every so many-th has a worker that says nothing.
const SILENT: u64 = 10;
/// Then the step waits so long; what is computed takes a thousandth of it.
const DEADLINE: Duration = Duration::from_millis(800);
const HIDDEN: usize = 16;
/// Six workers on three hosts in two racks: every kind of link, each with a time and jitter that a
/// test can wait for, so that messages arrive in an order of their own.
const LAB: &str = r#"
    [[host]]
    count = 3
    slots = 2
    per_rack = 2
    [tier.host]
    latency = "20 us"
    bandwidth = "8 Gbit/s"
    jitter = "30 us"
    [tier.rack]
    latency = "60 us"
    bandwidth = "1 Gbit/s"
    jitter = "90 us"
    per_message = "2 us"
    [tier.spine]
    latency = "120 us"
    uplink = "500 Mbit/s"
    jitter = "50 us"
    "#;

/// A step and the cluster that it runs on.
#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    workers: usize,
    experts: usize,
    top_k: usize,
    tokens: usize,
    placement: Placement,
    exchange: ExchangeKind,
    capacity: CapacityConfig,
    wire: Format,
    chunk_bytes: usize,
    credits: usize,
    padding: Option<Vec<bool>>,
    /// Endpoint id of a worker that takes everything and says nothing.
    silent: Option<u32>,
}

/// What must be equal whatever the clock is.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    route: Route,
    fates: Vec<Fate>,
    ledger: TrafficLedger,
}

/// Draws from a list.
fn one<T: Copy>(rng: &mut ChaCha8Rng, of: &[T]) -> T {
    of[rng.next_u32() as usize % of.len()]
}

// === impl Case ===

impl Case {
    fn draw(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let rng = &mut rng;
        let workers = one(rng, &[1, 2, 3, 4, 5, 6]);
        let experts = one(rng, &[1, 3, 4, 8, 9, 16]);
        let top_k = one(rng, &[1, 2, 4]).min(experts);
        let tokens = one(rng, &[0, 1, 2, 7, 19, 40]);
        let padded = one(rng, &[true, false, false]);
        let mask: Vec<bool> = (0..tokens)
            .map(|_| one(rng, &[true, false, false]))
            .collect();
        Self {
            seed,
            workers,
            experts,
            top_k,
            tokens,
            placement: placement(rng, experts, workers),
            exchange: one(rng, &EXCHANGES),
            capacity: capacity(rng),
            wire: one(rng, &[Format::F32, Format::Bf16]),
            chunk_bytes: one(rng, &[1, 300, 1000, 1 << 16]),
            credits: one(rng, &[1, 2, 4]),
            padding: padded.then_some(mask),
            silent: (seed % SILENT == SILENT - 1).then(|| 1 + rng.next_u32() % workers as u32),
        }
    }

    fn model(&self) -> Model {
        Model::synthetic(SyntheticSpec {
            hidden: HIDDEN,
            ffn: 8,
            experts: self.experts,
            top_k: self.top_k,
            kind: ExpertKind::Mlp,
            seed: self.seed,
            layer: 0,
            dtype: Format::F32,
        })
    }

    fn x(&self) -> Vec<f32> {
        inputs(self.seed, self.tokens, HIDDEN, Format::F32)
    }

    fn bus(&self) -> Bus {
        let mut setup = BusSetup::new(self.placement.clone(), self.exchange);
        (setup.capacity, setup.wire) = (self.capacity, self.wire);
        (setup.credits, setup.chunk_bytes) = (self.credits, self.chunk_bytes);
        setup.on_loss = OnLoss::Drop;
        Bus::new(Parts::load(self.model().source.as_ref()), setup)
    }

    /// Over memory, in an order drawn from a seed; with it the digest of the outputs.
    fn on_the_bus(&self) -> (Outcome, String) {
        let bus = self.bus();
        let hangs = |endpoint| Fault {
            endpoint,
            after: 0,
            kind: FaultKind::Hangs,
        };
        let faults: Vec<Fault> = self.silent.map(hangs).into_iter().collect();
        let step = bus.step(&self.x(), self.padding.as_deref(), self.seed, &faults);
        let step = step.expect("a step that goes on without the lost");
        if faults.is_empty() {
            assert_eq!(step.carried, step.planned_links());
        }
        let digest = step.digest();
        let outcome = Outcome {
            route: step.route,
            fates: step.admission.fates,
            ledger: step.planned,
        };
        (outcome, digest)
    }

    /// In simulated time, on `topology`.
    fn simulated(&self, topology: &Topology) -> Outcome {
        let bus = self.bus();
        let route = bus.parts.route(&self.x(), self.padding.as_deref());
        let admission = admit(&route, &self.capacity, &bus.admit_context()).unwrap();
        let layer = Layer::of(&bus.parts.spec, self.wire);
        let mut config = SimConfig::new(layer, self.placement.clone(), self.exchange);
        (config.chunk_bytes, config.credits) = (self.chunk_bytes, self.credits);
        config.groups = bus.setup.groups.clone();
        config.on_loss = OnLoss::Drop;
        let hangs = |endpoint| SimFault::Lost {
            endpoint,
            at_ns: 0,
            how: Failure::Hangs,
        };
        config.faults = self.silent.map(hangs).into_iter().collect();
        let mut simulator = Simulator::new(topology, Costs::loopback(), config).unwrap();
        let step = simulator.step(&route, &admission).unwrap();
        if self.silent.is_none() {
            assert_eq!(step.carried, step.ledger);
        }
        Outcome {
            route,
            fates: step.fates,
            ledger: step.ledger,
        }
    }

    /// Over real sockets.
    async fn for_real(&self) -> (Outcome, String) {
        let (outcome, digest, _) = self.over(|_| LinkOptions::default()).await;
        (outcome, digest)
    }

    /// Over real sockets that take the time of `topology`.
    async fn emulated(&self, topology: &Topology) -> (Outcome, String) {
        let network = EmulatedNetwork::new(topology, self.workers);
        let (outcome, digest, took_ns) = self.over(|endpoint| network.options(endpoint)).await;
        // There and back: the links were those of the topology.
        if outcome.ledger.total().messages > 0 {
            let least_ns = 2 * network.least_ns();
            assert!(took_ns >= least_ns, "{took_ns} ns of {least_ns}");
        }
        (outcome, digest)
    }

    /// Over sockets, endpoint by endpoint with these links; with it the step's nanoseconds.
    async fn over(&self, links: impl Fn(u32) -> LinkOptions) -> (Outcome, String, u64) {
        let mut spec = ClusterSpec::new(self.model(), self.workers).exchange(self.exchange);
        spec.placement = Some(self.placement.clone());
        (spec.capacity, spec.wire_dtype) = (self.capacity, self.wire);
        (spec.credits, spec.chunk_bytes) = (self.credits, self.chunk_bytes);
        spec.on_loss = OnLoss::Drop;
        if self.silent.is_some() {
            spec.deadline = DEADLINE;
        }
        let node = |id: u32| match self.silent {
            Some(silent) if silent == id => FakeWorker::swallows().start_on(&links(id)),
            _ => (spec.clone().linked(links(id))).worker(&format!("worker-{}", id - 1)),
        };
        let nodes = (1..=self.workers as u32).map(node).collect();
        let cluster = Cluster::of_nodes(&spec.clone().linked(links(0)), nodes).await;
        let input = StepInput::padded(self.padding.clone());
        let x = tensor(&self.x(), HIDDEN);
        let step = cluster.coordinator().forward_in(x, input).await;
        let step = step.expect("a step that goes on without the lost");
        step.overflow.check_conservation().unwrap();
        let digest = digest(step.output.as_slice().unwrap());
        cluster.stop().await;
        let outcome = Outcome {
            route: step.route,
            fates: step.admission.fates,
            ledger: step.traffic.ledger,
        };
        (outcome, digest, step.record.step_ns)
    }
}

/// By any strategy, and now and then every second expert twice.
fn placement(rng: &mut ChaCha8Rng, experts: usize, workers: usize) -> Placement {
    let strategy = one(rng, &Strategy::ALL);
    let placement = strategy.place(experts, workers, rng.next_u64()).unwrap();
    if workers == 1 || one(rng, &[true, false]) {
        return placement;
    }
    let others = u32::try_from(workers).unwrap();
    let mut table: Vec<Vec<u32>> = placement.entries().map(<[u32]>::to_vec).collect();
    for replicas in table.iter_mut().step_by(2) {
        replicas.push((replicas[0] + 1) % others);
    }
    Placement::from_table(table, workers).unwrap()
}

fn capacity(rng: &mut ChaCha8Rng) -> CapacityConfig {
    let overflow = one(rng, &Overflow::ALL);
    let scope = one(rng, &[CapacityScope::Expert, CapacityScope::Worker]);
    let factor = one(rng, &[0.4, 0.8, 1.2]);
    CapacityConfig {
        factor: (overflow != Overflow::Dropless).then_some(factor),
        overflow,
        min_capacity: one(rng, &[0, 1, 2]),
        order: one(rng, &[QueueOrder::TokenMajor, QueueOrder::ChoiceMajor]),
        // A replica's room is its own already.
        scope: match overflow {
            Overflow::RerouteToReplica => CapacityScope::Expert,
            _ => scope,
        },
        weights: one(rng, &[WeightRule::Keep, WeightRule::Renormalise]),
        ..CapacityConfig::default()
    }
}

#[tokio::test]
async fn fifty_configurations_are_the_same_under_every_clock() {
    let (mut messages, mut lost, mut dropped) = (0, 0, 0);
    let lab = Topology::parse(LAB, "lab.toml").unwrap();
    let loopback = Topology::read("loopback").unwrap();
    // Links of which no machine could be mistaken, for the first few.
    let mut far = lab.clone();
    far.tiers.host.latency_ns = 30_000_000;
    far.tiers.rack.latency_ns = 30_000_000;
    for seed in 0..CASES {
        let case = Case::draw(seed);
        // Side by side: where a worker says nothing, both wait for the same deadline.
        let links = if seed < FAR { &far } else { &lab };
        let both = async { tokio::join!(case.for_real(), case.emulated(links)) };
        let ((real, digest), (emulated, of_emulated)) = soon(both).await;
        let (bus, of_the_bus) = case.on_the_bus();
        assert_eq!(emulated, real, "emulated links, {case:?}");
        assert_eq!(bus, real, "the bus, {case:?}");
        for topology in [&loopback, &lab] {
            let name = &topology.name;
            assert_eq!(case.simulated(topology), real, "simulated {name}, {case:?}");
        }
        assert_eq!(digest, of_the_bus, "outputs, {case:?}");
        assert_eq!(
            of_emulated, of_the_bus,
            "outputs of emulated links, {case:?}"
        );
        let count = |fate: Fate| real.fates.iter().filter(|one| **one == fate).count();
        messages += real.ledger.total().messages;
        lost += count(Fate::Lost);
        dropped += count(Fate::Dropped);
    }
    // The draw covers what it is meant to.
    assert!(
        messages > 500 && lost > 10 && dropped > 100,
        "{messages}, {lost}, {dropped}"
    );
}
