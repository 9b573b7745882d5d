//! Four worker processes, and a coordinator in this one.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use expertmesh_bench::workload::{Pattern, Workload, WorkloadShape};
use expertmesh_checkpoint::{SyntheticLayer, SyntheticSpec};
use expertmesh_coordinator::{Coordinator, CoordinatorConfig, Defaults};
use expertmesh_exchange::{COORDINATOR, ExchangeKind, OnLoss, TrafficLedger};
use expertmesh_experts::{ExpertKind, synthetic_gate};
use expertmesh_kernels::Format;
use expertmesh_placement::Placement;
use expertmesh_routing::CapacityConfig;
use expertmesh_transport::LinkOptions;
use expertmesh_wire::{format_to_wire, v1};
use ndarray::ArcArray2;

pub(crate) const WORKERS: usize = 4;
const HIDDEN: usize = 1024;
const EXPERTS: usize = 8;
const TOP_K: usize = 2;

pub(crate) struct Cluster {
    pub(crate) coordinator: Coordinator,
    _workers: Vec<Guard>,
}

/// A child that is killed on drop.
pub(crate) struct Guard(pub(crate) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `command` and reads the first line it prints.
pub(crate) fn spawn(command: &mut Command) -> (Guard, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (Guard(child), line.trim().to_owned())
}

/// (request, reply) bytes for each worker.
pub(crate) fn sizes(ledger: &TrafficLedger) -> Vec<(usize, usize)> {
    (1..=WORKERS as u32)
        .map(|worker| {
            let out = ledger.requested(COORDINATOR, worker) as usize;
            (out, ledger.answered(worker, COORDINATOR) as usize)
        })
        .collect()
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let mut workers = Vec::new();
        let mut addresses = Vec::new();
        for _ in 0..WORKERS {
            let mut command = Command::new(env!("CARGO_BIN_EXE_expertmesh"));
            let (guard, line) = spawn(command.args(["worker", "--threads", "1"]));
            let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
            addresses.push(ready["address"].as_str().unwrap().to_owned());
            workers.push(guard);
        }
        let spec = SyntheticSpec {
            hidden: HIDDEN,
            ffn: HIDDEN,
            experts: EXPERTS,
            top_k: TOP_K,
            kind: ExpertKind::Identity,
            seed: 0,
            layer: 0,
            dtype: Format::F32,
        };
        let synthetic = v1::SyntheticModel {
            hidden: HIDDEN as u32,
            ffn: HIDDEN as u32,
            experts: EXPERTS as u32,
            top_k: TOP_K as u32,
            expert: "identity".to_owned(),
            seed: 0,
            free: Vec::new(),
            layer: 0,
        };
        let config = CoordinatorConfig {
            name: "coordinator".to_owned(),
            workers: addresses,
            source: Arc::new(SyntheticLayer::new(spec).unwrap()),
            model: v1::ModelSource {
                source: Some(v1::model_source::Source::Synthetic(synthetic)),
                dtype: format_to_wire(Format::F32).into(),
            },
            placement: Placement::contiguous(EXPERTS, WORKERS).unwrap(),
            exchange: ExchangeKind::Star,
            groups: Vec::new(),
            wire_dtype: Format::F32,
            capacity: CapacityConfig::default(),
            seed: 0,
            bias_update: None,
            training: false,
            depth: None,
            force: None,
            on_loss: OnLoss::Fail,
            deadline: Defaults::DEADLINE,
            chunk_bytes: Defaults::CHUNK_BYTES,
            credits: Defaults::CREDITS,
            threads: 1,
            options: LinkOptions::default(),
        };
        let coordinator = Coordinator::connect(config).await.unwrap();
        Self {
            coordinator,
            _workers: workers,
        }
    }

    /// The traffic of a balanced step of `tokens` tokens.
    pub(crate) async fn ledger(&self, tokens: usize) -> TrafficLedger {
        let shape = WorkloadShape {
            tokens,
            hidden: HIDDEN,
            experts: EXPERTS,
            top_k: TOP_K,
        };
        let gate = synthetic_gate(EXPERTS, HIDDEN, 0, 0);
        let workload = Workload::new(Pattern::Balanced, shape, 0, Some(gate)).unwrap();
        let mut rows = Vec::new();
        workload.fill(0, &mut rows);
        let x = ArcArray2::from_shape_vec((tokens, HIDDEN), rows).unwrap();
        self.coordinator
            .forward(x, None)
            .await
            .unwrap()
            .traffic
            .ledger
    }
}
