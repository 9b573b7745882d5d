//! One step through the machines of `expertmesh-exchange`, over memory instead of sockets.
//!
//! Everything that may happen next (a message that arrives, a batch that starts or ends) is drawn
//! from a seeded generator, so messages overtake each other far more wildly than on streams.
//! Every endpoint has a clock of its own. Experts compute one row at a time, which makes the bus a
//! check of the worker's batches too.

mod front;
mod peer;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use expertmesh_exchange::{
    CombineRule, ExchangeKind, Groups, HostTable, Limits, OnLoss, StepError, TrafficLedger,
};
use expertmesh_kernels::Format;
use expertmesh_placement::Placement;
use expertmesh_routing::{
    Admission, AdmitContext, CapacityConfig, Domains, OverflowLedger, Route, WeightDtype,
};

use crate::bus::run::Run;
use crate::digest::digest;
use crate::reference::Parts;

/// How a bus moves rows.
#[derive(Debug, Clone)]
pub struct BusSetup {
    /// Which worker holds which expert.
    pub placement: Placement,
    /// How rows travel.
    pub exchange: ExchangeKind,
    /// `[workers]` the group of each, where the exchange has groups.
    pub groups: Vec<u32>,
    /// Format of rows on the wire.
    pub wire: Format,
    /// Capacity of the experts.
    pub capacity: CapacityConfig,
    /// Seed of everything random.
    pub seed: u64,
    /// What a lost endpoint means.
    pub on_loss: OnLoss,
    /// Chunks under way at one host.
    pub credits: usize,
    /// The longest frame that rows or results are cut to, bytes.
    pub chunk_bytes: usize,
    /// A host's batch closes at so many choices.
    pub batch_choices: usize,
    /// A step that takes longer ends, nanoseconds of the bus's own time.
    pub deadline_ns: u64,
    /// Delivers some replies twice.
    pub echoes: bool,
}

/// A worker that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Its endpoint id, 1 or more.
    pub endpoint: u32,
    /// Messages that it still takes.
    pub after: usize,
    /// How it fails.
    pub kind: FaultKind,
}

/// How a worker fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Its streams end, and some of what it sent last is lost.
    Dies,
    /// It takes everything and says nothing.
    Hangs,
}

/// A layer whose workers are memory.
pub struct Bus {
    /// The layer.
    pub parts: Parts,
    /// How rows move.
    pub setup: BusSetup,
    table: HostTable,
    domains: Domains,
    limits: Limits,
    rule: CombineRule,
    names: Arc<[String]>,
}

/// What a step on the bus gave.
#[derive(Debug, Clone)]
pub struct BusStep {
    /// `[tokens, hidden]`.
    pub output: Vec<f32>,
    /// The gate's choices.
    pub route: Route,
    /// What was done for each choice, its fates being the last word.
    pub admission: Admission,
    /// The choices counted by expert.
    pub overflow: OverflowLedger,
    /// What the plans say is sent.
    pub planned: TrafficLedger,
    /// Messages and bytes that were handed over, by (source, destination).
    pub carried: BTreeMap<(u32, u32), (u64, u64)>,
    /// Bytes of frames that an endpoint handed to itself.
    pub local_bytes: u64,
    /// Time that the step took on the bus, nanoseconds.
    pub took_ns: u64,
}

/// Which workers hold each expert.
pub(crate) fn domains(placement: &Placement) -> Domains {
    let replicas = |expert| placement.replicas(expert);
    let of: Vec<&[u32]> = (0..placement.experts()).map(replicas).collect();
    Domains::new(&of, placement.workers()).expect("a placement")
}

fn table(setup: &BusSetup) -> HostTable {
    let table = HostTable::new(&setup.placement);
    if setup.exchange != ExchangeKind::Hierarchical {
        return table;
    }
    table.with_groups(Groups::new(setup.groups.clone()).expect("groups of workers"))
}

// === impl BusSetup ===

impl BusSetup {
    /// A setup for `placement` with small chunks and few credits, so that there is much to
    /// reorder, and workers in twos.
    pub fn new(placement: Placement, exchange: ExchangeKind) -> Self {
        let groups = match exchange {
            ExchangeKind::Hierarchical => Groups::contiguous(placement.workers(), 2),
            _ => Vec::new(),
        };
        Self {
            placement,
            exchange,
            groups,
            wire: Format::F32,
            capacity: CapacityConfig::default(),
            seed: 0,
            on_loss: OnLoss::Fail,
            credits: 2,
            chunk_bytes: 2048,
            batch_choices: 16,
            deadline_ns: 1_000_000_000,
            echoes: false,
        }
    }
}

// === impl Bus ===

impl Bus {
    /// A bus for a layer.
    pub fn new(parts: Parts, setup: BusSetup) -> Self {
        let router = &parts.spec.router;
        let names = std::iter::once("coordinator".to_owned())
            .chain((0..setup.placement.workers()).map(|worker| format!("worker-{worker}")));
        Self {
            table: table(&setup),
            limits: Limits {
                row_bytes: parts.spec.hidden * setup.wire.bytes(),
                chunk_bytes: setup.chunk_bytes,
                row_per_choice: false,
            },
            rule: CombineRule::new(
                setup.wire,
                router.dtype,
                router.weight_dtype == WeightDtype::Model,
            ),
            domains: domains(&setup.placement),
            names: names.collect(),
            parts,
            setup,
        }
    }

    /// What every step is admitted under.
    pub fn admit_context(&self) -> AdmitContext<'_> {
        AdmitContext {
            seed: self.setup.seed,
            domains: Some(&self.domains),
            ..AdmitContext::default()
        }
    }

    /// One step of `x` `[tokens, hidden]`, in an order drawn from `seed`.
    ///
    /// # Errors
    /// [`StepError`] if an endpoint is lost under [`OnLoss::Fail`].
    pub fn step(
        &self,
        x: &[f32],
        padding: Option<&[bool]>,
        seed: u64,
        faults: &[Fault],
    ) -> Result<BusStep, StepError> {
        self.step_routed(x, self.parts.route(x, padding), seed, faults)
    }

    /// The same for choices that a test makes up.
    ///
    /// # Errors
    /// As [`Bus::step`].
    pub fn step_routed(
        &self,
        x: &[f32],
        route: Route,
        seed: u64,
        faults: &[Fault],
    ) -> Result<BusStep, StepError> {
        Run::new(self, x, route, seed, faults).finish()
    }
}

// === impl BusStep ===

impl BusStep {
    /// Digest of the outputs.
    pub fn digest(&self) -> String {
        digest(&self.output)
    }

    /// What the plans say is sent, in the form of [`BusStep::carried`].
    pub fn planned_links(&self) -> BTreeMap<(u32, u32), (u64, u64)> {
        let links = self.planned.links();
        links
            .map(|(from, to, cell)| ((from, to), (cell.messages, cell.bytes)))
            .collect()
    }
}
