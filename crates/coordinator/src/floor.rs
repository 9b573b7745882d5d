//! The floor: messages of the sizes and in the pattern of a step, answered without its work.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use expertmesh_exchange::{COORDINATOR, LossCause, StepError, TrafficLedger};
use expertmesh_transport::monotonic_ns;
use expertmesh_wire::{FrameKind, FrameWriter, Header, Tag, rows_len_for};
use ndarray::ArcArray2;

use crate::connect::Coordinator;
use crate::engine::Exchange;
use crate::error::CoordinatorError;

/// One round of the floor.
#[derive(Debug)]
pub(crate) struct FloorRun {
    step: u64,
    names: Arc<[String]>,
    outgoing: VecDeque<(u32, Bytes)>,
    awaited: Vec<u32>,
    started_ns: u64,
    deadline_ns: u64,
    ended: Option<Result<(), StepError>>,
    told: bool,
    /// When the last reply had arrived.
    pub(crate) last_ns: u64,
}

// === impl Coordinator ===

impl Coordinator {
    /// Sends the messages that `ledger` counts, pair by pair and in its pattern, to workers that
    /// answer with bytes alone, and returns the time from the first hand-over to the last
    /// arrival, nanoseconds.
    ///
    /// Each pair's bytes go as one message. Where workers are homes, one asks its peers before it
    /// answers the coordinator. In `hierarchical` both legs of relayed rows are under way at once, and
    /// who was sent rows by a relay alone is asked for its answer by an empty message.
    ///
    /// # Errors
    /// [`CoordinatorError::Step`] if a worker is lost or late.
    pub async fn floor(&self, ledger: &TrafficLedger) -> Result<u64, CoordinatorError> {
        let step = self.next_step.fetch_add(1, Ordering::Relaxed);
        let messages = self.floor_messages(step, ledger);
        let empty = ArcArray2::from_shape_fn((0, 0), |_| 0.0);
        let started = monotonic_ns();
        let budget = u64::try_from(self.config.deadline.as_nanos()).unwrap_or(u64::MAX);
        let run = FloorRun {
            step,
            names: Arc::clone(&self.engine.names),
            awaited: messages.iter().map(|(endpoint, _)| *endpoint).collect(),
            outgoing: messages,
            started_ns: started,
            deadline_ns: started.saturating_add(budget),
            ended: None,
            told: false,
            last_ns: started,
        };
        let ended = self.engine.begin(step, Exchange::Floor(run), empty);
        while self.engine.pump_one(step) {
            tokio::task::yield_now().await;
        }
        let outcome = ended.await;
        let run = self.engine.finish(step);
        outcome.map_err(|error| CoordinatorError::Internal(error.to_string()))??;
        match run {
            Some(Exchange::Floor(run)) => Ok(run.last_ns - started),
            _ => Err(CoordinatorError::Internal(
                "floor round without its run".into(),
            )),
        }
    }

    fn floor_messages(&self, step: u64, ledger: &TrafficLedger) -> VecDeque<(u32, Bytes)> {
        let spec = self.config.source.spec();
        let hidden = u32::try_from(spec.row_width()).unwrap_or(u32::MAX);
        let workers = 1..u32::try_from(ledger.endpoints()).unwrap_or(u32::MAX);
        workers
            .clone()
            .filter(|worker| ledger.cell(COORDINATOR, *worker).messages > 0)
            .map(|worker| {
                let tag = Tag {
                    session: self.session,
                    step,
                    shard: worker,
                    ..Tag::default()
                };
                let mut header = Header::new(FrameKind::Floor, tag, hidden, self.config.wire_dtype);
                header.extent = narrow(ledger.answered(worker, COORDINATOR));
                let peers: Vec<u32> = workers
                    .clone()
                    .filter(|peer| {
                        let answers = ledger.answered(*peer, worker) > 0;
                        answers || ledger.requested(worker, *peer) > 0
                    })
                    .flat_map(|peer| {
                        let out = narrow(ledger.requested(worker, peer));
                        [peer, out, narrow(ledger.answered(peer, worker))]
                    })
                    .collect();
                let total = ledger.cell(COORDINATOR, worker).bytes;
                let total = usize::try_from(total).unwrap_or(usize::MAX);
                let rows = rows_len_for(total, peers.len());
                let mut writer = FrameWriter::new(&self.engine.pool, &header, peers.len(), rows);
                let (index, _) = writer.parts();
                for (word, value) in index.chunks_exact_mut(4).zip(&peers) {
                    word.copy_from_slice(&value.to_le_bytes());
                }
                (worker, writer.finish())
            })
            .collect()
    }
}

fn narrow(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

// === impl FloorRun ===

impl FloorRun {
    pub(crate) fn next_message(&mut self) -> Option<(u32, Bytes)> {
        self.outgoing.pop_front()
    }

    pub(crate) fn outcome(&mut self) -> Option<Result<(), StepError>> {
        if self.awaited.is_empty() && self.ended.is_none() {
            self.ended = Some(Ok(()));
        }
        if self.told || self.ended.is_none() {
            return None;
        }
        self.told = true;
        self.ended.clone()
    }

    pub(crate) fn on_reply(&mut self, from: u32, now_ns: u64) {
        self.awaited.retain(|endpoint| *endpoint != from);
        self.last_ns = now_ns;
    }

    pub(crate) fn fail(&mut self, endpoint: u32, cause: LossCause) {
        let name = self
            .names
            .get(endpoint as usize)
            .cloned()
            .unwrap_or_default();
        self.outgoing.clear();
        self.ended = Some(Err(StepError::Lost {
            step: self.step,
            endpoint,
            name,
            cause,
        }));
    }

    pub(crate) fn on_tick(&mut self, now_ns: u64) {
        if let (true, Some(late)) = (now_ns >= self.deadline_ns, self.awaited.first().copied()) {
            let waited_ms = (now_ns - self.started_ns) / 1_000_000;
            self.fail(late, LossCause::Deadline { waited_ms });
        }
    }

    pub(crate) fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }
}
