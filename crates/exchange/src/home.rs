//! The machine of an endpoint that is home to tokens.

use std::collections::VecDeque;

use crate::OnLoss;
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
    /// Every chunk is answered or lost: add the results up. Comes once, last.
    Combine,
    /// End the step. Comes once, last.
    Fail(StepError),
}

/// Sends a shard's chunks within the credits of each host and waits for their results.
///
/// Chunks of a host go out in order; hosts are served in turn, so that the first chunk of every
/// host is under way before any second one. Chunks of a later wave wait for the results of the
/// earlier ones. Knows indices only, never rows.
#[derive(Debug)]
pub struct Home {
    step: u64,
    hosts: Vec<HostState>,
    credits: usize,
    deadline_ns: u64,
    started_ns: u64,
    on_loss: OnLoss,
    /// Chunks that are neither answered nor lost.
    open: usize,
    actions: VecDeque<HomeAction>,
    ended: bool,
}

#[derive(Debug)]
struct HostState {
    endpoint: u32,
    name: String,
    /// The wave of every chunk, rising.
    waves: Vec<u8>,
    next: usize,
    answered: Vec<bool>,
    in_flight: usize,
    lost: Option<LossCause>,
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
            .enumerate()
            .map(|(at, host)| HostState {
                endpoint: host.endpoint,
                name: name_of(names, host.endpoint),
                waves: plan
                    .host(at)
                    .chunks
                    .iter()
                    .map(|chunk| chunk.wave)
                    .collect(),
                next: 0,
                answered: vec![false; host.chunks.len()],
                in_flight: 0,
                lost: None,
            })
            .collect();
        let open = hosts.iter().map(|host| host.waves.len()).sum();
        let mut home = Self {
            step,
            hosts,
            credits: credits.max(1),
            deadline_ns,
            started_ns: now_ns,
            on_loss,
            open,
            actions: VecDeque::new(),
            ended: false,
        };
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
        let Some(state) = self.hosts.get_mut(host) else {
            return false;
        };
        let awaited = chunk < state.next && state.lost.is_none() && !self.ended;
        if !awaited || state.answered[chunk] {
            return false;
        }
        state.answered[chunk] = true;
        state.in_flight -= 1;
        self.open -= 1;
        self.send_more();
        self.end_if_done();
        true
    }

    /// A host is gone or refused: what it has not answered is lost.
    pub fn on_host_lost(&mut self, endpoint: u32, cause: LossCause) {
        if self.ended {
            return;
        }
        let Some(state) = self.hosts.iter_mut().find(|host| host.endpoint == endpoint) else {
            return;
        };
        let unanswered = state.answered.iter().filter(|answered| !**answered).count();
        if state.lost.is_some() || unanswered == 0 {
            return;
        }
        if self.on_loss == OnLoss::Fail {
            let name = state.name.clone();
            self.fail(StepError::Lost {
                step: self.step,
                endpoint,
                name,
                cause,
            });
            return;
        }
        state.lost = Some(cause);
        state.in_flight = 0;
        self.open -= unanswered;
        // A wave may have waited for this host alone.
        self.send_more();
        self.end_if_done();
    }

    /// Time passed. At the deadline every host that owes results is lost, and chunks that waited
    /// for it are given up: hosts that were not asked are not at fault.
    pub fn on_tick(&mut self, now_ns: u64) {
        if self.ended || now_ns < self.deadline_ns {
            return;
        }
        let waited_ms = (now_ns - self.started_ns) / 1_000_000;
        let cause = LossCause::Deadline { waited_ms };
        let mut late = self.hosts.iter_mut().filter(|host| host.in_flight > 0);
        if self.on_loss == OnLoss::Fail {
            if let Some(endpoint) = late.next().map(|host| host.endpoint) {
                self.on_host_lost(endpoint, cause);
            }
            return;
        }
        for host in late {
            host.lost = Some(cause.clone());
            host.in_flight = 0;
        }
        self.open = 0;
        self.end_if_done();
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

    /// The wave that is under way: the earliest of which a result is awaited.
    fn wave(&self) -> u8 {
        let awaited = self.hosts.iter().filter(|host| host.lost.is_none());
        let first = |host: &HostState| {
            let mut chunks = host.waves.iter().zip(&host.answered);
            chunks
                .find(|(_, answered)| !**answered)
                .map(|(wave, _)| *wave)
        };
        awaited.filter_map(first).min().unwrap_or(0)
    }

    fn send_more(&mut self) {
        let waves = |host: &HostState| host.waves.last() > Some(&0);
        let wave = if self.hosts.iter().any(waves) {
            self.wave()
        } else {
            0
        };
        loop {
            let mut sent = false;
            for (at, host) in self.hosts.iter_mut().enumerate() {
                let due = host.waves.get(host.next).is_some_and(|next| *next <= wave);
                if host.lost.is_none() && due && host.in_flight < self.credits {
                    self.actions.push_back(HomeAction::Send {
                        host: at,
                        chunk: host.next,
                    });
                    host.next += 1;
                    host.in_flight += 1;
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
