//! The machine of a coordinator whose shards have their homes on workers (`all-to-all`).

use std::collections::VecDeque;

use expertmesh_wire::RemoteError;

use crate::OnLoss;
use crate::error::{LossCause, StepError, name_of};

/// What the driver of a [`Conductor`] must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConductorAction {
    /// Send shard `shard` to its home.
    SendShard {
        /// Position among the shards.
        shard: usize,
    },
    /// Every shard is back or lost. Comes once, last.
    Finish,
    /// End the step. Comes once, last.
    Fail(StepError),
}

/// Sends each shard to its home and waits for the combined outputs.
#[derive(Debug)]
pub struct Conductor {
    step: u64,
    names: Vec<String>,
    shards: Vec<ShardState>,
    started_ns: u64,
    deadline_ns: u64,
    on_loss: OnLoss,
    open: usize,
    actions: VecDeque<ConductorAction>,
    ended: bool,
}

#[derive(Debug)]
struct ShardState {
    home: u32,
    state: State,
    /// Why it was lost, if it was.
    cause: Option<LossCause>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not handed out yet: nobody can have answered it.
    Waiting,
    Open,
    Combined,
    Lost,
}

/// Part of the coordinator's budget that a home takes for itself: the rest is for the way back,
/// so that a home can still say which peer was late before it is called late itself.
const BUDGET_SHARE: (u64, u64) = (3, 4);

/// When a home ends that got its shard at `received_ns` with `budget_ns` left of the step.
pub fn home_deadline_ns(received_ns: u64, budget_ns: u64) -> u64 {
    received_ns.saturating_add(budget_ns / BUDGET_SHARE.1 * BUDGET_SHARE.0)
}

// === impl Conductor ===

impl Conductor {
    /// A machine for shards with the given homes (endpoint ids).
    pub fn new(
        step: u64,
        homes: &[u32],
        names: &[String],
        now_ns: u64,
        deadline_ns: u64,
        on_loss: OnLoss,
    ) -> Self {
        let shards: Vec<ShardState> = homes
            .iter()
            .map(|home| ShardState {
                home: *home,
                state: State::Waiting,
                cause: None,
            })
            .collect();
        let mut actions: VecDeque<_> = (0..shards.len())
            .map(|shard| ConductorAction::SendShard { shard })
            .collect();
        if shards.is_empty() {
            actions.push_back(ConductorAction::Finish);
        }
        Self {
            step,
            names: names.to_vec(),
            open: shards.len(),
            ended: shards.is_empty(),
            shards,
            started_ns: now_ns,
            deadline_ns,
            on_loss,
            actions,
        }
    }

    /// The next thing to do, `None` until another event.
    pub fn poll(&mut self) -> Option<ConductorAction> {
        loop {
            let action = self.actions.pop_front()?;
            if let ConductorAction::SendShard { shard } = action {
                let state = &mut self.shards[shard].state;
                // A home may be lost before its shard was sent.
                if *state != State::Waiting {
                    continue;
                }
                *state = State::Open;
            }
            return Some(action);
        }
    }

    /// The shard of `home`, if it was sent and its outputs are still awaited.
    pub fn awaited(&self, home: u32) -> Option<usize> {
        if self.ended {
            return None;
        }
        self.shards
            .iter()
            .position(|shard| shard.home == home && shard.state == State::Open)
    }

    /// The outputs of a shard arrived.
    pub fn on_combined(&mut self, shard: usize) {
        self.close(shard, State::Combined);
    }

    /// A home said that its shard failed. The error names the endpoint at fault, which may be
    /// another than the home.
    pub fn on_shard_failed(&mut self, home: u32, mut error: RemoteError) {
        let Some(shard) = self.awaited(home) else {
            return;
        };
        let endpoint = error.endpoint.unwrap_or(home);
        // The home's sentence begins as ours will.
        let step = format!("step {}: ", self.step);
        let lost = format!("{} was lost: ", name_of(&self.names, endpoint));
        if let Some(rest) = error.message.strip_prefix(&step) {
            error.message = rest.strip_prefix(&lost).unwrap_or(rest).to_owned();
        }
        self.lose(shard, endpoint, LossCause::Reported(error));
    }

    /// A home is gone: its shard is lost.
    pub fn on_home_lost(&mut self, home: u32, cause: LossCause) {
        let out = |shard: &ShardState| shard.home == home && shard.state.is_out();
        if let (false, Some(shard)) = (self.ended, self.shards.iter().position(out)) {
            self.lose(shard, home, cause);
        }
    }

    /// Time passed. At the deadline every shard that is still out is lost.
    pub fn on_tick(&mut self, now_ns: u64) {
        if self.ended || now_ns < self.deadline_ns {
            return;
        }
        let waited_ms = (now_ns - self.started_ns) / 1_000_000;
        let late: Vec<u32> = self
            .shards
            .iter()
            .filter(|shard| shard.state.is_out())
            .map(|shard| shard.home)
            .collect();
        for home in late {
            self.on_home_lost(home, LossCause::Deadline { waited_ms });
        }
    }

    /// Ends the step with an error that no loss policy forgives.
    pub fn fail(&mut self, error: StepError) {
        if !self.ended {
            self.ended = true;
            self.actions.clear();
            self.actions.push_back(ConductorAction::Fail(error));
        }
    }

    /// Homes whose shards were lost because they did not answer in time, each with that cause.
    pub fn late(&self) -> impl Iterator<Item = (u32, LossCause)> + '_ {
        self.shards.iter().filter_map(|shard| match &shard.cause {
            Some(cause @ LossCause::Deadline { .. }) => Some((shard.home, cause.clone())),
            _ => None,
        })
    }

    /// Positions of the shards that were lost.
    pub fn lost(&self) -> impl Iterator<Item = usize> + '_ {
        self.shards
            .iter()
            .enumerate()
            .filter(|(_, shard)| shard.state == State::Lost)
            .map(|(at, _)| at)
    }

    /// When [`Conductor::on_tick`] has something to say.
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    fn lose(&mut self, shard: usize, endpoint: u32, cause: LossCause) {
        let name = name_of(&self.names, endpoint);
        match self.on_loss {
            OnLoss::Fail => self.fail(StepError::Lost {
                step: self.step,
                endpoint,
                name,
                cause,
            }),
            OnLoss::Drop => {
                self.shards[shard].cause = Some(cause);
                self.close(shard, State::Lost);
            }
        }
    }

    fn close(&mut self, shard: usize, state: State) {
        if self.ended || !self.shards[shard].state.is_out() {
            return;
        }
        self.shards[shard].state = state;
        self.open -= 1;
        if self.open == 0 {
            self.ended = true;
            self.actions.push_back(ConductorAction::Finish);
        }
    }
}

// === impl State ===

impl State {
    fn is_out(self) -> bool {
        matches!(self, Self::Waiting | Self::Open)
    }
}
