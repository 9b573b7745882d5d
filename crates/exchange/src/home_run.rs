//! A [`Home`] with the bytes beside it: packs rows, checks results, adds them up.

mod pack;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use expertmesh_wire::{BufferPool, FrameView, Header, RemoteError, Tag, encoded_len};

pub use pack::RowSource;

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
        /// Endpoint id of the host, or of the relay.
        endpoint: u32,
        /// An encoded `ROWS` frame, or a `RELAY` frame.
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
            HomeAction::Relay { bundle } => Outgoing::Send {
                endpoint: self.plan.bundles()[bundle].relay,
                message: self.pack_bundle(bundle, rows, pool, &now_ns),
            },
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

    /// `from` answered with an error, which may be about a host to which it could not pass rows on.
    pub fn on_error(&mut self, from: u32, error: RemoteError) {
        let about = error.endpoint.unwrap_or(from);
        let endpoint = match self.home.relays(from, about) {
            true => about,
            false => from,
        };
        self.home.on_host_lost(endpoint, LossCause::Reported(error));
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
