//! Endpoints, their tasks, and messages.

use std::collections::VecDeque;

use crate::net::Parcel;
use expertmesh_exchange::{BATCH_CHOICES, Host};
use expertmesh_telemetry::Phase;

/// A process: a thread that does its I/O, threads that compute, and the machine of its experts.
pub(super) struct Endpoint {
    /// What the I/O thread does next, before anything that came from outside: the rest of what it
    /// is in the middle of.
    pub(super) urgent: VecDeque<Task>,
    /// What it does then, in the order of arrival.
    pub(super) queue: VecDeque<Task>,
    /// What waits for a compute thread.
    pub(super) pool: VecDeque<Task>,
    /// The I/O thread, then those that compute.
    pub(super) threads: Vec<Thread>,
    pub(super) host: Host,
    pub(super) batch: Option<Batch>,
    /// Homes of its that are under way.
    pub(super) homes: Vec<u32>,
    /// The earliest timer that is set.
    pub(super) timer_ns: u64,
    /// What it computes takes so many times as long.
    pub(super) slow: f64,
    pub(super) is_down: bool,
}

/// A thread of an endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Thread {
    pub(super) task: Option<Task>,
    pub(super) is_awake: bool,
    /// It has not done anything since it was asleep.
    pub(super) has_slept: bool,
}

/// Chunks that are computed together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) jobs: Vec<u64>,
    pub(super) started_ns: u64,
    /// Of its time, what finishing its frames takes.
    pub(super) replies_ns: u64,
}

/// What a thread may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// The coordinator looks at a step's input.
    Check(u32),
    /// It plans the step.
    Plan(u32),
    /// It packs the next shard.
    SendShard(u32),
    /// A home packs what its machine sends.
    Pump(u32),
    /// A relay makes the rows of a bundle's hosts.
    PassOn(u32),
    /// Messages, the first of so many, are handed to the network.
    Write(u32, u32),
    /// A message is taken from it.
    Read(u32),
    /// The stream of this endpoint ended.
    Closed(u32),
    /// Deadlines are looked at.
    Tick,
    /// A piece of work that may be shared by threads.
    Piece(u32),
}

/// Work in pieces; who finishes last does what follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) work: Work,
    pub(super) piece_ns: u64,
    /// How many times as long it takes while every other core computes too.
    pub(super) slowdown: f64,
    pub(super) left: u32,
    /// When its first piece began.
    pub(super) began_ns: Option<u64>,
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// The gate of a step.
    Gate(u32),
    /// The batch of an endpoint.
    Batch(u32),
    /// What a home computes itself.
    Own(u32),
    /// The shared expert at the coordinator, where homes have latent rows.
    FrontOwn(u32),
    /// A worker's combine of a home.
    Combine(u32),
    /// The coordinator's last part of a step.
    Collect(u32),
    /// What a worker computes behind a step: the step and the worker.
    Behind(u32, u32),
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Shard,
    Rows,
    /// Rows for several hosts of a group, to be passed on.
    Relay,
    Results,
    Combined,
    /// An error instead of outputs; in no ledger.
    Failed,
    /// Not a message: the end of a stream.
    Closed,
}

/// A message: one line of a cache, for a run has hundreds of thousands.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) from: u32,
    pub(super) to: u32,
    /// Position of the step in the run.
    pub(super) step: u32,
    /// The home whose exchange it is part of.
    pub(super) home: u32,
    /// Position of the host in the home's plan, and of the chunk among those of the host.
    pub(super) host: u32,
    pub(super) chunk: u32,
    /// Token rows or result rows.
    pub(super) rows: u32,
    /// The results that rows ask for. Of a bundle: its parts' messages.
    pub(super) choices: u32,
    /// Of rows and results: the chunk among those of the plan. Of a bundle: the first of its parts'
    /// messages.
    pub(super) at: u32,
    pub(super) bytes: u64,
    /// When it was handed over, and then when its last bit can be at the receiver's port.
    pub(super) moment_ns: u64,
    /// Of rows: when they were taken in. Of results: where their moments are.
    pub(super) note: u64,
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn new(threads: usize, slow: f64) -> Self {
        let asleep = Thread {
            has_slept: true,
            ..Thread::default()
        };
        Self {
            urgent: VecDeque::new(),
            queue: VecDeque::new(),
            pool: VecDeque::new(),
            threads: vec![asleep; 1 + threads],
            host: Host::new(BATCH_CHOICES),
            batch: None,
            homes: Vec::new(),
            timer_ns: u64::MAX,
            slow,
            is_down: false,
        }
    }

    /// The next task of its thread at `lane`.
    pub(super) fn next(&mut self, lane: usize) -> Option<Task> {
        match lane {
            0 => self.urgent.pop_front().or_else(|| self.queue.pop_front()),
            _ => self.pool.pop_front(),
        }
    }

    pub(super) fn has_more(&self, lane: usize) -> bool {
        match lane {
            0 => !(self.urgent.is_empty() && self.queue.is_empty()),
            _ => !self.pool.is_empty(),
        }
    }
}

// === impl Message ===

impl Message {
    pub(super) fn new(kind: Kind, (from, to): (u32, u32), home: u32, step: u32) -> Self {
        Self {
            kind,
            from,
            to,
            step,
            home,
            host: 0,
            chunk: 0,
            rows: 0,
            choices: 0,
            at: 0,
            bytes: 0,
            moment_ns: 0,
            note: 0,
        }
    }

    pub(super) fn parcel(&self, is_near: bool) -> Parcel {
        Parcel {
            is_near,
            from: self.from,
            to: self.to,
            bytes: self.bytes,
            first: self.chunk == 0,
            is_request: self.kind.is_request(),
        }
    }
}

// === impl Kind ===

impl Kind {
    /// Whether the ledger has it as a request.
    pub(super) fn is_request(self) -> bool {
        matches!(self, Self::Shard | Self::Rows | Self::Relay)
    }

    pub(super) fn is_counted(self) -> bool {
        !matches!(self, Self::Failed | Self::Closed)
    }

    pub(super) fn phase(self) -> Option<Phase> {
        match self {
            Self::Shard | Self::Rows | Self::Relay => Some(Phase::Send),
            Self::Results | Self::Combined => Some(Phase::Return),
            Self::Failed | Self::Closed => None,
        }
    }
}
