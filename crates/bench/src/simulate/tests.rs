//! Simulations of small clusters, held against what must be true of them whatever work costs.

mod answers;
mod errors;
mod scores;

use expertmesh_checkpoint::SyntheticSpec;
use expertmesh_coordinator::CoordinatorConfig;
use expertmesh_exchange::ExchangeKind;
use expertmesh_experts::ExpertKind;
use expertmesh_kernels::Format;
use expertmesh_simulator::{Costs, Layer, SimConfig};
use expertmesh_testkit::{ClusterSpec, Model};
use expertmesh_topology::Topology;

use super::*;
use crate::workload::{Pattern, WorkloadShape};

const WORKERS: usize = 4;
const SHAPE: WorkloadShape = WorkloadShape {
    tokens: 64,
    hidden: 64,
    experts: 8,
    top_k: 2,
};
const KINDS: [ExchangeKind; 2] = [ExchangeKind::Star, ExchangeKind::AllToAll];

/// Hosts of two cores with a worker each and 1 byte a nanosecond; the coordinator has its own.
fn lab() -> Topology {
    let text = r#"
        coordinator = "front"
        [[host]]
        name = "node"
        count = 4
        cores = 2
        slots = 1
        [[host]]
        name = "front"
        cores = 4
        [tier.rack]
        latency = "10 us"
        bandwidth = "8 Gbit/s"
        "#;
    Topology::parse(text, "lab.toml").unwrap()
}

/// Moments do not matter, only what lies between them; and nobody pays for being woken.
fn costs() -> Costs {
    Costs {
        timer_ns: 0.0,
        pool_ns: 0.0,
        ..Costs::loopback()
    }
}

fn config(shape: WorkloadShape, exchange: ExchangeKind) -> CoordinatorConfig {
    let model = Model::synthetic(SyntheticSpec {
        hidden: shape.hidden,
        // Experts that outweigh what else a step takes.
        ffn: 2048,
        experts: shape.experts,
        top_k: shape.top_k,
        kind: ExpertKind::Swiglu,
        seed: 0,
        layer: 0,
        dtype: Format::F32,
    });
    let workers = vec!["simulated".to_owned(); WORKERS];
    ClusterSpec::new(model, WORKERS)
        .exchange(exchange)
        .config(workers)
}

/// Equal layers with something behind each.
struct Stack {
    config: CoordinatorConfig,
    depth: usize,
    between_ns: u64,
}

fn one(config: CoordinatorConfig) -> Stack {
    Stack {
        config,
        depth: 1,
        between_ns: 0,
    }
}

fn simulator_on(
    topology: &Topology,
    config: &CoordinatorConfig,
    change: impl Fn(&mut SimConfig),
) -> Simulator {
    let layer = Layer::of(config.source.spec(), config.wire_dtype);
    let mut sim = SimConfig::new(layer, config.placement.clone(), config.exchange);
    sim.log = true;
    change(&mut sim);
    Simulator::new(topology, costs(), sim).unwrap()
}

fn drawn(pattern: &str, seed: u64) -> SimLoad {
    let pattern: Pattern = pattern.parse().unwrap();
    SimLoad::Scores(ScoredWorkload::new(pattern, SHAPE, None, seed).unwrap())
}

fn simulation(stack: Stack, load: SimLoad) -> Simulation {
    let simulator = simulator_on(&lab(), &stack.config, |_| ());
    let layer = || Rehearsal::new(stack.config.clone()).unwrap();
    Simulation {
        layers: std::iter::repeat_with(layer).take(stack.depth).collect(),
        simulator,
        between_ns: stack.between_ns,
        load,
        overlap: 1,
        lane_steps: 0,
        source: Source::Preset,
    }
}

/// `depth` equal layers, `between_ns` behind each.
fn stack(exchange: ExchangeKind, depth: usize, between_ns: u64) -> Stack {
    Stack {
        config: config(SHAPE, exchange),
        depth,
        between_ns,
    }
}

fn run(simulation: &mut Simulation, steps: u64) -> Simulated {
    simulation.run(steps, 0, ("made up", None), || ()).unwrap()
}

/// Seconds from the first step's begin to the last one's end.
fn took_s(simulated: &Simulated) -> f64 {
    simulated.run.load.steps as f64 / simulated.run.load.achieved_per_s.unwrap()
}

/// Equal but for the last digits of a sum.
fn close(one: f64, other: f64) -> bool {
    (one / other - 1.0).abs() < 1e-9
}

/// Equal as far as a histogram tells: three digits.
fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 2e-3 * other
}

/// Of every expert, what became of its choices; those of padding are nobody's.
fn choices_of(simulated: &Simulated) -> Vec<[u64; 3]> {
    let experts = simulated.run.overflow.per_expert.iter();
    experts
        .map(|one| [one.assigned - one.skipped, one.computed, one.dropped])
        .collect()
}

#[test]
fn layers_add_up_with_what_lies_behind_each() {
    const BETWEEN_NS: u64 = 70_000;
    for exchange in KINDS {
        // Three layers draw what six steps of one layer draw.
        let mut deep = simulation(stack(exchange, 3, BETWEEN_NS), drawn("zipf:1", 1));
        let mut flat = simulation(stack(exchange, 1, 0), drawn("zipf:1", 1));
        let (deep, flat) = (run(&mut deep, 2), run(&mut flat, 6));
        // Six layers in a row either way, to the nanosecond.
        let between_s = 6.0 * BETWEEN_NS as f64 / 1e9;
        let (took, sum) = (took_s(&deep), took_s(&flat) + between_s);
        assert!(close(took, sum), "{exchange}: {took} s, {sum} s");
        let (one, other) = (&deep.run.latency_us, &flat.run.latency_us);
        let sum = 3.0 * (other.step.mean + BETWEEN_NS as f64 / 1e3);
        assert!(near(one.step.mean, sum), "{} µs, {sum}", one.step.mean);
        assert!(near(one.exchange.mean, 3.0 * other.exchange.mean));
        for (name, phase) in &one.phases {
            let sum = 3.0 * other.phases[name].mean;
            assert!(near(phase.mean, sum), "{name}: {phase:?}, {sum}");
        }
        let (one, other) = (&deep.run, &flat.run);
        assert_eq!(
            one.communication.matrix_bytes,
            other.communication.matrix_bytes
        );
        assert_eq!(choices_of(&deep), choices_of(&flat));
        assert_eq!((one.load.steps, other.load.steps), (2, 6));
        let apart = |one: &EndpointUse| EndpointUse {
            compute_ns: one.compute_ns - one.behind_ns,
            behind_ns: 0,
            ..*one
        };
        assert!(deep.endpoints.iter().map(apart).eq(flat.endpoints));
        assert_eq!(deep.endpoints[1].behind_ns, 6 * BETWEEN_NS);
    }
}

#[test]
fn two_batches_under_way_are_done_sooner_than_one_after_the_other_and_send_the_same() {
    for exchange in KINDS {
        let of = |overlap| {
            let mut simulation = simulation(stack(exchange, 2, 0), drawn("balanced", 1));
            simulation.overlap = overlap;
            run(&mut simulation, 4)
        };
        let (apart, together) = (of(1), of(2));
        let (sum, less) = (took_s(&apart), took_s(&together));
        assert!(less < 0.95 * sum, "{exchange}: {less} s, apart {sum} s");
        // They share ports and cores, so none of them is faster for it.
        let step = |simulated: &Simulated| simulated.run.latency_us.step.mean;
        assert!(step(&together) > step(&apart), "{exchange}");
        let (one, other) = (&apart.run, &together.run);
        assert_eq!(
            one.communication.matrix_bytes,
            other.communication.matrix_bytes
        );
        assert_eq!(one.communication.messages, other.communication.messages);
        assert_eq!(one.overflow.per_expert, other.overflow.per_expert);
        assert_eq!((one.load.steps, other.load.steps), (4, 4));
        // A last batch alone is no batch less.
        let mut odd = simulation(stack(exchange, 2, 0), drawn("balanced", 1));
        odd.overlap = 3;
        let odd = run(&mut odd, 4).run;
        assert_eq!(
            odd.communication.matrix_bytes,
            one.communication.matrix_bytes
        );
    }
}

/// Layers of one batch run beside what lies behind those of another, and the device does both.
#[test]
fn no_device_is_busier_than_time() {
    const BETWEEN_NS: u64 = 2_000_000;
    for exchange in KINDS {
        for threads in [1, 2] {
            let stack = || stack(exchange, 5, BETWEEN_NS);
            let of = |overlap| {
                let mut simulation = simulation(stack(), drawn("balanced", 1));
                let on_threads = |sim: &mut SimConfig| sim.threads = threads;
                simulation.simulator = simulator_on(&lab(), &stack().config, on_threads);
                simulation.overlap = overlap;
                run(&mut simulation, 4)
            };
            let (apart, together) = (of(1), of(2));
            assert!(took_s(&together) < took_s(&apart), "{exchange}");
            assert!(together.between_ns > apart.between_ns, "they wait");
            let behind_ns = 4 * 5 * BETWEEN_NS;
            assert_eq!(apart.between_ns, behind_ns);
            for simulated in [apart, together] {
                assert!(simulated.elapsed_ns > behind_ns, "{exchange}, {threads}");
                for worker in &simulated.endpoints[1..] {
                    assert_eq!(worker.behind_ns, threads as u64 * behind_ns);
                    assert!(worker.compute_ns > worker.behind_ns, "{exchange}");
                }
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_log_and_another_seed_another() {
    for exchange in KINDS {
        let of = |seed| {
            run(
                &mut simulation(stack(exchange, 2, 500), drawn("zipf:1", seed)),
                3,
            )
        };
        let (one, again, other) = (of(1), of(1), of(2));
        assert_eq!(one.log_digest, again.log_digest);
        assert_eq!(one.log, again.log);
        assert!(one.log.as_ref().is_some_and(|log| log.lines().count() > 50));
        assert_eq!(one.run.latency_us, again.run.latency_us);
        assert_ne!(one.log_digest, other.log_digest);
        assert_ne!(one.log, other.log);
    }
}
