//! The coordinator's side of `all-to-all` and `hierarchical`: shards out, combined outputs back.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use expertmesh_exchange::{
    CombineRule, CombinedFrame, Conductor, ConductorAction, KeptChoices, LossCause, OnLoss,
    ShardPlan, StepError, write_shard,
};
use expertmesh_transport::monotonic_ns;
use expertmesh_wire::{BufferPool, FrameKind, FrameView, Header, RemoteError, Tag};

/// One shard of a step.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) tokens: Range<usize>,
    pub(crate) kept: KeptChoices,
    pub(crate) plan: ShardPlan,
    pub(crate) packed_ns: u64,
    /// The outputs, once they are back, and when they came.
    pub(crate) combined: Option<(CombinedFrame, u64)>,
}

/// All shards of a step.
#[derive(Debug)]
pub(crate) struct ShardsRun {
    conductor: Conductor,
    pub(crate) shards: Vec<Shard>,
    tag: Tag,
    hidden: u32,
    rule: CombineRule,
    deadline_ns: u64,
    /// Chunks that all homes together send to each host at first, by endpoint id.
    extents: Vec<u32>,
}

/// What a driver must do next.
#[derive(Debug)]
pub(crate) enum ShardAction {
    Send { endpoint: u32, message: Bytes },
    Finish,
    Fail(StepError),
}

/// What is fixed for a step's shards.
pub(crate) struct ShardsSetup {
    pub(crate) tag: Tag,
    pub(crate) hidden: u32,
    pub(crate) rule: CombineRule,
    pub(crate) started_ns: u64,
    pub(crate) deadline_ns: u64,
    pub(crate) on_loss: OnLoss,
    pub(crate) names: Arc<[String]>,
    pub(crate) extents: Vec<u32>,
}

// === impl ShardsRun ===

impl ShardsRun {
    pub(crate) fn new(shards: Vec<Shard>, setup: ShardsSetup) -> Self {
        let homes: Vec<u32> = shards.iter().map(|shard| shard.plan.home).collect();
        let conductor = Conductor::new(
            setup.tag.step,
            &homes,
            &setup.names,
            setup.started_ns,
            setup.deadline_ns,
            setup.on_loss,
        );
        Self {
            conductor,
            shards,
            tag: setup.tag,
            hidden: setup.hidden,
            rule: setup.rule,
            deadline_ns: setup.deadline_ns,
            extents: setup.extents,
        }
    }

    /// The next thing to do; `rows` are all tokens of the step.
    pub(crate) fn poll(&mut self, rows: &[f32], pool: &BufferPool) -> Option<ShardAction> {
        Some(match self.conductor.poll()? {
            ConductorAction::SendShard { shard } => self.pack(shard, rows, pool),
            ConductorAction::Finish => ShardAction::Finish,
            ConductorAction::Fail(error) => ShardAction::Fail(error),
        })
    }

    pub(crate) fn on_combined(&mut self, home: u32, frame: FrameView, now_ns: u64) {
        let Some(at) = self.conductor.awaited(home) else {
            return;
        };
        let shard = &mut self.shards[at];
        let (tokens, choices) = (shard.tokens.len(), shard.plan.choices());
        match CombinedFrame::read(frame, tokens, choices, self.hidden, self.rule.dtype) {
            Ok(combined) => {
                // Read before the lock was taken, `now_ns` may be older than the sending.
                shard.combined = Some((combined, now_ns.max(shard.packed_ns)));
                self.conductor.on_combined(at);
            }
            Err(error) => {
                let error = RemoteError::from(error).about(home);
                self.conductor.on_shard_failed(home, error);
            }
        }
    }

    pub(crate) fn on_shard_failed(&mut self, home: u32, error: RemoteError) {
        self.conductor.on_shard_failed(home, error);
    }

    pub(crate) fn on_home_lost(&mut self, home: u32, cause: LossCause) {
        self.conductor.on_home_lost(home, cause);
    }

    pub(crate) fn on_tick(&mut self, now_ns: u64) {
        self.conductor.on_tick(now_ns);
    }

    pub(crate) fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Positions in the route of every choice that was lost: those of lost shards, and those that
    /// homes reported.
    pub(crate) fn lost_origins(&self) -> Vec<u32> {
        let mut lost = Vec::new();
        for shard in &self.shards {
            match &shard.combined {
                None => lost.extend(&shard.kept.origin),
                Some((combined, _)) => {
                    lost.extend(
                        combined
                            .lost
                            .iter()
                            .map(|at| shard.kept.origin[*at as usize]),
                    );
                }
            }
        }
        lost
    }

    /// Homes that did not answer in time.
    pub(crate) fn late(&self) -> impl Iterator<Item = (u32, LossCause)> + '_ {
        self.conductor.late()
    }

    fn pack(&mut self, at: usize, rows: &[f32], pool: &BufferPool) -> ShardAction {
        let shard = &mut self.shards[at];
        let endpoint = shard.plan.home;
        let tag = Tag {
            shard: endpoint,
            ..self.tag
        };
        let header = Header::new(FrameKind::Shard, tag, self.hidden, self.rule.row_format);
        let hidden = self.hidden as usize;
        let rows = &rows[shard.tokens.start * hidden..shard.tokens.end * hidden];
        let mut packed_ns = 0;
        let deadline_ns = self.deadline_ns;
        let message = write_shard(
            pool,
            header,
            rows,
            shard.kept.as_kept(),
            &self.extents,
            || {
                packed_ns = monotonic_ns();
                (packed_ns, deadline_ns.saturating_sub(packed_ns))
            },
        );
        shard.packed_ns = packed_ns;
        ShardAction::Send { endpoint, message }
    }
}
