//! Reports to print: a realistic one, and one at the edge of every field.

// Helpers of tests count as tests, though clippy only knows functions marked `#[test]`; and no test
// needs all of them.
#![allow(clippy::unwrap_used, dead_code)]

use expertmesh_telemetry::{
    Balance, CombineKind, Communication, Environment, ExchangeChoice, ExchangeKind, ExpertOverflow,
    Identity, Latency, LatencyUs, Load, LoadMode, Network, OverflowReport, Phase, Report, Run,
    RunRecorder, Shape, Source, StepRecord,
};
use std::collections::BTreeMap;

pub(crate) const DIGEST: &str = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

pub(crate) fn endpoints(workers: usize) -> Vec<String> {
    let workers = (0..workers).map(|worker| format!("worker-{worker}"));
    std::iter::once("coordinator".to_owned())
        .chain(workers)
        .collect()
}

/// Microseconds of each phase in a typical step, in phase order.
const PHASES_US: [u64; Phase::COUNT] = [310, 42, 96, 410, 35, 1_480, 620, 380, 130];

pub(crate) fn run(exchange: ExchangeKind, workers: usize, steps: u64, slower: u64) -> Run {
    let mut recorder = RunRecorder::new(&endpoints(workers));
    let n = workers as u64 + 1;
    for step in 0..steps {
        // A slow tail: one step in fifty takes half as long again.
        let tail = if step % 50 == 49 { 150 } else { 100 };
        let scaled = |us: u64| us * 10 * slower * tail / 100 + step % 7 * 13;
        let phases_ns = PHASES_US.map(scaled);
        let path: u64 = Phase::ALL
            .iter()
            .filter(|phase| phase.on_critical_path())
            .map(|phase| phases_ns[phase.index()])
            .sum();
        let cell = |from: u64, to: u64| match (from, to, exchange) {
            _ if from == to => 0,
            (0, _, _) | (_, 0, _) => 65_536 + 512 * (from + to),
            (_, _, ExchangeKind::Star) => 0,
            _ => 24_576 + 1_024 * (2 * from + to),
        };
        let matrix: Vec<Vec<u64>> = (0..n)
            .map(|from| (0..n).map(|to| cell(from, to)).collect())
            .collect();
        let record = StepRecord {
            step_ns: path + path / 20,
            exchange_ns: path - phases_ns[0],
            dispatch_ns: phases_ns[2] + phases_ns[3],
            combine_ns: phases_ns[7] + phases_ns[8],
            phases_ns,
            longest_experts_ns: phases_ns[Phase::Experts.index()],
            payload_bytes: matrix.iter().flatten().sum(),
            local_bytes: 98_304,
            saved_by_dedup_bytes: 40_960,
            messages: n * (n - 1),
            matrix,
            choices_per_worker: vec![512 / workers as u64; workers],
            ..StepRecord::default()
        };
        recorder.record(&record).unwrap();
        let expert = |index: u64| {
            let assigned = [97, 40, 66, 58, 71, 64, 64, 52][index as usize];
            let dropped = u64::saturating_sub(assigned, 80);
            ExpertOverflow {
                assigned,
                computed: assigned - dropped,
                dropped,
                assigned_gate_weight: assigned as f64 / 2.0,
                lost_gate_weight: dropped as f64 * 0.375,
                ..ExpertOverflow::default()
            }
        };
        let experts: Vec<_> = (0..8).map(expert).collect();
        recorder
            .overflow(&experts, Some(1.25), Some(1.515_625))
            .unwrap();
    }
    let payload: u64 = recorder
        .finish(
            identity(exchange, workers),
            load(steps),
            Source::Measured,
            None,
        )
        .communication
        .payload_bytes;
    recorder.wire_bytes(payload + payload / 40);
    let digest = Some(DIGEST.to_owned());
    let mut run = recorder.finish(
        identity(exchange, workers),
        load(steps),
        Source::Measured,
        digest,
    );
    run.losses.insert("load_balancing".to_owned(), 1.0234);
    run
}

fn load(steps: u64) -> Load {
    Load::closed(steps, 20, steps as f64 * 3.1e-3)
}

fn identity(exchange: ExchangeKind, workers: usize) -> Identity {
    Identity {
        seed: 42,
        model: "mixtral (layer 3)".to_owned(),
        shape: Some(Shape {
            tokens: 256,
            hidden: 1024,
            ffn: 3584,
            experts: 8,
            top_k: 2,
            expert: "swiglu".to_owned(),
            dtype: "bf16".to_owned(),
            wire_dtype: "bf16".to_owned(),
        }),
        placement_digest: "9b74c9897bac770ffc029102a200c5de0f3c1d6b1a5d6f0c4e8d7a6b5c4d3e2f".into(),
        workload: "zipf 1.1".to_owned(),
        exchange,
        groups: Vec::new(),
        combine: CombineKind::Exact,
        workers: u32::try_from(workers).unwrap(),
        endpoints: Vec::new(),
        numerics: "fma-chain/2".to_owned(),
    }
}

pub(crate) fn report(runs: Vec<Run>) -> Report {
    let environment = Environment {
        version: "0.1.0".to_owned(),
        cores: 8,
        kernel: "avx512f".to_owned(),
        network: Network::Loopback,
        topology: None,
        os: Some("Linux 6.8.0".to_owned()),
        cpu: None,
    };
    Report {
        runs,
        ..Report::new(environment)
    }
}

/// Every number and every name at an edge: `size` of counts, `us` of durations.
pub(crate) fn edge(endpoints: usize, size: u64, us: f64, text: &str) -> Run {
    let latency = Latency {
        count: size,
        min: us,
        mean: us,
        p50: Some(us),
        p90: Some(us),
        p95: Some(us),
        p99: Some(us),
        p999: None,
        max: us,
    };
    let expert = ExpertOverflow {
        assigned: size,
        computed: size,
        rerouted: size,
        dropped: size,
        skipped: 0,
        lost: size,
        assigned_gate_weight: us,
        lost_gate_weight: -us,
        received: 0,
    };
    let per_expert = vec![expert; 300];
    let mut phases: BTreeMap<String, Latency> = Phase::ALL
        .iter()
        .map(|phase| (phase.to_string(), latency))
        .collect();
    phases.insert(text.to_owned(), latency);
    let mut identity = identity(ExchangeKind::AllToAll, 1);
    identity.seed = size;
    identity.workers = u32::MAX;
    identity.model = text.to_owned();
    identity.workload = text.to_owned();
    identity.numerics = text.to_owned();
    identity.placement_digest = text.repeat(2);
    identity.endpoints = vec![text.to_owned(); endpoints];
    identity.shape = Some(Shape {
        tokens: size,
        hidden: size,
        ffn: size,
        experts: size,
        top_k: size,
        expert: text.to_owned(),
        dtype: text.to_owned(),
        wire_dtype: text.to_owned(),
    });
    Run {
        environment: None,
        identity,
        exchange_choice: Some(ExchangeChoice {
            costs: text.to_owned(),
            predicted_us: BTreeMap::from([(text.to_owned(), us)]),
            passed_over: BTreeMap::from([(text.to_owned(), text.to_owned())]),
            verdict: text.to_owned(),
        }),
        load: Load {
            mode: LoadMode::Open,
            offered_per_s: Some(us),
            achieved_per_s: Some(us),
            max_lag_us: Some(us),
            steps: size.min(3),
            warmup_steps: size,
        },
        latency_us: LatencyUs {
            step: latency,
            exchange: latency,
            dispatch: latency,
            combine: latency,
            floor: Some(latency),
            phases,
            residual_share: Some(-us),
            clock_error_us: Some(us),
            distribution: BTreeMap::new(),
        },
        communication: Communication {
            payload_bytes: size,
            wire_bytes: Some(size),
            local_bytes: size,
            resent_bytes: size,
            migrated_bytes: size,
            messages: size,
            saved_by_dedup_bytes: size,
            time_share: Some(us),
            matrix_bytes: vec![vec![size; endpoints]; endpoints],
            algbw_gbps: Some(us),
            busbw_gbps: Some(us),
        },
        overflow: OverflowReport {
            capacity_factor: Some(us),
            ..OverflowReport::of(per_expert, None, Some(us))
        },
        balance: Balance {
            gini: us,
            max_over_mean: us,
            entropy: us,
            idle_experts: size,
            idle_workers: Some(size),
        },
        losses: BTreeMap::from([(text.to_owned(), us)]),
        source: BTreeMap::from([
            (text.to_owned(), Source::Extrapolated),
            ("latency_us.step".to_owned(), Source::Calibrated),
        ]),
        bands: (0..20)
            .map(|index| (format!("{index}{text}"), [-us, us]))
            .collect(),
        digest: Some(text.to_owned()),
    }
}
