//! One session: a layer's experts here, its streams, and the machines that move rows.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use expertmesh_exchange::{
    BATCH_CHOICES, ClockMap, Cohort, CombineRule, Host, HostAction, HostTable, Limits, LossCause,
    OnLoss, RowsJob, error_frame,
};
use expertmesh_experts::{ComputePool, Expert, HomeExperts};
use expertmesh_telemetry::spans;
use expertmesh_transport::{Outbox, StreamHandle, Watchdog, monotonic_ns};
use expertmesh_wire::{
    BufferPool, ErrorCode, FrameKind, FrameView, GRPC_PREFIX, Header, RemoteError, Times,
    WireError, encoded_len,
};
use tracing::{debug, debug_span, warn};

use crate::chunks::Chunks;
use crate::compute::{estimate_ns, guarded, run_batch, stretch};
use crate::floor::Floors;
use crate::home::HomeSlot;

/// What is fixed when a session is configured.
pub(crate) struct Layer {
    pub(crate) session: u64,
    pub(crate) epoch: u64,
    pub(crate) me: u32,
    pub(crate) names: Arc<[String]>,
    /// Elements of the rows that travel.
    pub(crate) hidden: u32,
    pub(crate) rule: CombineRule,
    pub(crate) limits: Limits,
    pub(crate) credits: usize,
    /// The longest message that anybody here accepts.
    pub(crate) max_message_bytes: usize,
    pub(crate) on_loss: OnLoss,
    pub(crate) table: HostTable,
    /// By expert id; `None` for experts that live elsewhere.
    pub(crate) experts: Vec<Option<Arc<dyn Expert>>>,
    /// What this worker computes as a home.
    pub(crate) home: HomeExperts,
}

/// A configured session.
pub(crate) struct Session {
    pub(crate) layer: Layer,
    pub(crate) compute: ComputePool,
    pub(crate) pool: BufferPool,
    /// Streams to the peers, by endpoint id; set once the peers are connected.
    pub(crate) peers: OnceLock<Vec<Option<StreamHandle>>>,
    /// Ends homes whose deadline has passed.
    pub(crate) watchdog: Watchdog,
    pub(crate) floors: Floors,
    pub(crate) chunks: Chunks,
    /// How many times longer experts take than they do; 1 in real time.
    stretch: f64,
    state: Mutex<State>,
    local: Mutex<Local>,
}

#[derive(Debug)]
pub(crate) struct State {
    host: Host,
    jobs: HashMap<u64, Pending>,
    next_job: u64,
    /// Shards this worker is home to, by step.
    pub(crate) homes: HashMap<u64, HomeSlot>,
    /// Clocks of the peers, by endpoint id.
    pub(crate) clocks: Vec<ClockMap>,
    /// Streams that others opened to us, with their endpoint ids.
    pub(crate) incoming: Vec<(u32, Outbox)>,
}

/// A chunk that waits for its experts.
#[derive(Debug)]
struct Pending {
    job: RowsJob,
    /// What computing it alone will roughly cost.
    cost_ns: u64,
    reply: Reply,
    received_ns: u64,
}

/// A message of this worker to itself, gRPC prefix included.
pub(crate) enum ToSelf {
    /// Rows for experts of its own, from its home of `step`.
    Rows { step: u64, message: Bytes },
    /// The answer to such rows.
    Reply(Bytes),
}

/// Messages to itself, and whether someone is handing them over.
#[derive(Default)]
struct Local {
    queue: VecDeque<ToSelf>,
    busy: bool,
}

/// Where results go.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Stream(Outbox),
    /// The home is this worker.
    Local,
}

// === impl Session ===

impl Session {
    pub(crate) fn new(layer: Layer, compute: ComputePool, clocks: Vec<ClockMap>) -> Self {
        Self {
            compute,
            pool: BufferPool::default(),
            peers: OnceLock::new(),
            watchdog: Watchdog::default(),
            floors: Floors::default(),
            chunks: Chunks::default(),
            stretch: 1.0,
            local: Mutex::default(),
            state: Mutex::new(State {
                host: Host::new(BATCH_CHOICES),
                jobs: HashMap::new(),
                next_job: 0,
                homes: HashMap::new(),
                clocks,
                incoming: Vec::new(),
            }),
            layer,
        }
    }

    /// The same under stretched time.
    pub(crate) fn stretched(self, stretch: f64) -> Self {
        Self { stretch, ..self }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Experts do not run under this lock; whatever panicked left whole entries behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message on a stream that `from` opened to us.
    pub(crate) fn on_request(self: &Arc<Self>, from: u32, outbox: &Outbox, message: Bytes) {
        let received_ns = monotonic_ns();
        let frame = match FrameView::read(message) {
            Ok(frame) => frame,
            Err(error) => return self.refuse_unreadable(from, outbox, &error),
        };
        let header = frame.header;
        let mut outbox = outbox.clone();
        let handled = match header.kind {
            FrameKind::Floor => self.on_floor(&outbox, &frame),
            _ if header.tag.session != self.layer.session => Err(field(
                "session",
                format!("{:#x}", header.tag.session),
                format!("{:#x}, the stream's", self.layer.session),
            )),
            _ if header.tag.epoch != self.layer.epoch => {
                Err(field("epoch", header.tag.epoch, self.layer.epoch))
            }
            _ if header.format != self.layer.rule.row_format => {
                Err(field("format", header.format, self.layer.rule.row_format))
            }
            FrameKind::Rows => self.home_outbox(from, &header, &outbox).and_then(|home| {
                // Whoever passed them on has no use for an answer.
                outbox = home;
                self.on_rows(frame, Reply::Stream(outbox.clone()), received_ns)
            }),
            FrameKind::Shard => self.on_shard(from, frame, &outbox, received_ns),
            FrameKind::Relay => self.on_relay(from, frame, &outbox, received_ns),
            kind => Err(field(
                "kind",
                kind.as_str_name(),
                "ROWS, SHARD, RELAY or FLOOR in a request",
            )),
        };
        if let Err(error) = handled {
            warn!(from, %error, "frame refused");
            let error = RemoteError::from(error).about(self.layer.me);
            self.send(&outbox, error_frame(&self.pool, &header, &error));
        }
    }

    /// A message on a stream that we opened to the peer `from`.
    pub(crate) fn on_reply(self: &Arc<Self>, from: u32, message: Bytes) {
        let now = monotonic_ns();
        match FrameView::read(message) {
            Ok(frame) => match frame.header.kind {
                FrameKind::Results => self.on_results(from, frame, now),
                FrameKind::FloorReply => self.on_floor_reply(&frame),
                FrameKind::Error => {
                    let error = RemoteError::decode(&frame.rows);
                    self.on_peer_error(from, frame.header.tag.step, error);
                }
                kind => warn!(
                    from,
                    kind = kind.as_str_name(),
                    "reply of an unexpected kind"
                ),
            },
            Err(error) => warn!(from, %error, "reply is no frame"),
        }
    }

    /// The stream to a peer ended: its results are lost to every home here.
    pub(crate) fn on_peer_closed(self: &Arc<Self>, peer: u32, reason: &str) {
        debug!(peer, reason, "peer stream ended");
        self.floors.forget();
        let steps: Vec<u64> = {
            let mut state = self.state();
            for slot in state.homes.values_mut() {
                slot.run
                    .on_host_lost(peer, LossCause::Disconnected(reason.to_owned()));
            }
            state.homes.keys().copied().collect()
        };
        self.pump_homes(&steps);
    }

    /// Rows for experts of this worker.
    pub(crate) fn on_rows(
        self: &Arc<Self>,
        frame: FrameView,
        reply: Reply,
        received_ns: u64,
    ) -> Result<(), WireError> {
        let holds = |expert: u32| {
            self.layer
                .experts
                .get(expert as usize)
                .is_some_and(Option::is_some)
        };
        let job = RowsJob::read(frame, self.layer.hidden, holds)?;
        let reply_len = encoded_len(0, job.choices() * job.frame.header.row_bytes());
        if reply_len > self.layer.max_message_bytes {
            let limit = self.layer.max_message_bytes;
            let expected = format!("rows whose results fit a message of {limit} bytes");
            return Err(field(
                "index",
                format!("{} choices", job.choices()),
                expected,
            ));
        }
        let cost_ns = estimate_ns(&job, &self.layer.experts);
        let header = job.frame.header;
        {
            let mut state = self.state();
            let key = state.next_job;
            state.next_job += 1;
            let cohort = Cohort::new(header.tag.step, header.extent, cost_ns);
            state.host.on_rows(key, job.choices(), cohort, received_ns);
            let pending = Pending {
                job,
                cost_ns,
                reply,
                received_ns,
            };
            state.jobs.insert(key, pending);
        }
        self.pump_host();
        Ok(())
    }

    /// Lets chunks go whose cohort keeps them waiting too long; returns the next such moment.
    pub(crate) fn tick_host(self: &Arc<Self>, now_ns: u64) -> Option<u64> {
        self.state().host.on_tick(now_ns);
        self.pump_host();
        self.state().host.deadline_ns()
    }

    /// Starts batches as long as the host machine has any.
    fn pump_host(self: &Arc<Self>) {
        loop {
            let batch: Vec<Pending> = {
                let mut state = self.state();
                state.host.on_tick(monotonic_ns());
                let Some(HostAction::Run(keys)) = state.host.poll() else {
                    if let Some(deadline_ns) = state.host.deadline_ns() {
                        self.watchdog.arm(deadline_ns);
                    }
                    return;
                };
                keys.iter()
                    .filter_map(|key| state.jobs.remove(key))
                    .collect()
            };
            let cost = batch.iter().map(|one| one.cost_ns).sum();
            let session = Arc::clone(self);
            // A stretched batch sleeps, which the IO thread must not.
            if cost <= expertmesh_experts::pieces::INLINE_NS && self.stretch <= 1.0 {
                session.run(batch);
            } else {
                self.compute.run(cost, move || {
                    session.run(batch);
                    session.pump_host();
                });
                return;
            }
        }
    }

    /// Computes a batch and sends its results.
    fn run(self: &Arc<Self>, batch: Vec<Pending>) {
        let started_ns = monotonic_ns();
        let jobs: Vec<&RowsJob> = batch.iter().map(|one| &one.job).collect();
        let span = debug_span!(spans::EXPERTS, chunks = jobs.len());
        let work = || run_batch(&jobs, &self.layer.experts, &self.pool);
        let outcome = span.in_scope(|| guarded(work));
        stretch(started_ns, self.stretch);
        let computed_ns = monotonic_ns();
        self.state().host.on_done();
        match outcome {
            Ok(frames) => {
                for (one, mut frame) in batch.into_iter().zip(frames) {
                    let sent_ns = monotonic_ns();
                    let received_ns = one.received_ns;
                    let times = Times {
                        received_ns,
                        started_ns,
                        computed_ns,
                        sent_ns,
                    };
                    frame.set_header(&one.job.results_header(times));
                    self.reply(&one.reply, frame.finish());
                }
            }
            Err(error) => {
                let error =
                    RemoteError::new(ErrorCode::Internal, format!("expert failed: {error}"))
                        .about(self.layer.me);
                for one in batch {
                    let frame = error_frame(&self.pool, &one.job.frame.header, &error);
                    self.reply(&one.reply, frame);
                }
            }
        }
    }

    fn reply(self: &Arc<Self>, reply: &Reply, message: Bytes) {
        match reply {
            Reply::Stream(outbox) => self.send(outbox, message),
            Reply::Local => self.to_self(ToSelf::Reply(message)),
        }
    }

    /// Hands messages to this worker itself: one after another, never one inside another, for
    /// results ask for the next chunk, whose results ask for the next.
    pub(crate) fn to_self(self: &Arc<Self>, message: ToSelf) {
        {
            let mut local = self.local();
            local.queue.push_back(message);
            if std::mem::replace(&mut local.busy, true) {
                return;
            }
        }
        loop {
            let next = {
                let mut local = self.local();
                let next = local.queue.pop_front();
                local.busy = next.is_some();
                next
            };
            match next {
                None => return,
                Some(ToSelf::Reply(mut message)) => {
                    let _ = message.split_to(GRPC_PREFIX);
                    self.on_reply(self.layer.me, message);
                }
                Some(ToSelf::Rows { step, message }) => {
                    let queued = FrameView::read_prefixed(message)
                        .and_then(|frame| self.on_rows(frame, Reply::Local, monotonic_ns()));
                    if let Err(error) = queued {
                        self.on_peer_error(self.layer.me, step, error.into());
                    }
                }
            }
        }
    }

    fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the streams to the peers, whose sinks hold this session.
    pub(crate) fn close_peers(&self) {
        for stream in self.peers.get().into_iter().flatten().flatten() {
            stream.outbox().finish();
        }
    }

    pub(crate) fn send(&self, outbox: &Outbox, message: Bytes) {
        if outbox.send(message).is_err() {
            // The stream's own close says why; whoever waits for this hears it from there.
            debug!("message for a stream that is closed");
        }
    }

    fn refuse_unreadable(&self, from: u32, outbox: &Outbox, error: &WireError) {
        warn!(from, %error, "frame refused");
        let tag = expertmesh_wire::Tag {
            session: self.layer.session,
            epoch: self.layer.epoch,
            // Its step cannot be read: no step of anybody's is blamed.
            step: u64::MAX,
            ..Default::default()
        };
        let header = Header::new(
            FrameKind::Error,
            tag,
            self.layer.hidden,
            self.layer.rule.row_format,
        );
        let error = RemoteError::from(error.clone()).about(self.layer.me);
        self.send(outbox, error_frame(&self.pool, &header, &error));
    }
}

pub(crate) fn field(
    field: &'static str,
    held: impl std::fmt::Display,
    expected: impl std::fmt::Display,
) -> WireError {
    WireError::Field {
        field,
        held: held.to_string(),
        expected: expected.to_string(),
    }
}
