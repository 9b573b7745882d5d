//! The steps under way, and what reaches them from the streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use expertmesh_exchange::{
    ClockMap, HomeRun, LossCause, Outgoing, OwnChoice, RowSource, StepError,
};
use expertmesh_transport::{Outbox, StreamHandle, Watchdog, monotonic_ns};
use expertmesh_wire::{BufferPool, FrameKind, FrameView, RemoteError, v1};
use ndarray::ArcArray2;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::floor::FloorRun;
use crate::shards::{ShardAction, ShardsRun};

/// Steps by number, streams by endpoint id.
pub(crate) struct Engine {
    pub(crate) names: Arc<[String]>,
    pub(crate) pool: BufferPool,
    pub(crate) watchdog: Watchdog,
    /// Whether this side closes the streams.
    leaving: AtomicBool,
    streams: OnceLock<Mutex<Vec<Option<StreamHandle>>>>,
    outboxes: OnceLock<Vec<Option<Outbox>>>,
    /// Memory of earlier outputs.
    outputs: Mutex<Vec<Vec<f32>>>,
    state: Mutex<State>,
}

struct State {
    steps: HashMap<u64, Active>,
    /// Why an endpoint is down, by id.
    down: Vec<Option<LossCause>>,
    clocks: Vec<ClockMap>,
}

/// The exchange of one step.
#[derive(Debug)]
pub(crate) enum Exchange {
    Star(Box<HomeRun>),
    AllToAll(ShardsRun),
    Floor(FloorRun),
}

/// A step under way.
struct Active {
    exchange: Exchange,
    rows: ArcArray2<f32>,
    done: Option<oneshot::Sender<Result<(), StepError>>>,
}

/// What an exchange asks for, whatever its kind.
enum Action {
    Send { endpoint: u32, message: Bytes },
    Done(Result<(), StepError>),
}

// === impl Engine ===

impl Engine {
    pub(crate) fn new(names: Arc<[String]>, clocks: Vec<ClockMap>) -> Self {
        let down = vec![None; names.len()];
        Self {
            names,
            pool: BufferPool::default(),
            watchdog: Watchdog::default(),
            leaving: AtomicBool::new(false),
            streams: OnceLock::new(),
            outboxes: OnceLock::new(),
            outputs: Mutex::new(Vec::new()),
            state: Mutex::new(State {
                steps: HashMap::new(),
                down,
                clocks,
            }),
        }
    }

    /// The streams are open.
    pub(crate) fn attach(&self, streams: Vec<Option<StreamHandle>>) {
        let outbox =
            |stream: &Option<StreamHandle>| stream.as_ref().map(|stream| stream.outbox().clone());
        // Called once, at the end of bringing the cluster up.
        let _ = self.outboxes.set(streams.iter().map(outbox).collect());
        let _ = self.streams.set(Mutex::new(streams));
    }

    /// Closes the streams, whose sinks hold this engine.
    pub(crate) fn detach(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        if let Some(streams) = self.streams.get() {
            streams
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear();
        }
    }

    /// Why `endpoint` is down, if it is.
    pub(crate) fn down(&self, endpoint: u32) -> Option<LossCause> {
        self.state().down.get(endpoint as usize).cloned().flatten()
    }

    /// Starts a step; the receiver hears its end.
    pub(crate) fn begin(
        &self,
        step: u64,
        exchange: Exchange,
        rows: ArcArray2<f32>,
    ) -> oneshot::Receiver<Result<(), StepError>> {
        let (done, ended) = oneshot::channel();
        let deadline = exchange.deadline_ns();
        self.state().steps.insert(
            step,
            Active {
                exchange,
                rows,
                done: Some(done),
            },
        );
        self.watchdog.arm(deadline);
        ended
    }

    /// Takes a step out, ended or not.
    pub(crate) fn finish(&self, step: u64) -> Option<Exchange> {
        self.state()
            .steps
            .remove(&step)
            .map(|active| active.exchange)
    }

    /// Carries out one action of a step; `false` when it has none.
    ///
    /// One at a time, so that its caller can let the socket start on a message while the next is
    /// packed.
    pub(crate) fn pump_one(&self, step: u64) -> bool {
        let mut state = self.state();
        let Some(active) = state.steps.get_mut(&step) else {
            return false;
        };
        let Some(action) = active.poll(&self.pool) else {
            return false;
        };
        match action {
            Action::Send { endpoint, message } => {
                if !self.send(endpoint, message) {
                    let cause = LossCause::Disconnected("stream is closed".to_owned());
                    active.exchange.on_lost(endpoint, &cause);
                }
            }
            Action::Done(outcome) => {
                if let Some(done) = active.done.take() {
                    // A caller that went away no longer cares.
                    let _ = done.send(outcome);
                }
            }
        }
        true
    }

    fn pump(&self, step: u64) {
        while self.pump_one(step) {}
    }

    pub(crate) fn send(&self, endpoint: u32, message: Bytes) -> bool {
        let outboxes = self.outboxes.get();
        let outbox = outboxes
            .and_then(|all| all.get(endpoint as usize))
            .and_then(Option::as_ref);
        outbox.is_some_and(|outbox| outbox.send(message).is_ok())
    }

    /// A message from a worker.
    pub(crate) fn on_message(&self, from: u32, message: Bytes) {
        let now = monotonic_ns();
        let frame = match FrameView::read(message) {
            Ok(frame) => frame,
            Err(error) => {
                warn!(from, %error, "message is no frame");
                return;
            }
        };
        let step = frame.header.tag.step;
        {
            let mut guard = self.state();
            let state = &mut *guard;
            // It was late, but it lives.
            if let Some(down) = state.down.get_mut(from as usize)
                && matches!(down, Some(LossCause::Deadline { .. }))
            {
                *down = None;
            }
            let Some(active) = state.steps.get_mut(&step) else {
                debug!(from, step, "frame for a step that is over");
                return;
            };
            match (frame.header.kind, &mut active.exchange) {
                (FrameKind::Results, Exchange::Star(run)) => {
                    if let Some(clock) = state.clocks.get_mut(from as usize) {
                        run.on_results(from, frame, clock, now);
                    }
                }
                (FrameKind::Combined, Exchange::AllToAll(run)) => {
                    if let Some(clock) = state.clocks.get_mut(from as usize) {
                        observe(clock, run, from, &frame, now);
                    }
                    run.on_combined(from, frame, now);
                }
                (FrameKind::FloorReply, Exchange::Floor(run)) => run.on_reply(from, now),
                (FrameKind::Error, exchange) => {
                    exchange.on_error(from, RemoteError::decode(&frame.rows));
                }
                (kind, _) => {
                    let kind = kind.as_str_name();
                    warn!(
                        from,
                        step, kind, "frame of a kind that the step does not await"
                    );
                }
            }
        }
        self.pump(step);
    }

    /// The stream to a worker ended.
    pub(crate) fn on_lost(&self, endpoint: u32, cause: LossCause) {
        let steps: Vec<u64> = {
            let mut state = self.state();
            if let Some(down) = state.down.get_mut(endpoint as usize) {
                *down = Some(cause.clone());
            }
            for active in state.steps.values_mut() {
                active.exchange.on_lost(endpoint, &cause);
            }
            state.steps.keys().copied().collect()
        };
        // Whoever closes the streams knows what becomes of the steps.
        if !steps.is_empty() && !self.leaving.load(Ordering::Relaxed) {
            warn!(endpoint = self.names[endpoint as usize], %cause, "worker lost in mid-step");
        }
        steps.into_iter().for_each(|step| self.pump(step));
    }

    /// Workers that were called late in a step are down until they are heard of again.
    pub(crate) fn mark_late(&self, endpoints: impl IntoIterator<Item = (u32, LossCause)>) {
        let mut state = self.state();
        for (endpoint, cause) in endpoints {
            if let Some(down) = state.down.get_mut(endpoint as usize)
                && down.is_none()
            {
                *down = Some(cause);
            }
        }
    }

    /// Ends what is late; returns the next deadline.
    pub(crate) fn on_tick(&self) -> Option<u64> {
        let now = monotonic_ns();
        let late: Vec<u64> = {
            let mut state = self.state();
            let late = state
                .steps
                .iter_mut()
                .filter(|(_, active)| active.exchange.deadline_ns() <= now);
            late.map(|(step, active)| {
                active.exchange.on_tick(now);
                *step
            })
            .collect()
        };
        late.into_iter().for_each(|step| self.pump(step));
        let open = |active: &&Active| active.done.is_some();
        self.state()
            .steps
            .values()
            .filter(open)
            .map(|one| one.exchange.deadline_ns())
            .min()
    }

    /// Memory for an output of `len` elements, of unspecified content.
    pub(crate) fn take_output(&self, len: usize) -> Vec<f32> {
        let kept = self
            .outputs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut output = kept.unwrap_or_default();
        output.resize(len, 0.0);
        output
    }

    /// Keeps an output's memory for a later step.
    pub(crate) fn recycle(&self, output: Vec<f32>) {
        /// Outputs of more concurrent clients than this are freed.
        const MOST: usize = 16;
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        if outputs.len() < MOST {
            outputs.push(output);
        }
    }

    /// The clock of an endpoint against ours, as known now.
    pub(crate) fn clock(&self, endpoint: u32) -> ClockMap {
        self.state()
            .clocks
            .get(endpoint as usize)
            .copied()
            .unwrap_or_else(ClockMap::unknown)
    }

    /// Counters of the coordinator's own sends.
    pub(crate) fn traffic(&self) -> Vec<v1::LinkTraffic> {
        let outboxes = self.outboxes.get().into_iter().flatten();
        outboxes
            .zip(0u32..)
            .filter_map(|(outbox, destination)| {
                let counters = outbox.as_ref()?.counters();
                Some(v1::LinkTraffic {
                    source: expertmesh_exchange::COORDINATOR,
                    destination,
                    messages: counters.messages_out(),
                    message_bytes: counters.message_bytes_out(),
                    wire_bytes: counters.wire_bytes_out(),
                })
            })
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A home's receipt and reply are a sample of its clock.
fn observe(clock: &mut ClockMap, run: &ShardsRun, home: u32, frame: &FrameView, now: u64) {
    let shard = run.shards.iter().find(|shard| shard.plan.home == home);
    if let Some(shard) = shard {
        let times = frame.header.times;
        clock.observe(shard.packed_ns, times.received_ns, times.sent_ns, now);
    }
}

// === impl Active ===

impl Active {
    fn poll(&mut self, pool: &BufferPool) -> Option<Action> {
        // Input is put in standard layout before a step begins.
        let rows = self.rows.as_slice().unwrap_or_default();
        Some(match &mut self.exchange {
            Exchange::Star(run) => match run.poll(RowSource::F32(rows), pool, monotonic_ns)? {
                Outgoing::Send { endpoint, message } => Action::Send { endpoint, message },
                Outgoing::Combine => Action::Done(Ok(())),
                Outgoing::Fail(error) => Action::Done(Err(error)),
            },
            Exchange::AllToAll(run) => match run.poll(rows, pool)? {
                ShardAction::Send { endpoint, message } => Action::Send { endpoint, message },
                ShardAction::Finish => Action::Done(Ok(())),
                ShardAction::Fail(error) => Action::Done(Err(error)),
            },
            Exchange::Floor(run) => run.poll()?,
        })
    }
}

// === impl Exchange ===

impl Exchange {
    /// Choices that the coordinator computes itself: those of free experts, where it is home.
    pub(crate) fn own_choices(&self) -> Vec<OwnChoice> {
        match self {
            Self::Star(run) => run.plan().own.clone(),
            Self::AllToAll(_) | Self::Floor(_) => Vec::new(),
        }
    }

    fn deadline_ns(&self) -> u64 {
        match self {
            Self::Star(run) => run.deadline_ns(),
            Self::AllToAll(run) => run.deadline_ns(),
            Self::Floor(run) => run.deadline_ns(),
        }
    }

    fn on_lost(&mut self, endpoint: u32, cause: &LossCause) {
        match self {
            Self::Star(run) => run.on_host_lost(endpoint, cause.clone()),
            Self::AllToAll(run) => run.on_home_lost(endpoint, cause.clone()),
            Self::Floor(run) => run.fail(endpoint, cause.clone()),
        }
    }

    fn on_error(&mut self, from: u32, error: RemoteError) {
        match self {
            Self::Star(run) => run.on_host_lost(from, LossCause::Reported(error)),
            Self::AllToAll(run) => run.on_shard_failed(from, error),
            Self::Floor(run) => run.fail(from, LossCause::Reported(error)),
        }
    }

    fn on_tick(&mut self, now_ns: u64) {
        match self {
            Self::Star(run) => run.on_tick(now_ns),
            Self::AllToAll(run) => run.on_tick(now_ns),
            Self::Floor(run) => run.on_tick(now_ns),
        }
    }
}

impl FloorRun {
    fn poll(&mut self) -> Option<Action> {
        if let Some((endpoint, message)) = self.next_message() {
            return Some(Action::Send { endpoint, message });
        }
        self.outcome().map(Action::Done)
    }
}
