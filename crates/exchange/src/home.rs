//! The machine of an endpoint that is home to tokens.

use std::collections::VecDeque;
use std::ops::Range;

use crate::OnLoss;
use crate::bundles::Part;
use crate::error::{LossCause, StepError};
use crate::shard_plan::ShardPlan;

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
/// host is under way before any second one. Where chunks travel in bundles, the hosts of a group
/// share their turn and their credits: a bundle has at most one chunk for each. Chunks of a later
/// wave wait for the results of the earlier ones. A relay that is lost takes along what is behind it.
/// Knows indices only, never rows.
#[derive(Debug)]
pub struct Home {
    step: u64,
    hosts: Vec<HostState>,
    /// Chunks of the plan.
    chunks: Vec<ChunkState>,
    parcels: Vec<ParcelState>,
    lanes: Vec<Lane>,
    credits: usize,
    deadline_ns: u64,
    started_ns: u64,
    on_loss: OnLoss,
    /// Whether any parcel is of a later wave.
    has_waves: bool,
    /// Chunks that are neither answered nor lost.
    open: usize,
    actions: VecDeque<HomeAction>,
    ended: bool,
}

#[derive(Debug)]
struct HostState {
    endpoint: u32,
    name: String,
    /// Its chunks among those of the plan.
    chunks: Range<usize>,
    lost: Option<LossCause>,
}

#[derive(Debug, Clone, Copy)]
struct ChunkState {
    host: usize,
    parcel: usize,
    /// Neither answered nor lost.
    is_open: bool,
}

/// A message to hosts.
#[derive(Debug)]
struct ParcelState {
    lane: usize,
    /// Position of the host that it is sent to.
    to: usize,
    wave: u8,
    action: HomeAction,
    is_sent: bool,
    /// Chunks of it that are open.
    open: usize,
}

/// Parcels that share their turn and their credits.
#[derive(Debug)]
struct Lane {
    parcels: Range<usize>,
    next: usize,
    in_flight: usize,
}

/// Part of the coordinator's budget that a home takes for itself: the rest is for the way back,
/// so that a home can still say which peer was late before it is called late itself.
const BUDGET_SHARE: (u64, u64) = (3, 4);

/// When a home ends that got its shard at `received_ns` with `budget_ns` left of the step.
pub fn home_deadline_ns(received_ns: u64, budget_ns: u64) -> u64 {
    received_ns.saturating_add(budget_ns / BUDGET_SHARE.1 * BUDGET_SHARE.0)
}

// === impl Home ===

impl Home {
    /// A machine for `plan` that starts at `now_ns`, must end by `deadline_ns` and has at most
    /// `credits` chunks under way at a host. `names` are the endpoints' names by id.
    pub fn new(
        step: u64,
        plan: &ShardPlan,
        names: &[String],
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
                name: name_of(names, host.endpoint),
                chunks: host.chunks.clone(),
                lost: None,
            })
            .collect();
        let mut home = Self {
            step,
            hosts,
            chunks: Vec::new(),
            parcels: Vec::new(),
            lanes: Vec::new(),
            credits: credits.max(1),
            deadline_ns,
            started_ns: now_ns,
            on_loss,
            has_waves: false,
            open: plan.chunks(),
            actions: VecDeque::new(),
            ended: false,
        };
        home.lay_out(plan);
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
        let at = state.chunks.start + chunk;
        let awaited = state.chunks.contains(&at)
            && self.chunks[at].is_open
            && self.parcels[self.chunks[at].parcel].is_sent;
        if !awaited {
            return false;
        }
        self.close(at);
        self.send_more();
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
        let is_behind = |chunk: &ChunkState| {
            let relayed = self.parcels[chunk.parcel].to == host;
            chunk.is_open && (chunk.host == host || relayed)
        };
        let behind = self.chunks.iter().enumerate();
        let behind: Vec<usize> = behind
            .filter(|(_, chunk)| is_behind(chunk))
            .map(|(at, _)| at)
            .collect();
        if self.hosts[host].lost.is_some() || behind.is_empty() {
            return;
        }
        if self.on_loss == OnLoss::Fail {
            let name = self.hosts[host].name.clone();
            self.fail(StepError::Lost {
                step: self.step,
                endpoint,
                name,
                cause,
            });
            return;
        }
        self.hosts[host].lost = Some(cause);
        behind.into_iter().for_each(|at| self.close(at));
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
            self.hosts[host].lost = Some(cause.clone());
        }
        self.open = 0;
        self.end_if_done();
    }

    /// Whether something for `host` is passed on by `relay`.
    pub fn relays(&self, relay: u32, host: u32) -> bool {
        relay != host
            && self.chunks.iter().any(|chunk| {
                let to = self.parcels[chunk.parcel].to;
                self.hosts[chunk.host].endpoint == host && self.hosts[to].endpoint == relay
            })
    }

    /// Ends the step with an error that no loss policy forgives.
    pub fn fail(&mut self, error: StepError) {
        if !self.ended {
            self.ended = true;
            self.actions.clear();
            self.actions.push_back(HomeAction::Fail(error));
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
        self.hosts.iter().filter_map(|host| match &host.lost {
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
        self.hosts
            .get(host)
            .map(|host| host.name.clone())
            .unwrap_or_default()
    }

    fn lay_out(&mut self, plan: &ShardPlan) {
        let hosts = self.hosts.iter().enumerate();
        self.chunks = hosts
            .flat_map(|(host, state)| {
                let chunk = ChunkState {
                    host,
                    parcel: 0,
                    is_open: true,
                };
                state.chunks.clone().map(move |_| chunk)
            })
            .collect();
        plan.each_parcel(|parcel| {
            let at = self.parcels.len();
            if parcel.lane == self.lanes.len() {
                self.lanes.push(Lane {
                    parcels: at..at,
                    next: at,
                    in_flight: 0,
                });
            }
            self.lanes[parcel.lane].parcels.end = at + 1;
            self.has_waves |= parcel.wave > 0;
            for part in parcel.parts {
                self.chunks[plan.chunk_at(*part)].parcel = at;
            }
            let is_to = |part: &&Part| self.hosts[part.host].endpoint == parcel.to;
            let to = parcel.parts.iter().find(is_to).map_or(0, |part| part.host);
            let action = match (parcel.bundle, parcel.parts) {
                (None, [Part { host, chunk }, ..]) => HomeAction::Send {
                    host: *host,
                    chunk: *chunk,
                },
                (bundle, _) => HomeAction::Relay {
                    bundle: bundle.unwrap_or_default(),
                },
            };
            self.parcels.push(ParcelState {
                lane: parcel.lane,
                to,
                wave: parcel.wave,
                action,
                is_sent: false,
                open: parcel.parts.len(),
            });
        });
    }

    /// A chunk is answered or lost.
    fn close(&mut self, chunk: usize) {
        let state = &mut self.chunks[chunk];
        state.is_open = false;
        self.open -= 1;
        let parcel = &mut self.parcels[state.parcel];
        parcel.open -= 1;
        if parcel.open == 0 && parcel.is_sent {
            self.lanes[parcel.lane].in_flight -= 1;
        }
    }

    /// Hosts that are the reason why a result is missing: who was sent rows and has not answered,
    /// unless its relay has not either.
    fn owing(&self) -> Vec<usize> {
        let is_owing = |host: usize| {
            self.chunks.iter().any(|chunk| {
                let parcel = &self.parcels[chunk.parcel];
                let relay_owes = || {
                    let mut of_relay = self.chunks[self.hosts[parcel.to].chunks.clone()].iter();
                    of_relay.any(|one| one.parcel == chunk.parcel && one.is_open)
                };
                let is_late = chunk.host == host && chunk.is_open && parcel.is_sent;
                is_late && (parcel.to == host || !relay_owes())
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
            for lane in &mut self.lanes {
                // What is lost already is not sent.
                let lost = |at: &usize| self.parcels[*at].open == 0;
                lane.next += (lane.next..lane.parcels.end).take_while(lost).count();
                if lane.next == lane.parcels.end || lane.in_flight == self.credits {
                    continue;
                }
                let parcel = &mut self.parcels[lane.next];
                if parcel.wave <= wave {
                    self.actions.push_back(parcel.action.clone());
                    parcel.is_sent = true;
                    lane.next += 1;
                    lane.in_flight += 1;
                    sent = true;
                }
            }
            if !sent {
                return;
            }
        }
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

pub(crate) fn name_of(names: &[String], endpoint: u32) -> String {
    names
        .get(endpoint as usize)
        .cloned()
        .unwrap_or_else(|| format!("endpoint {endpoint}"))
}
