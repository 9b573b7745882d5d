//! The machine of an endpoint that is home to tokens.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use expertmesh_kernels::prefetch_to_write;

use crate::OnLoss;
use crate::bundles::Part;
use crate::error::{LossCause, StepError, name_of};
use crate::plan::index;
use crate::shard_plan::ShardPlan;
use crate::turn;

/// What the driver of a [`Home`] must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeAction {
    /// Send chunk `chunk` to host `host` (positions in the plan).
    Send {
        /// Index in [`ShardPlan::hosts`].
        host: usize,
        /// Index in [`crate::HostPlan::chunks`].
        chunk: usize,
    },
    /// Send a bundle to its relay.
    Relay {
        /// Index in [`ShardPlan::bundles`].
        bundle: usize,
    },
    /// Every chunk is answered or lost: add the results up. Comes once, last.
    Combine,
    /// End the step. Comes once, last.
    Fail(StepError),
}

/// Sends a shard's chunks within the credits of each host and waits for their results.
///
/// Chunks of a host go out in order; hosts are served in turn, so that the first chunk of every
/// host is under way before any second one, in an order of the home's own. Where chunks travel in
/// bundles, the hosts of a group share their turn and their credits: a bundle has at most one chunk
/// for each. Chunks of a later wave wait for the results of the earlier ones. A relay that is lost
/// takes along what is behind it.
/// Knows indices only, never rows.
#[derive(Debug)]
pub struct Home {
    step: u64,
    names: Arc<[String]>,
    hosts: Vec<HostState>,
    /// Chunks of the plan; empty where each is a parcel of its own, in the same order.
    chunks: Vec<ChunkState>,
    parcels: Vec<ParcelState>,
    lanes: Vec<Lane>,
    /// The lanes in the order in which they are served.
    order: Vec<u32>,
    credits: usize,
    deadline_ns: u64,
    started_ns: u64,
    on_loss: OnLoss,
    /// Whether any parcel is of a later wave.
    has_waves: bool,
    chunks_in_plan: usize,
    /// Chunks that are neither answered nor lost.
    open: usize,
    actions: VecDeque<HomeAction>,
    ended: bool,
}

#[derive(Debug)]
struct HostState {
    endpoint: u32,
    /// Its chunks among those of the plan.
    first: u32,
    end: u32,
    /// Boxed: it is rare, and hosts are many.
    lost: Option<Box<LossCause>>,
}

/// A chunk of the plan; positions are in 32 bits, for a simulated cluster has millions.
#[derive(Debug, Clone, Copy)]
struct ChunkState {
    parcel: u32,
    /// Neither answered nor lost.
    is_open: bool,
    is_answered: bool,
}

/// A message to hosts.
#[derive(Debug)]
struct ParcelState {
    lane: u32,
    /// Position of the host that it is sent to.
    to: u32,
    /// Its chunk among those of that host, or the bundle that it is.
    what: u32,
    /// Chunks of it that are open: at most one a host.
    open: u16,
    wave: u8,
    is_bundle: bool,
    /// It is all of its lane, whose credits nobody counts then.
    is_alone: bool,
    is_sent: bool,
    /// Of a parcel that is one chunk, where no chunks are kept.
    is_answered: bool,
}

/// Parcels that share their turn and their credits.
#[derive(Debug)]
struct Lane {
    /// The next of its parcels, and the one behind its last.
    next: u32,
    end: u32,
    in_flight: u32,
}

// === impl Home ===

impl Home {
    /// A machine for `plan` that starts at `now_ns`, must end by `deadline_ns` and has at most
    /// `credits` chunks under way at a host. `names` are the endpoints' names by id.
    pub fn new(
        step: u64,
        plan: &ShardPlan,
        names: &Arc<[String]>,
        credits: usize,
        now_ns: u64,
        deadline_ns: u64,
        on_loss: OnLoss,
    ) -> Self {
        let hosts: Vec<HostState> = plan
            .hosts
            .iter()
            .map(|host| HostState {
                endpoint: host.endpoint,
                first: index(host.chunks.start),
                end: index(host.chunks.end),
                lost: None,
            })
            .collect();
        let mut home = Self {
            step,
            names: Arc::clone(names),
            chunks: Vec::new(),
            parcels: Vec::with_capacity(plan.chunks()),
            lanes: Vec::with_capacity(hosts.len()),
            order: Vec::new(),
            hosts,
            credits: credits.max(1),
            deadline_ns,
            started_ns: now_ns,
            on_loss,
            has_waves: false,
            chunks_in_plan: plan.chunks(),
            open: plan.chunks(),
            actions: VecDeque::new(),
            ended: false,
        };
        home.lay_out(plan);
        home.order = turn::order(plan.home, names.len(), home.receivers());
        home.send_more();
        home.end_if_done();
        home
    }

    /// The next thing to do, `None` until another event.
    pub fn poll(&mut self) -> Option<HomeAction> {
        self.actions.pop_front()
    }

    /// The results of a chunk arrived. `false` if they were not awaited: a duplicate, or late.
    pub fn on_results(&mut self, host: usize, chunk: usize) -> bool {
        let Some(state) = self.hosts.get(host).filter(|_| !self.ended) else {
            return false;
        };
        let chunks = state.chunks();
        let at = chunks.start + chunk;
        chunks.contains(&at) && self.on_chunk(at)
    }

    /// Asks memory for what [`Self::on_chunk`] looks at: for whoever knows it ahead.
    #[inline]
    pub fn expect_chunk(&self, chunk: usize) {
        match self.chunks.is_empty() {
            true => prefetch_to_write(&self.parcels, chunk),
            false => prefetch_to_write(&self.chunks, chunk),
        }
    }

    /// [`Self::on_results`] for a chunk by its position among those of all hosts of the plan.
    pub fn on_chunk(&mut self, chunk: usize) -> bool {
        if self.ended || chunk >= self.chunks_in_plan || !self.is_open(chunk) {
            return false;
        }
        if !self.parcels[self.parcel_of(chunk)].is_sent {
            return false;
        }
        match self.chunks.get_mut(chunk) {
            Some(state) => state.is_answered = true,
            None => self.parcels[chunk].is_answered = true,
        }
        match (self.close(chunk), self.has_waves) {
            (_, true) => self.send_more(),
            // Nobody but this lane has got a credit.
            (Some(lane), false) => while self.send_one(lane, 0) {},
            (None, false) => {}
        }
        self.end_if_done();
        true
    }

    /// A host is gone or refused: what it has not answered is lost, and what it was to pass on.
    pub fn on_host_lost(&mut self, endpoint: u32, cause: LossCause) {
        if self.ended {
            return;
        }
        let Some(host) = self.hosts.iter().position(|host| host.endpoint == endpoint) else {
            return;
        };
        let own = self.hosts[host].chunks();
        let is_behind = |at: &usize| {
            let relayed = self.parcels[self.parcel_of(*at)].to as usize == host;
            self.is_open(*at) && (own.contains(at) || relayed)
        };
        let behind: Vec<usize> = (0..self.chunks_in_plan).filter(is_behind).collect();
        if self.hosts[host].lost.is_some() || behind.is_empty() {
            return;
        }
        if self.on_loss == OnLoss::Fail {
            let name = name_of(&self.names, endpoint);
            self.fail(StepError::Lost {
                step: self.step,
                endpoint,
                name,
                cause,
            });
            return;
        }
        self.hosts[host].lost = Some(Box::new(cause));
        for at in behind {
            self.close(at);
        }
        // A wave may have waited for this host alone.
        self.send_more();
        self.end_if_done();
    }

    /// Time passed. At the deadline every host that owes results is lost, and chunks that waited
    /// for it are given up: hosts that were not asked are not at fault, nor are those behind a relay
    /// that owes its own results of a bundle.
    pub fn on_tick(&mut self, now_ns: u64) {
        if self.ended || now_ns < self.deadline_ns {
            return;
        }
        let waited_ms = (now_ns - self.started_ns) / 1_000_000;
        let cause = LossCause::Deadline { waited_ms };
        let late = self.owing();
        if self.on_loss == OnLoss::Fail {
            if let Some(host) = late.first() {
                self.on_host_lost(self.hosts[*host].endpoint, cause);
            }
            return;
        }
        for host in late {
            self.hosts[host].lost = Some(Box::new(cause.clone()));
        }
        self.open = 0;
        self.end_if_done();
    }

    /// Whether something for `host` is passed on by `relay`.
    pub fn relays(&self, relay: u32, host: u32) -> bool {
        let mut of_host = self.hosts.iter().filter(|one| one.endpoint == host);
        let chunks = of_host.next().map_or(0..0, HostState::chunks);
        let mut relays = chunks.map(|at| self.parcels[self.parcel_of(at)].to as usize);
        relay != host && relays.any(|to| self.hosts[to].endpoint == relay)
    }

    /// Ends the step with an error that no loss policy forgives.
    pub fn fail(&mut self, error: StepError) {
        if !self.ended {
            self.ended = true;
            self.actions.clear();
            self.actions.push_back(HomeAction::Fail(error));
        }
    }

    /// Whether the results of a chunk came, counted over all hosts of the plan, if the step went on.
    pub fn is_answered(&self, chunk: usize) -> bool {
        match self.chunks.get(chunk) {
            Some(state) => state.is_answered,
            None => self.parcels.get(chunk).is_some_and(|one| one.is_answered),
        }
    }

    /// Endpoints whose results were lost.
    pub fn lost(&self) -> impl Iterator<Item = u32> + '_ {
        self.hosts
            .iter()
            .filter(|host| host.lost.is_some())
            .map(|host| host.endpoint)
    }

    /// Those of [`Home::lost`] that did not answer in time, each with that cause.
    pub fn late(&self) -> impl Iterator<Item = (u32, LossCause)> + '_ {
        self.hosts
            .iter()
            .filter_map(|host| match host.lost.as_deref() {
                Some(cause @ LossCause::Deadline { .. }) => Some((host.endpoint, cause.clone())),
                _ => None,
            })
    }

    /// When [`Home::on_tick`] has something to say.
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Name of the host at a position of the plan.
    pub(crate) fn host_name(&self, host: usize) -> String {
        let host = self.hosts.get(host);
        host.map(|host| name_of(&self.names, host.endpoint))
            .unwrap_or_default()
    }

    /// The endpoint that each lane's first message is sent to.
    fn receivers(&self) -> impl Iterator<Item = u32> {
        let first = |lane: &Lane| self.parcels[lane.next as usize].to as usize;
        self.lanes
            .iter()
            .map(move |lane| self.hosts[first(lane)].endpoint)
    }

    fn lay_out(&mut self, plan: &ShardPlan) {
        let chunk = ChunkState {
            parcel: 0,
            is_open: true,
            is_answered: false,
        };
        if !plan.bundles().is_empty() {
            self.chunks.resize(plan.chunks(), chunk);
        }
        plan.each_parcel(|parcel| {
            let at = self.parcels.len();
            if parcel.lane == self.lanes.len() {
                self.lanes.push(Lane {
                    next: index(at),
                    end: index(at),
                    in_flight: 0,
                });
            }
            self.lanes[parcel.lane].end = index(at + 1);
            self.has_waves |= parcel.wave > 0;
            for part in parcel.parts {
                if let Some(chunk) = self.chunks.get_mut(plan.chunk_at(*part)) {
                    chunk.parcel = index(at);
                }
            }
            let is_to = |part: &&Part| self.hosts[part.host].endpoint == parcel.to;
            let to = parcel.parts.iter().find(is_to);
            let chunk = parcel.parts.first().map_or(0, |part| part.chunk);
            self.parcels.push(ParcelState {
                lane: index(parcel.lane),
                to: index(to.map_or(0, |part| part.host)),
                what: index(parcel.bundle.unwrap_or(chunk)),
                open: u16::try_from(parcel.parts.len()).unwrap_or(u16::MAX),
                wave: parcel.wave,
                is_bundle: parcel.bundle.is_some(),
                is_alone: false,
                is_sent: false,
                is_answered: false,
            });
        });
        for lane in self.lanes.iter().filter(|lane| lane.end - lane.next == 1) {
            self.parcels[lane.next as usize].is_alone = true;
        }
    }

    /// The parcel of a chunk.
    #[inline]
    fn parcel_of(&self, chunk: usize) -> usize {
        self.chunks
            .get(chunk)
            .map_or(chunk, |state| state.parcel as usize)
    }

    #[inline]
    fn is_open(&self, chunk: usize) -> bool {
        match self.chunks.get(chunk) {
            Some(state) => state.is_open,
            None => self.parcels[chunk].open > 0,
        }
    }

    /// A chunk is answered or lost; returns its lane if that got a credit and has a use for it.
    fn close(&mut self, chunk: usize) -> Option<usize> {
        let at = self.parcel_of(chunk);
        if let Some(state) = self.chunks.get_mut(chunk) {
            state.is_open = false;
        }
        self.open -= 1;
        let parcel = &mut self.parcels[at];
        parcel.open -= 1;
        if parcel.is_alone || parcel.open > 0 || !parcel.is_sent {
            return None;
        }
        let lane = parcel.lane as usize;
        self.lanes[lane].in_flight -= 1;
        Some(lane)
    }

    /// Hosts that are the reason why a result is missing: who was sent rows and has not answered,
    /// unless its relay has not either.
    fn owing(&self) -> Vec<usize> {
        let is_owing = |host: usize| {
            self.hosts[host].chunks().any(|chunk| {
                let at = self.parcel_of(chunk);
                let parcel = &self.parcels[at];
                let to = parcel.to as usize;
                let relay_owes = || {
                    let mut of_relay = self.hosts[to].chunks();
                    of_relay.any(|one| self.parcel_of(one) == at && self.is_open(one))
                };
                let is_late = self.is_open(chunk) && parcel.is_sent;
                is_late && (to == host || !relay_owes())
            })
        };
        (0..self.hosts.len())
            .filter(|host| is_owing(*host))
            .collect()
    }

    /// The wave that is under way: the earliest of which a result is awaited.
    fn wave(&self) -> u8 {
        let awaited = self.parcels.iter().filter(|parcel| parcel.open > 0);
        awaited.map(|parcel| parcel.wave).min().unwrap_or(0)
    }

    fn send_more(&mut self) {
        let wave = if self.has_waves { self.wave() } else { 0 };
        loop {
            let mut sent = false;
            for at in 0..self.order.len() {
                sent |= self.send_one(self.order[at] as usize, wave);
            }
            if !sent {
                return;
            }
        }
    }

    /// Sends the next message of a lane, if it has a credit and the message's wave has come.
    fn send_one(&mut self, lane: usize, wave: u8) -> bool {
        let lane = &mut self.lanes[lane];
        // What is lost already is not sent.
        let lost = |at: &u32| self.parcels[*at as usize].open == 0;
        lane.next += index((lane.next..lane.end).take_while(lost).count());
        if lane.next == lane.end || lane.in_flight as usize == self.credits {
            return false;
        }
        let parcel = &mut self.parcels[lane.next as usize];
        if parcel.wave > wave {
            return false;
        }
        self.actions.push_back(match parcel.is_bundle {
            true => HomeAction::Relay {
                bundle: parcel.what as usize,
            },
            false => HomeAction::Send {
                host: parcel.to as usize,
                chunk: parcel.what as usize,
            },
        });
        parcel.is_sent = true;
        lane.next += 1;
        lane.in_flight += 1;
        true
    }

    fn end_if_done(&mut self) {
        if self.open == 0 && !self.ended {
            self.ended = true;
            // Sends to a host that was lost before they were polled are void.
            self.actions.clear();
            self.actions.push_back(HomeAction::Combine);
        }
    }
}

// === impl HostState ===

impl HostState {
    fn chunks(&self) -> Range<usize> {
        self.first as usize..self.end as usize
    }
}
