//! A [`Home`] with the bytes beside it: packs rows, checks results, adds them up.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use expertmesh_kernels::{Format, decode_row, encode_row};
use expertmesh_wire::{BufferPool, FrameKind, FrameView, FrameWriter, Header, Tag, encoded_len};

use crate::OnLoss;
use crate::clock::ClockMap;
use crate::combine::CombineRule;
use crate::error::{LossCause, StepError};
use crate::home::{Home, HomeAction};
use crate::plan::index;
use crate::shard_plan::{OWN, ShardPlan};
use crate::timeline::{ChunkWay, HomeMoments, Timeline};

/// What a [`HomeRun`] is told at its start.
#[derive(Debug, Clone)]
pub struct HomeSetup {
    /// Session, epoch, step, layer and shard of every frame.
    pub tag: Tag,
    /// Elements of a row.
    pub hidden: u32,
    /// How results are added up; its row format is that of the rows sent.
    pub rule: CombineRule,
    /// Chunks under way at a host.
    pub credits: usize,
    /// What a lost host means.
    pub on_loss: OnLoss,
    /// Now, nanoseconds of the local clock.
    pub started_ns: u64,
    /// When to stop waiting, on the same clock.
    pub deadline_ns: u64,
    /// Names of the endpoints by id.
    pub names: Arc<[String]>,
    /// Chunks that all homes together send to each host in this step before they wait for results,
    /// by endpoint id; empty if this home is the only one.
    pub extents: Vec<u32>,
}

/// The shard's token rows.
#[derive(Debug, Clone, Copy)]
pub enum RowSource<'a> {
    /// `[tokens, hidden]`, encoded when packed.
    F32(&'a [f32]),
    /// `[tokens]` rows in the wire's format already.
    Encoded(&'a [u8]),
}

/// What a home computes itself, beside the exchange.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'a> {
    /// `[tokens, hidden]` of the shared expert, where there is one.
    pub shared: Option<&'a [f32]>,
    /// Result rows of [`ShardPlan::own`], in the wire's format.
    pub own: &'a [u8],
}

/// What the driver of a [`HomeRun`] must do.
#[derive(Debug)]
pub enum Outgoing {
    /// Hand `message` to the stream of `endpoint`, which may be the home itself.
    Send {
        /// Endpoint id of the host.
        endpoint: u32,
        /// An encoded `ROWS` frame.
        message: Bytes,
    },
    /// Call [`HomeRun::combine`] for all tokens.
    Combine,
    /// End the step.
    Fail(StepError),
}

/// One home's exchange of one step.
#[derive(Debug)]
pub struct HomeRun {
    home: Home,
    plan: ShardPlan,
    setup: HomeSetup,
    /// `[chunks]` of the plan, as the next.
    results: Vec<Option<FrameView>>,
    ways: Vec<ChunkWay>,
    moments: HomeMoments,
}

// === impl RowSource ===

impl RowSource<'_> {
    /// Copies or encodes the rows of `tokens` into `slots`.
    fn pack<'a>(
        self,
        format: Format,
        hidden: usize,
        tokens: &[u32],
        slots: impl Iterator<Item = &'a mut [u8]>,
    ) {
        let row_bytes = hidden * format.bytes();
        for (slot, token) in slots.zip(tokens) {
            let token = *token as usize;
            match self {
                Self::F32(x) => {
                    encode_row(format, &x[token * hidden..(token + 1) * hidden], slot);
                }
                Self::Encoded(x) => {
                    slot.copy_from_slice(&x[token * row_bytes..(token + 1) * row_bytes]);
                }
            }
        }
    }

    /// The row `[hidden]` of `token`, decoded.
    fn read(self, format: Format, token: usize, row: &mut [f32]) {
        let hidden = row.len();
        match self {
            Self::F32(x) => {
                row.copy_from_slice(&x[token * hidden..(token + 1) * hidden]);
                // As a row that has passed the wire: other homes have no other.
                if format != Format::F32 {
                    let mut bytes = vec![0; hidden * format.bytes()];
                    encode_row(format, row, &mut bytes);
                    decode_row(format, &bytes, row);
                }
            }
            Self::Encoded(x) => {
                let row_bytes = hidden * format.bytes();
                decode_row(format, &x[token * row_bytes..(token + 1) * row_bytes], row);
            }
        }
    }
}

// === impl HomeRun ===

impl HomeRun {
    /// Starts the exchange of `plan`.
    pub fn new(plan: ShardPlan, setup: HomeSetup) -> Self {
        let home = Home::new(
            setup.tag.step,
            &plan,
            &setup.names,
            setup.credits,
            setup.started_ns,
            setup.deadline_ns,
            setup.on_loss,
        );
        Self {
            home,
            results: vec![None; plan.chunks()],
            ways: vec![ChunkWay::default(); plan.chunks()],
            moments: HomeMoments::new(setup.started_ns, plan.hosts.len(), plan.chunks()),
            plan,
            setup,
        }
    }

    /// The next thing to do, packed; `None` until another event. `now_ns` reads the local clock.
    pub fn poll(
        &mut self,
        rows: RowSource<'_>,
        pool: &BufferPool,
        now_ns: impl Fn() -> u64,
    ) -> Option<Outgoing> {
        Some(match self.home.poll()? {
            HomeAction::Send { host, chunk } => {
                let message = self.pack(host, chunk, rows, pool, &now_ns);
                Outgoing::Send {
                    endpoint: self.plan.hosts[host].endpoint,
                    message,
                }
            }
            HomeAction::Combine => Outgoing::Combine,
            HomeAction::Fail(error) => Outgoing::Fail(error),
        })
    }

    /// A `RESULTS` frame of this step arrived from `endpoint` at `now_ns`.
    ///
    /// A frame that the plan contradicts ends the step; one that nobody awaits is ignored.
    pub fn on_results(
        &mut self,
        endpoint: u32,
        frame: FrameView,
        clock: &mut ClockMap,
        now_ns: u64,
    ) {
        let Some(host) = self.plan.host_index(endpoint) else {
            return;
        };
        let header = frame.header;
        let chunk = header.tag.chunk as usize;
        if let Err(reason) = self.check(host, &header) {
            let name = self.home.host_name(host);
            let step = self.setup.tag.step;
            self.home.fail(StepError::BadFrame {
                step,
                endpoint,
                name,
                reason,
            });
            return;
        }
        if !self.home.on_results(host, chunk) {
            return;
        }
        let at = self.plan.hosts[host].chunks.start + chunk;
        let host = (host, endpoint);
        let times = header.times;
        let there = self.moments.answered(host, at, times, clock, now_ns);
        let way = &mut self.ways[at];
        way.result_bytes = encoded_len(frame.index.len() / 4, frame.rows.len()) as u64;
        (way.received, way.started, way.computed) = (there.received, there.started, there.computed);
        (way.left, way.arrived) = (there.left, there.arrived);
        self.results[at] = Some(frame);
    }

    /// A host is gone or refused.
    pub fn on_host_lost(&mut self, endpoint: u32, cause: LossCause) {
        self.home.on_host_lost(endpoint, cause);
    }

    /// Time passed.
    pub fn on_tick(&mut self, now_ns: u64) {
        self.home.on_tick(now_ns);
    }

    /// When [`HomeRun::on_tick`] has something to say, nanoseconds of the local clock.
    pub fn deadline_ns(&self) -> u64 {
        self.home.deadline_ns()
    }

    /// Adds up the outputs of `tokens` into `out` `[tokens, hidden]`, in slot order. `beside` is
    /// of all of the shard's tokens. Lost choices add nothing.
    pub fn combine(&self, tokens: Range<usize>, out: &mut [f32], beside: Beside<'_>) {
        let hidden = self.setup.hidden as usize;
        for (at, token) in tokens.enumerate() {
            let row = &mut out[at * hidden..(at + 1) * hidden];
            self.setup.rule.sum(self.results_of(token, beside.own), row);
            let shared = beside.shared;
            let shared = shared.map(|all| &all[token * hidden..(token + 1) * hidden]);
            self.setup.rule.finish(row, shared);
        }
    }

    /// Weights and result rows of a token's kept choices that came back, in slot order.
    fn results_of<'a>(
        &'a self,
        token: usize,
        own: &'a [u8],
    ) -> impl Iterator<Item = (f32, &'a [u8])> {
        let choices = self.plan.offsets[token] as usize..self.plan.offsets[token + 1] as usize;
        let row_bytes = self.setup.hidden as usize * self.setup.rule.row_format.bytes();
        choices.filter_map(move |choice| {
            let from = self.plan.results[choice];
            if from.chunk == OWN {
                let first = from.row as usize * row_bytes;
                return Some((self.plan.weights[choice], &own[first..first + row_bytes]));
            }
            let frame = self.results[from.chunk as usize].as_ref()?;
            Some((self.plan.weights[choice], frame.row(from.row as usize)))
        })
    }

    /// Kept choices whose results were lost, ascending.
    pub fn lost(&self) -> Vec<u32> {
        let answered = |chunk: usize| self.results[chunk].is_some();
        self.plan.unanswered(answered)
    }

    /// Endpoints that did not answer in time.
    pub fn late(&self) -> impl Iterator<Item = (u32, LossCause)> + '_ {
        self.home.late()
    }

    /// Where the time went, once the outputs were there at `done_ns`; `shared_ns` was spent in
    /// shared experts.
    pub fn timeline(&self, done_ns: u64, shared_ns: u64) -> Timeline {
        self.moments.timeline(done_ns, shared_ns)
    }

    /// The ways of the chunks whose results came back, host after host, on the local clock.
    pub fn ways(&self) -> impl Iterator<Item = ChunkWay> + '_ {
        let back = self.ways.iter().zip(&self.results);
        back.filter_map(|(way, result)| result.as_ref().map(|_| *way))
    }

    /// The plan that this exchange follows.
    pub fn plan(&self) -> &ShardPlan {
        &self.plan
    }

    fn pack(
        &mut self,
        host: usize,
        chunk: usize,
        rows: RowSource<'_>,
        pool: &BufferPool,
        now_ns: &impl Fn() -> u64,
    ) -> Bytes {
        let began = now_ns();
        let plan = self.plan.host(host);
        let piece = &plan.chunks[chunk];
        let alone = plan.first_chunks(self.setup.credits);
        let extent = self
            .setup
            .extents
            .get(plan.endpoint as usize)
            .copied()
            .unwrap_or(alone);
        let mut header = self.header(index(chunk), extent);
        header.row_count = index(piece.rows.len());
        let row_bytes = header.row_bytes();
        let words = piece.rows.len() + piece.choices.len();
        let mut writer = FrameWriter::new(pool, &header, words, piece.rows.len() * row_bytes);
        let (table, body) = writer.parts();
        let (counts, experts) = table.split_at_mut(piece.rows.len() * 4);
        for (word, row) in counts.chunks_exact_mut(4).zip(piece.rows.clone()) {
            let count = plan.offsets[row + 1] - plan.offsets[row];
            word.copy_from_slice(&count.to_le_bytes());
        }
        for (word, expert) in experts
            .chunks_exact_mut(4)
            .zip(&plan.experts[piece.choices.clone()])
        {
            word.copy_from_slice(&expert.to_le_bytes());
        }
        let slots = body.chunks_exact_mut(row_bytes.max(1));
        let tokens = &plan.tokens[piece.rows.clone()];
        if self.setup.rule.weight_on_input {
            // Every choice has a row of its own.
            let weights = plan.kept[piece.choices.clone()].iter();
            let weights = weights.map(|kept| self.plan.weights[*kept as usize]);
            self.pack_weighted(rows, tokens, weights, slots);
        } else {
            rows.pack(header.format, self.setup.hidden as usize, tokens, slots);
        }
        let now = now_ns();
        let at = self.plan.hosts[host].chunks.start + chunk;
        self.moments.packed(at, now);
        self.ways[at] = ChunkWay {
            endpoint: plan.endpoint,
            began,
            packed: now,
            request_bytes: encoded_len(words, piece.rows.len() * row_bytes) as u64,
            ..ChunkWay::default()
        };
        header.times.sent_ns = now;
        header.budget_ns = self.setup.deadline_ns.saturating_sub(now);
        writer.set_header(&header);
        writer.finish()
    }

    /// Rows multiplied by the weights of the choices that they are for.
    fn pack_weighted<'a>(
        &self,
        rows: RowSource<'_>,
        tokens: &[u32],
        weights: impl Iterator<Item = f32>,
        slots: impl Iterator<Item = &'a mut [u8]>,
    ) {
        let (rule, hidden) = (self.setup.rule, self.setup.hidden as usize);
        let mut row = vec![0.0; hidden];
        for ((slot, token), weight) in slots.zip(tokens).zip(weights) {
            rows.read(rule.row_format, *token as usize, &mut row);
            rule.weigh_input(weight, &mut row);
            encode_row(rule.row_format, &row, slot);
        }
    }

    fn header(&self, chunk: u32, extent: u32) -> Header {
        let tag = Tag {
            chunk,
            ..self.setup.tag
        };
        let mut header = Header::new(
            FrameKind::Rows,
            tag,
            self.setup.hidden,
            self.setup.rule.row_format,
        );
        header.extent = extent;
        header
    }

    fn check(&self, host: usize, header: &Header) -> Result<(), String> {
        let chunks = self.plan.host(host).chunks;
        let chunk = chunks.get(header.tag.chunk as usize).ok_or_else(|| {
            format!(
                "chunk {} of a host with {} chunks",
                header.tag.chunk,
                chunks.len()
            )
        })?;
        let expected = index(chunk.choices.len());
        if header.row_count != expected {
            return Err(format!(
                "{} result rows, expected {expected}",
                header.row_count
            ));
        }
        if header.hidden != self.setup.hidden || header.format != self.setup.rule.row_format {
            return Err(format!(
                "rows of {} {} elements, expected {} {}",
                header.hidden, header.format, self.setup.hidden, self.setup.rule.row_format
            ));
        }
        Ok(())
    }
}
