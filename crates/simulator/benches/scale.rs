//! Layer-steps a second of large clusters, on one core: each layer is scored, routed, admitted,
//! planned and simulated message by message. Times are CPU times of the one thread: the rate is that
//! of the quickest layer, beside the median.
//!
//! `EXPERTMESH_BENCH_GATE=1` makes a missed bar exit code 3. `scale 4096` runs the largest cluster
//! alone; its memory has a bar, its speed has none.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints what it measured and fails by panicking"
)]

use std::process::ExitCode;

use expertmesh_exchange::ExchangeKind;
use expertmesh_experts::{Activation, ExpertKind, ExpertSpec};
use expertmesh_kernels::{Format, PackedMatrix};
use expertmesh_placement::Placement;
use expertmesh_routing::{
    AdmitContext, CapacityConfig, Gate, GateContext, GroupScore, Groups, Logits, Norm, Overflow,
    RouterConfig, Score, Select, admit,
};
use expertmesh_simulator::{Costs, Layer, SimConfig, Simulator};
use expertmesh_topology::Topology;

const EXPERTS: usize = 256;
const TOP_K: usize = 8;
const TOKENS: usize = 128;
const HIDDEN: usize = 7168;

/// Layer-steps a second of 256 workers.
const LEAST_RATE: f64 = 10.0;
/// Resident memory, GiB, by workers.
const MOST_GIB: [(usize, f64); 2] = [(256, 1.0), (4096, 8.0)];

/// A layer of DeepSeek-V3's shape on so many workers.
struct Run {
    gate: Gate,
    sim: Simulator,
    logits: Vec<f32>,
    /// Numbers that logits are made of.
    pool: Vec<f32>,
    workers: usize,
}

fn main() -> ExitCode {
    // As divan does: what is named on the command line, or all that is quick.
    let named = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let sizes: Vec<(usize, usize)> = match named {
        Some(workers) => vec![(workers, 3)],
        None => vec![(16, 50), (64, 30), (256, 20)],
    };
    println!(
        "{:>8} {:>8} {:>10} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10}",
        "workers",
        "layers",
        "a second",
        "median",
        "events/layer",
        "route ms",
        "sim ms",
        "step us",
        "peak GiB"
    );
    let mut met = true;
    for (workers, layers) in sizes {
        let rate = Run::new(workers).measure(layers);
        let gib = peak_gib();
        println!(" {gib:>10.2}");
        met &= workers != 256 || rate >= LEAST_RATE;
        let bar = MOST_GIB.iter().find(|(of, _)| *of == workers);
        met &= bar.is_none_or(|(_, most)| gib <= *most);
    }
    let gated = std::env::var_os("EXPERTMESH_BENCH_GATE").is_some_and(|gate| gate == "1");
    if met {
        return ExitCode::SUCCESS;
    }
    println!(
        "\nbelow {LEAST_RATE} layer-steps a second at 256 workers, or above the memory of {MOST_GIB:?}"
    );
    ExitCode::from(if gated { 3 } else { 0 })
}

// === impl Run ===

impl Run {
    fn new(workers: usize) -> Self {
        let spec = ExpertSpec {
            hidden: HIDDEN,
            ffn: 2048,
            kind: ExpertKind::Swiglu,
            activation: Activation::Silu,
            dtype: Format::Bf16,
        };
        let layer = Layer::new(HIDDEN, EXPERTS, TOP_K, spec);
        // Beyond one expert a worker, experts have replicas, of which the first computes.
        let table = (0..EXPERTS).map(|expert| {
            let first = u32::try_from(expert * workers / EXPERTS).unwrap();
            let all = u32::try_from(workers.div_ceil(EXPERTS)).unwrap();
            (0..all).map(|replica| first + replica).collect()
        });
        let placement = match workers <= EXPERTS {
            true => Placement::contiguous(EXPERTS, workers).unwrap(),
            false => Placement::from_table(table.collect(), workers).unwrap(),
        };
        let config = SimConfig::new(layer, placement, ExchangeKind::AllToAll);
        let topology = Topology::read("h100").unwrap();
        let costs = Costs::preset("h100").unwrap();
        Self {
            gate: gate(),
            sim: Simulator::new(&topology, costs, config).unwrap(),
            logits: vec![0.0; workers * TOKENS * EXPERTS],
            pool: (0..1 << 18).map(drawn).collect(),
            workers,
        }
    }

    /// Prints a line without its end; layer-steps a second, the first left out.
    fn measure(mut self, layers: usize) -> f64 {
        let capacity = CapacityConfig {
            factor: Some(2.0),
            overflow: Overflow::DropPosition,
            ..CapacityConfig::default()
        };
        let (mut routed, mut simulated) = (Vec::new(), Vec::new());
        let (mut events, mut step_ns) = (0, 0);
        for layer in 0..=layers {
            let begun = cpu_ns();
            score(&self.pool, &mut self.logits, layer as u64);
            let context = GateContext::default();
            let choices = self.gate.choose(&self.logits, &context).unwrap();
            let logits = std::mem::take(&mut self.logits);
            let mut route = self.gate.join(logits, vec![choices], None).unwrap();
            let admission = admit(&route, &capacity, &AdmitContext::default()).unwrap();
            let ready = cpu_ns();
            let input = expertmesh_simulator::StepInput::at(0, &route, &admission);
            let run = self.sim.run(&[input]).unwrap();
            assert_eq!(run.steps[0].carried, run.steps[0].ledger);
            self.logits = std::mem::take(&mut route.logits);
            if layer > 0 {
                routed.push(ready - begun);
                simulated.push(cpu_ns() - ready);
                events += run.events;
                step_ns += run.steps[0].record.step_ns;
            }
        }
        let both = routed
            .iter()
            .zip(&simulated)
            .map(|(one, other)| one + other);
        let [least, median] = of_layers(both.collect());
        let [_, routed] = of_layers(routed);
        let [_, simulated] = of_layers(simulated);
        let rate = 1e3 / least;
        print!(
            "{:>8} {layers:>8} {rate:>10.2} {:>10.2} {:>12} {:>10.2} {:>10.2} {:>10.1}",
            self.workers,
            1e3 / median,
            events / layers as u64,
            routed,
            simulated,
            step_ns as f64 / layers as f64 / 1e3,
        );
        rate
    }
}

/// The least and the median.
fn of_layers(mut ns: Vec<u64>) -> [f64; 2] {
    ns.sort_unstable();
    [ns[0], ns[ns.len() / 2]].map(|ns| ns as f64 / 1e6)
}

/// Sigmoid, score plus bias, 4 of 8 groups by the sum of two, weights divided by their sum.
fn gate() -> Gate {
    let config = RouterConfig {
        logits: Logits::F32,
        score: Score::Sigmoid { f32: true },
        select: Select::ScorePlusBias,
        groups: Some(Groups {
            n: 8,
            keep: 4,
            by: GroupScore::Sum2,
            fill: f32::NEG_INFINITY,
            weights_from_masked: false,
        }),
        norm: Norm::Sum { eps: 1e-20 },
        scale: 2.5,
        ..RouterConfig::mixtral(EXPERTS, TOP_K, Format::F32)
    };
    // Logits are drawn, so the product is as small as can be.
    let weight = PackedMatrix::from_f32(&[0.0; EXPERTS], EXPERTS, 1).unwrap();
    Gate::new(config, weight, None, Some(vec![0.0; EXPERTS])).unwrap()
}

/// Logits of a layer: each token's are a window, at a drawn place, of numbers that were drawn once,
/// and experts that are liked more than others.
fn score(pool: &[f32], logits: &mut [f32], layer: u64) {
    let liked: Vec<f32> = (0..EXPERTS as u64)
        .map(|at| 0.1 * drawn(!at ^ layer << 32))
        .collect();
    for (token, row) in (0u64..).zip(logits.chunks_exact_mut(EXPERTS)) {
        let place = mixed(token ^ layer << 32) as usize % (pool.len() - EXPERTS);
        let window = &pool[place..place + EXPERTS];
        for ((logit, drawn), liked) in row.iter_mut().zip(window).zip(&liked) {
            *logit = drawn + liked;
        }
    }
}

/// Nearly normal: the sum of four uniform numbers of 16 bits, scaled to a variance of 1.
fn drawn(at: u64) -> f32 {
    let bits = mixed(at);
    let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
    (sum as f32 / 65_536.0 - 2.0) * 3.0_f32.sqrt()
}

/// SplitMix64's output function.
fn mixed(at: u64) -> u64 {
    let mut bits = at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// Time that this thread has had a core, nanoseconds: other processes of the machine take none of
/// it.
fn cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap()
}

/// The most memory that this process had resident, GiB.
fn peak_gib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / (1 << 20) as f64
}
