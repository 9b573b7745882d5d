//! Being home to a shard: `all-to-all` and `hierarchical` on the worker's side.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use expertmesh_exchange::{
    Beside, COORDINATOR, HomeRun, HomeSetup, LossCause, Outgoing, RowSource, ShardFrame, ShardPlan,
    StepError, error_frame, home_deadline_ns, write_combined,
};
use expertmesh_experts::pieces::{ADDS_PER_NS, INLINE_NS};
use expertmesh_experts::{HomeRows, decode_rows, for_each_row_block};
use expertmesh_telemetry::spans;
use expertmesh_transport::{Outbox, monotonic_ns};
use expertmesh_wire::{
    ErrorCode, FrameKind, FrameView, Header, RemoteError, Tag, Times, WireError,
};
use tracing::{debug, debug_span};

use crate::compute::guarded;
use crate::session::{Session, ToSelf, field};

/// A shard under way.
#[derive(Debug)]
pub(crate) struct HomeSlot {
    pub(crate) run: HomeRun,
    shard: Arc<ShardFrame>,
    request: Header,
    received_ns: u64,
    outbox: Outbox,
    results_are_in: bool,
    own: OwnPart,
}

/// What this home computes itself.
#[derive(Debug)]
enum OwnPart {
    None,
    Running,
    Done { rows: HomeRows, took_ns: u64 },
    Failed(RemoteError),
}

// === impl Session ===

impl Session {
    /// A shard arrived: this worker is home to its tokens.
    pub(crate) fn on_shard(
        self: &Arc<Self>,
        from: u32,
        frame: FrameView,
        outbox: &Outbox,
        received_ns: u64,
    ) -> Result<(), WireError> {
        let request = frame.header;
        if from != COORDINATOR {
            return Err(field(
                "kind",
                "SHARD from a peer",
                "shards from the coordinator alone",
            ));
        }
        let layer = &self.layer;
        let shard = ShardFrame::read(frame, layer.hidden, &layer.table)?;
        let plan = ShardPlan::new(layer.me, shard.kept(), &layer.table, layer.limits);
        let step = request.tag.step;
        let run = HomeRun::new(
            plan,
            HomeSetup {
                tag: Tag {
                    shard: layer.me,
                    ..request.tag
                },
                hidden: layer.hidden,
                rule: layer.rule,
                credits: layer.credits,
                on_loss: layer.on_loss,
                started_ns: received_ns,
                deadline_ns: home_deadline_ns(received_ns, request.budget_ns),
                names: Arc::clone(&layer.names),
                extents: shard.extents.clone(),
            },
        );
        let shard = Arc::new(shard);
        let own = if layer.home.is_empty() {
            OwnPart::None
        } else {
            OwnPart::Running
        };
        let slot = HomeSlot {
            run,
            shard: Arc::clone(&shard),
            request,
            received_ns,
            outbox: outbox.clone(),
            results_are_in: false,
            own,
        };
        let deadline_ns = slot.run.deadline_ns();
        match self.state().homes.entry(step) {
            Entry::Occupied(_) => {
                return Err(field(
                    "step",
                    step,
                    "a step that this home does not have yet",
                ));
            }
            Entry::Vacant(free) => free.insert(slot),
        };
        self.watchdog.arm(deadline_ns);
        self.pump_home(step);
        self.start_own(step, &shard);
        Ok(())
    }

    /// Results from a peer, or from this worker's own experts.
    pub(crate) fn on_results(self: &Arc<Self>, from: u32, frame: FrameView, now_ns: u64) {
        let step = frame.header.tag.step;
        {
            let mut guard = self.state();
            let state = &mut *guard;
            let Some(slot) = state.homes.get_mut(&step) else {
                debug!(from, step, "results that nobody awaits");
                return;
            };
            let Some(clock) = state.clocks.get_mut(from as usize) else {
                return;
            };
            slot.run.on_results(from, frame, clock, now_ns);
        }
        self.pump_home(step);
    }

    /// A peer refused a chunk, or could not pass one on.
    pub(crate) fn on_peer_error(self: &Arc<Self>, from: u32, step: u64, error: RemoteError) {
        if let Some(slot) = self.state().homes.get_mut(&step) {
            slot.run.on_error(from, error);
        }
        self.pump_home(step);
    }

    /// Ends homes whose deadline has passed and waits that have lasted; returns the next such moment.
    pub(crate) fn on_tick(self: &Arc<Self>) -> Option<u64> {
        let now = monotonic_ns();
        let late: Vec<u64> = {
            let mut state = self.state();
            let late = state
                .homes
                .iter_mut()
                .filter(|(_, slot)| slot.run.deadline_ns() <= now);
            late.map(|(step, slot)| {
                slot.run.on_tick(now);
                *step
            })
            .collect()
        };
        self.pump_homes(&late);
        let host = self.tick_host(now);
        let state = self.state();
        // A home whose results are in and that waits for its shared expert meets no deadline.
        let open = state.homes.values().filter(|slot| !slot.results_are_in);
        let homes = open.map(|slot| slot.run.deadline_ns()).min();
        host.into_iter().chain(homes).min()
    }

    pub(crate) fn pump_homes(self: &Arc<Self>, steps: &[u64]) {
        for step in steps {
            self.pump_home(*step);
        }
    }

    /// Carries out what the home machine of `step` asks for.
    fn pump_home(self: &Arc<Self>, step: u64) {
        let mut local: Vec<Bytes> = Vec::new();
        let mut ended = None;
        {
            let mut state = self.state();
            let Some(slot) = state.homes.get_mut(&step) else {
                return;
            };
            while let Some(action) = slot.run.poll(
                RowSource::Encoded(&slot.shard.frame.rows),
                &self.pool,
                monotonic_ns,
            ) {
                match action {
                    Outgoing::Send { endpoint, message } if endpoint == self.layer.me => {
                        local.push(message);
                    }
                    Outgoing::Send { endpoint, message } => {
                        if !self.send_to_peer(endpoint, message) {
                            let cause = LossCause::Disconnected("stream is closed".to_owned());
                            slot.run.on_host_lost(endpoint, cause);
                        }
                    }
                    Outgoing::Combine => slot.results_are_in = true,
                    Outgoing::Fail(error) => ended = Some(Err(error)),
                }
            }
            if let OwnPart::Failed(error) = &slot.own {
                ended = Some(Err(StepError::Lost {
                    step,
                    endpoint: self.layer.me,
                    name: self.layer.names[self.layer.me as usize].clone(),
                    cause: LossCause::Reported(error.clone()),
                }));
            } else if ended.is_none() && slot.is_ready() {
                ended = Some(Ok(()));
            }
            // The slot is taken out by whoever ends it, so that it ends once.
            if let Some(outcome) = ended {
                if let Some(slot) = state.homes.remove(&step) {
                    drop(state);
                    self.end(slot, outcome);
                }
                return;
            }
        }
        // Peers' rows are on their way; now this worker's own experts.
        for message in local {
            self.to_self(ToSelf::Rows { step, message });
        }
    }

    pub(crate) fn send_to_peer(&self, endpoint: u32, message: Bytes) -> bool {
        let peers = self.peers.get();
        let peer = peers
            .and_then(|peers| peers.get(endpoint as usize))
            .and_then(Option::as_ref);
        peer.is_some_and(|stream| stream.outbox().send(message).is_ok())
    }

    fn end(self: &Arc<Self>, slot: HomeSlot, outcome: Result<(), StepError>) {
        if let Err(error) = outcome {
            let frame = error_frame(&self.pool, &slot.request, &error.to_remote());
            self.send(&slot.outbox, frame);
            return;
        }
        let plan = slot.run.plan();
        let adds = (plan.choices() as u64 + 1) * u64::from(self.layer.hidden);
        let session = Arc::clone(self);
        self.compute
            .run(adds / ADDS_PER_NS, move || session.combine(&slot));
    }

    /// Adds the results up and sends the shard back.
    fn combine(self: &Arc<Self>, slot: &HomeSlot) {
        let _entered = debug_span!(spans::COMBINE, step = slot.request.tag.step).entered();
        let hidden = self.layer.hidden as usize;
        let tokens = slot.run.plan().tokens;
        let mut out = vec![0.0; tokens * hidden];
        let (beside, own_ns) = match &slot.own {
            OwnPart::Done { rows, took_ns } => (
                Beside {
                    shared: rows.shared.as_deref(),
                    own: &rows.own,
                },
                *took_ns,
            ),
            _ => (Beside::default(), 0),
        };
        for_each_row_block(&mut out, hidden, |first, rows| {
            let count = rows.len() / hidden.max(1);
            slot.run.combine(first..first + count, rows, beside);
        });
        let mut header = Header::new(
            FrameKind::Combined,
            slot.request.tag,
            self.layer.hidden,
            self.layer.rule.dtype,
        );
        header.row_count = slot.request.row_count;
        let lost = slot.run.lost();
        self.chunks.keep(slot.request.tag.step, &slot.run);
        let done_ns = monotonic_ns();
        let timeline = slot.run.timeline(done_ns, own_ns);
        header.times = Times {
            received_ns: slot.received_ns,
            ..Times::default()
        };
        let message = write_combined(&self.pool, header, &out, &timeline, &lost, monotonic_ns);
        self.send(&slot.outbox, message);
    }

    /// Computes what is this home's to compute, beside the exchange.
    fn start_own(self: &Arc<Self>, step: u64, shard: &Arc<ShardFrame>) {
        if self.layer.home.is_empty() {
            return;
        }
        let session = Arc::clone(self);
        let shard = Arc::clone(shard);
        let choices = match self.state().homes.get(&step) {
            Some(slot) => slot.run.plan().own.clone(),
            // It has ended already.
            None => return,
        };
        // Always on the pool: the IO thread is about to be asked for results.
        self.compute.run(INLINE_NS + 1, move || {
            let _entered = debug_span!(spans::SHARED, step).entered();
            let started = monotonic_ns();
            let hidden = session.layer.hidden as usize;
            let format = shard.frame.header.format;
            let x = decode_rows(&shard.frame.rows, hidden, format);
            let own = choices.iter().map(|own| (own.token, own.expert));
            let outcome = guarded(|| session.layer.home.run(&x, hidden, format, own));
            let took_ns = monotonic_ns() - started;
            {
                let mut state = session.state();
                let Some(slot) = state.homes.get_mut(&step) else {
                    return;
                };
                slot.own = match outcome {
                    Ok(rows) => OwnPart::Done { rows, took_ns },
                    Err(reason) => {
                        let reason = format!("shared expert failed: {reason}");
                        let error = RemoteError::new(ErrorCode::Internal, reason);
                        OwnPart::Failed(error.about(session.layer.me))
                    }
                };
            }
            session.pump_home(step);
        });
    }
}

// === impl HomeSlot ===

impl HomeSlot {
    fn is_ready(&self) -> bool {
        self.results_are_in && !matches!(self.own, OwnPart::Running)
    }
}
