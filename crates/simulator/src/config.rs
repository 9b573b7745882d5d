//! What a simulation is told, and what it gives.

use expertmesh_exchange::{ExchangeKind, LossCause, OnLoss, TrafficLedger};
use expertmesh_placement::Placement;
use expertmesh_routing::{Admission, Fate, Route};
use expertmesh_telemetry::{Lane, StepRecord};

use crate::error::SimError;
use crate::layer::Layer;

/// Everything that a simulated cluster's steps depend on besides machines and costs.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// The shape of the layer.
    pub layer: Layer,
    /// Which worker holds which expert.
    pub placement: Placement,
    /// How rows travel.
    pub exchange: ExchangeKind,
    /// `[workers]` the group of each in `hierarchical`; empty: the workers of a host are a group.
    pub groups: Vec<u32>,
    /// The longest frame that rows or results are cut to, bytes.
    pub chunk_bytes: usize,
    /// Chunks that a home may have under way at one host.
    pub credits: usize,
    /// What a lost worker means.
    pub on_loss: OnLoss,
    /// A step that takes longer ends, nanoseconds.
    pub deadline_ns: u64,
    /// Compute threads of each endpoint; a device that computes is one.
    pub threads: usize,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Homes hold their tokens already: `SHARD` and `COMBINED` frames take no time and no port, and
    /// are not counted. No real run of this runtime does so; it is for comparing exchanges with
    /// systems whose homes run the gate.
    pub resident: bool,
    /// All endpoints share so many cores, wherever the topology puts them: its links are emulated
    /// between processes of one machine.
    pub one_machine: Option<u32>,
    /// Whether steps keep their lanes.
    pub lanes: bool,
    /// Whether steps keep the text of their event log.
    pub log: bool,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// What this endpoint computes takes so many times as long.
    SlowCompute {
        /// Endpoint id.
        endpoint: u32,
        /// 1 or more.
        factor: f64,
    },
    /// This endpoint's own ports, both ways, take so many times as long for its messages.
    SlowLink {
        /// Endpoint id.
        endpoint: u32,
        /// 1 or more.
        factor: f64,
    },
    /// This worker fails.
    Lost {
        /// Endpoint id.
        endpoint: u32,
        /// When, on the clock of [`StepInput::begins_ns`], nanoseconds.
        at_ns: u64,
        /// How.
        how: Failure,
    },
}

/// Beyond it an endpoint is as good as lost, and times leave the clock's range.
const MOST_TIMES: f64 = 1e6;

/// How a worker fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Its streams end. What it had handed to the network arrives.
    Dies,
    /// It takes everything and says nothing.
    Hangs,
}

/// One step's work.
#[derive(Debug, Clone, Copy)]
pub struct StepInput<'a> {
    /// The gate's choices.
    pub route: &'a Route,
    /// What capacity leaves of them.
    pub admission: &'a Admission,
    /// When it begins, nanoseconds on a clock that runs through all runs. Faults, moments and lanes
    /// are on the same clock.
    pub begins_ns: u64,
    /// Position in the run of an earlier step that it waits for, and for what lies behind that: the
    /// layer before, of the same batch. Then it begins at [`StepInput::begins_ns`] at the earliest.
    pub follows: Option<usize>,
    /// What every worker computes behind the step, nanoseconds: attention, say. It is work like any
    /// other, which waits for a thread and keeps it.
    pub behind_ns: u64,
}

/// What a simulated step gave.
#[derive(Debug, Clone)]
pub struct SimStep {
    /// Where the time went, by the definitions of a real step's record.
    pub record: StepRecord,
    /// When the step was over and every worker had computed what lies behind it.
    pub left_ns: u64,
    /// What the plan says is sent.
    pub ledger: TrafficLedger,
    /// What was sent. Without faults it equals [`SimStep::ledger`].
    pub carried: TrafficLedger,
    /// Endpoint id of the worker on the critical path; 0 if no row left.
    pub critical_endpoint: u32,
    /// Endpoint id of the home whose results came last, on the same path; 0 for the coordinator.
    pub critical_home: u32,
    /// `[choices]` the last word on each.
    pub fates: Vec<Fate>,
    /// Workers that the step went on without, with the cause.
    pub lost: Vec<(u32, LossCause)>,
    /// What each endpoint did when, if asked for.
    pub lanes: Vec<Lane>,
}

/// What a run of steps gave.
#[derive(Debug, Clone)]
pub struct SimRun {
    /// The steps in the order of their inputs.
    pub steps: Vec<SimStep>,
    /// By endpoint id.
    pub endpoints: Vec<EndpointUse>,
    /// By port of the fabric.
    pub ports: Vec<PortUse>,
    /// Events that were simulated.
    pub events: u64,
    /// SHA-256 of the event log.
    pub digest: String,
    /// Its text, if asked for.
    pub log: Option<String>,
}

/// How busy an endpoint was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndpointUse {
    /// Work of the thread that does I/O, nanoseconds.
    pub io_ns: u64,
    /// Work of compute threads.
    pub compute_ns: u64,
    /// Of that, what lies behind steps.
    pub behind_ns: u64,
    /// What all its threads waited for a core.
    pub waited_ns: u64,
    /// Encoded bytes that it sent to others.
    pub sent_bytes: u64,
    /// Encoded bytes that reached it from others.
    pub received_bytes: u64,
}

/// How busy a port was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortUse {
    /// Bytes that passed.
    pub bytes: u64,
    /// Nanoseconds in which bits of a message passed it.
    pub busy_ns: u64,
    /// What messages waited for it together.
    pub queued_ns: u64,
}

// === impl StepInput ===

impl<'a> StepInput<'a> {
    /// A step that begins at `begins_ns` and has nothing behind it.
    pub fn at(begins_ns: u64, route: &'a Route, admission: &'a Admission) -> Self {
        Self {
            route,
            admission,
            begins_ns,
            follows: None,
            behind_ns: 0,
        }
    }
}

// === impl SimConfig ===

impl SimConfig {
    /// Credits, chunks and deadline of the runtime's defaults, without faults.
    pub fn new(layer: Layer, placement: Placement, exchange: ExchangeKind) -> Self {
        Self {
            layer,
            placement,
            exchange,
            groups: Vec::new(),
            chunk_bytes: (1 << 20) - 1024,
            credits: 4,
            on_loss: OnLoss::Fail,
            deadline_ns: 30_000_000_000,
            threads: 1,
            faults: Vec::new(),
            resident: false,
            one_machine: None,
            lanes: false,
            log: false,
        }
    }

    /// Checks the fields against each other and against `endpoints` endpoints.
    pub(crate) fn validate(&self, endpoints: usize) -> Result<(), SimError> {
        let workers = self.placement.workers();
        if workers + 1 != endpoints {
            let expected = format!("{}, those of the topology's endpoints", endpoints - 1);
            return Err(SimError::field("placement workers", workers, expected));
        }
        if self.placement.experts() != self.layer.experts {
            let expected = format!("{}, the layer's", self.layer.experts);
            let held = self.placement.experts();
            return Err(SimError::field("placement experts", held, expected));
        }
        let grouped = self.exchange == ExchangeKind::Hierarchical;
        if !self.groups.is_empty() && (!grouped || self.groups.len() != workers) {
            let expected = match grouped {
                true => format!("{workers}, one for each worker, or none"),
                false => format!("no groups, because the exchange is {}", self.exchange),
            };
            return Err(SimError::field("groups", self.groups.len(), expected));
        }
        for (field, held) in [("credits", self.credits), ("threads", self.threads)] {
            if held == 0 {
                return Err(SimError::field(field, 0, "at least 1"));
            }
        }
        if self.deadline_ns == 0 {
            return Err(SimError::field("deadline_ns", 0, "a time above 0"));
        }
        if let (Some(latent), 1..) = (self.layer.latent, self.layer.free_experts) {
            let held = format!(
                "{} beside a latent size of {latent}",
                self.layer.free_experts
            );
            let expected = "none there, because a free expert answers with hidden states";
            return Err(SimError::field("free experts", held, expected));
        }
        if self.resident && self.exchange == ExchangeKind::Star {
            let expected = "all-to-all, because in star the coordinator is home";
            return Err(SimError::field("resident", "true with star", expected));
        }
        self.faults
            .iter()
            .try_for_each(|fault| fault.validate(endpoints))
    }

    /// Whether the shared expert is the coordinator's though workers are homes: they are sent latent
    /// rows, and it has the token rows.
    pub(crate) fn has_front_shared(&self) -> bool {
        let is_latent = self.layer.latent.is_some() && self.layer.shared.is_some();
        is_latent && self.exchange.is_sharded() && !self.resident
    }
}

// === impl Fault ===

impl Fault {
    fn validate(&self, endpoints: usize) -> Result<(), SimError> {
        let (endpoint, factor) = match *self {
            Self::SlowCompute { endpoint, factor } | Self::SlowLink { endpoint, factor } => {
                (endpoint, factor)
            }
            Self::Lost { endpoint: 0, .. } => {
                return Err(SimError::field(
                    "fault",
                    "the loss of endpoint 0",
                    "a worker",
                ));
            }
            Self::Lost { endpoint, .. } => (endpoint, 1.0),
        };
        if endpoint as usize >= endpoints {
            let expected = format!("an endpoint below {endpoints}");
            return Err(SimError::field("fault endpoint", endpoint, expected));
        }
        if !(1.0..=MOST_TIMES).contains(&factor) {
            let expected = format!("1 to {MOST_TIMES}");
            return Err(SimError::field("fault factor", factor, expected));
        }
        Ok(())
    }
}
