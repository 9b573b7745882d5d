//! One session: a layer's experts here, its streams, and the machines that move rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use expertmesh_exchange::{
    ClockMap, CombineRule, Host, HostAction, HostTable, Limits, LossCause, OnLoss, RowsJob,
    error_frame,
};
use expertmesh_experts::{ComputePool, Expert, SharedExpert};
use expertmesh_telemetry::spans;
use expertmesh_transport::{Outbox, StreamHandle, Watchdog, monotonic_ns};
use expertmesh_wire::{
    BufferPool, ErrorCode, FrameKind, FrameView, Header, RemoteError, Times, WireError,
};
use tracing::{debug, debug_span, warn};

use crate::compute::{estimate_ns, run_batch};
use crate::floor::Floors;
use crate::home::HomeSlot;

/// A batch closes at this many choices: beyond it, reading weights no longer dominates.
const BATCH_CHOICES: usize = 4096;

/// What is fixed when a session is configured.
pub(crate) struct Layer {
    pub(crate) session: u64,
    pub(crate) epoch: u64,
    pub(crate) me: u32,
    pub(crate) names: Arc<[String]>,
    pub(crate) hidden: u32,
    pub(crate) rule: CombineRule,
    pub(crate) limits: Limits,
    pub(crate) credits: usize,
    pub(crate) on_loss: OnLoss,
    pub(crate) table: HostTable,
    /// By expert id; `None` for experts that live elsewhere.
    pub(crate) experts: Vec<Option<Arc<dyn Expert>>>,
    pub(crate) shared: Option<Arc<SharedExpert>>,
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
    state: Mutex<State>,
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
    reply: Reply,
    received_ns: u64,
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

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panicking expert poisons nothing that the next frame relies on.
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
        let handled = match header.kind {
            FrameKind::Floor => self.on_floor(outbox, &frame),
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
            FrameKind::Rows => self.on_rows(frame, Reply::Stream(outbox.clone()), received_ns),
            FrameKind::Shard => self.on_shard(frame, outbox, received_ns),
            kind => Err(field(
                "kind",
                kind.as_str_name(),
                "ROWS, SHARD or FLOOR in a request",
            )),
        };
        if let Err(error) = handled {
            warn!(from, %error, "frame refused");
            let error = RemoteError::from(error).about(self.layer.me);
            self.send(outbox, error_frame(&self.pool, &header, &error));
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
        {
            let mut state = self.state();
            let key = state.next_job;
            state.next_job += 1;
            state.host.on_rows(key, job.choices());
            state.jobs.insert(
                key,
                Pending {
                    job,
                    reply,
                    received_ns,
                },
            );
        }
        self.pump_host();
        Ok(())
    }

    /// Starts batches as long as the host machine has any.
    fn pump_host(self: &Arc<Self>) {
        loop {
            let batch: Vec<Pending> = {
                let mut state = self.state();
                let Some(HostAction::Run(keys)) = state.host.poll() else {
                    return;
                };
                keys.iter()
                    .filter_map(|key| state.jobs.remove(key))
                    .collect()
            };
            let cost = batch
                .iter()
                .map(|one| estimate_ns(&one.job, &self.layer.experts))
                .sum();
            let session = Arc::clone(self);
            if cost <= expertmesh_experts::INLINE_NS {
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
        let outcome = span.in_scope(|| run_batch(&jobs, &self.layer.experts, &self.pool));
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
            Reply::Local => {
                let mut message = message;
                let _ = message.split_to(expertmesh_wire::GRPC_PREFIX);
                self.on_reply(self.layer.me, message);
            }
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
