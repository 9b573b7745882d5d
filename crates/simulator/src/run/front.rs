//! The coordinator: gate, plan, shards out and outputs back.

use std::collections::BTreeSet;

use expertmesh_exchange::{
    COORDINATOR, Conductor, ConductorAction, ExchangeKind, KeptChoices, LossCause, Missing,
    PlanRules, StepError, StepMoments, StepPlan, TrafficLedger,
};
use expertmesh_experts::pieces::{
    ADDS_PER_NS, COMBINE_ROWS, GATE_FLOPS_PER_NS, GATE_TOKENS, INLINE_NS, MOST_PIECES,
};
use expertmesh_routing::Fate;
use expertmesh_telemetry::{Lane, Phase};
use expertmesh_wire::RemoteError;

use crate::config::StepInput;
use crate::experts::Shared;
use crate::log::Entry;
use crate::net::slowed;
use crate::queue::Event;
use crate::run::home::{HomeSlot, Own};
use crate::run::parts::{Kind, Message, Task, Work};
use crate::run::{World, count};

/// The coordinator's side of a step.
pub(super) struct Front<'a> {
    pub(super) input: StepInput<'a>,
    pub(super) plan: StepPlan,
    pub(super) fates: Vec<Fate>,
    pub(super) at: StepMoments,
    pub(super) conductor: Option<Conductor>,
    pub(super) deadline_ns: u64,
    /// Its first home among those of the run.
    pub(super) first_home: u32,
    pub(super) carried: TrafficLedger,
    pub(super) outcome: Option<Result<(), StepError>>,
    /// Workers that have not computed yet what lies behind it.
    behind: BTreeSet<u32>,
    /// When they had, and it was over.
    pub(super) left_ns: u64,
    /// The step that waits for it.
    pub(super) next: Option<u32>,
    /// The shard that is being packed.
    packing: Option<u32>,
    /// The shared expert of all tokens, where homes have latent rows only.
    own: Own,
    /// Every shard is back.
    is_back: bool,
    /// Outputs are being put together.
    is_collecting: bool,
}

// === impl Front ===

impl<'a> Front<'a> {
    pub(super) fn new(input: StepInput<'a>) -> Self {
        Self {
            input,
            plan: StepPlan {
                shards: Vec::new(),
                ledger: TrafficLedger::new(0),
                extents: Vec::new(),
            },
            fates: Vec::new(),
            at: StepMoments::default(),
            conductor: None,
            deadline_ns: u64::MAX,
            first_home: 0,
            carried: TrafficLedger::new(0),
            outcome: None,
            behind: BTreeSet::new(),
            left_ns: 0,
            next: None,
            packing: None,
            own: Own::None,
            is_back: false,
            is_collecting: false,
        }
    }
}

// === impl World ===

impl World<'_> {
    pub(super) fn begins(&mut self, step: u32) {
        let front = &mut self.steps[step as usize];
        front.at.begun = self.now;
        front.deadline_ns = self.now.saturating_add(self.sim.config().deadline_ns);
        self.push(COORDINATOR, Task::Check(step));
    }

    /// The input is fit: the gate, inline if it is short.
    pub(super) fn checked(&mut self, step: u32) {
        let layer = &self.sim.config().layer;
        let front = &mut self.steps[step as usize];
        front.at.checked = self.now;
        let tokens = front.input.route.tokens as u64;
        let tokens = self.sim.at_each(tokens);
        let columns = layer.experts + layer.free_experts;
        let scored = 2 * tokens * (layer.hidden * columns) as u64;
        let flops = scored + layer.projection_flops(tokens);
        let total_ns = self.sim.costs().gate.ns(tokens, flops);
        let cost = Shared {
            total_ns,
            longest_ns: 0,
            pieces: tokens.div_ceil(GATE_TOKENS as u64),
            more_ns: 0,
        };
        let inline = flops / GATE_FLOPS_PER_NS <= INLINE_NS;
        self.compute(COORDINATOR, Work::Gate(step), cost, inline);
    }

    pub(super) fn gated(&mut self, step: u32) {
        let front = &mut self.steps[step as usize];
        front.at.gated = self.now;
        let begin_ns = front.at.checked;
        self.step_lane(step, Phase::Gate, begin_ns);
        self.push_urgent(COORDINATOR, Task::Plan(step));
    }

    /// The plan is made, by the code that makes it for real.
    pub(super) fn planned(&mut self, step: u32) {
        let config = self.sim.config();
        let input = self.steps[step as usize].input;
        let down: Vec<(u32, LossCause)> = (0..)
            .zip(&self.down)
            .filter_map(|(id, cause)| cause.clone().map(|cause| (id, cause)))
            .collect();
        let mut admission = std::borrow::Cow::Borrowed(input.admission);
        let missing = Missing {
            step: u64::from(step),
            down: &down,
            on_loss: config.on_loss,
            names: self.sim.names(),
        };
        let homes = match down.is_empty() {
            true => Ok((1..count(self.ends.len())).collect()),
            false => {
                let table = self.sim.table();
                missing.settle(config.exchange, table, input.route, admission.to_mut())
            }
        };
        let homes: Vec<u32> = match homes {
            Ok(homes) => homes,
            Err(error) => {
                self.steps[step as usize].fates.clone_from(&admission.fates);
                return self.over(step, Err(error));
            }
        };
        let rules = PlanRules {
            kind: config.exchange,
            homes: &homes,
            table: self.sim.table(),
            limits: self.sim.limits(),
            output_row_bytes: config.layer.output_row_bytes(),
            one_by_one: config.layer.one_by_one,
            credits: config.credits,
        };
        let kept = |range| KeptChoices::new(input.route, &admission, range);
        let plan = StepPlan::new(kept, input.route.tokens, &rules);
        let first_home = count(self.homes.len());
        for (shard, at) in plan.shards.iter().zip(0..) {
            self.homes.push(HomeSlot::new(step, at, shard.home));
        }
        let messages = plan.ledger.total().messages;
        let chunks: usize = plan.shards.iter().map(|one| one.plan.chunks()).sum();
        self.messages.reserve(2 * (chunks + plan.shards.len()));
        self.times.reserve(chunks);
        self.log.add(self.now, Entry::Planned, step, 0, messages);
        let front = &mut self.steps[step as usize];
        front.carried = TrafficLedger::new(plan.ledger.endpoints());
        front.carried.saved_by_dedup_bytes = plan.ledger.saved_by_dedup_bytes;
        front.fates = admission.into_owned().fates;
        front.at.planned = self.now;
        front.first_home = first_home;
        front.plan = plan;
        let begin_ns = front.at.gated;
        self.step_lane(step, Phase::Plan, begin_ns);
        match config.exchange {
            ExchangeKind::Star => self.star_begins(step, first_home),
            ExchangeKind::AllToAll | ExchangeKind::Hierarchical => self.shards_begin(step),
        }
    }

    fn shards_begin(&mut self, step: u32) {
        let front = &mut self.steps[step as usize];
        let homes: Vec<u32> = front.plan.shards.iter().map(|shard| shard.home).collect();
        front.conductor = Some(Conductor::new(
            u64::from(step),
            &homes,
            self.sim.names(),
            self.now,
            front.deadline_ns,
            self.sim.config().on_loss,
        ));
        if self.sim.config().has_front_shared() && front.input.route.tokens > 0 {
            front.own = Own::Due;
        }
        let deadline_ns = front.deadline_ns;
        self.arm(COORDINATOR, deadline_ns);
        self.pump_shards(step);
    }

    /// The shared expert runs while shards travel, where the coordinator has it.
    fn start_front_own(&mut self, step: u32) {
        let front = &mut self.steps[step as usize];
        if front.own != Own::Due {
            return;
        }
        front.own = Own::Running;
        let cost = (self.sim).own_cost(COORDINATOR, front.input.route.tokens, 0);
        self.compute(COORDINATOR, Work::FrontOwn(step), cost, false);
    }

    pub(super) fn front_own_done(&mut self, step: u32, began_ns: u64) {
        self.step_lane(step, Phase::Shared, began_ns);
        let front = &mut self.steps[step as usize];
        let took_ns = self.now - began_ns;
        front.at.shared = took_ns;
        front.own = Own::Done(took_ns);
        if front.is_back {
            self.collect(step);
        }
    }

    /// Carries out what the conductor asks for, one shard at a time: the first message is on its
    /// way while the next is packed.
    pub(super) fn pump_shards(&mut self, step: u32) {
        loop {
            let front = &mut self.steps[step as usize];
            if front.packing.is_some() {
                return;
            }
            let Some(conductor) = &mut front.conductor else {
                return;
            };
            match conductor.poll() {
                None => return self.start_front_own(step),
                Some(ConductorAction::SendShard { shard }) => {
                    let home = front.plan.shards[shard].home;
                    if self.gone.contains(&(COORDINATOR, home)) {
                        let conductor = self.steps[step as usize].conductor.as_mut();
                        if let Some(conductor) = conductor {
                            conductor.on_home_lost(home, super::fail::gone());
                        }
                        continue;
                    }
                    front.packing = Some(count(shard));
                    if self.sim.config().resident {
                        self.shard_is_there(step, count(shard));
                        continue;
                    }
                    return self.push(COORDINATOR, Task::SendShard(step));
                }
                Some(ConductorAction::Finish) => {
                    front.is_back = true;
                    self.start_front_own(step);
                    if self.steps[step as usize].own != Own::Running {
                        self.collect(step);
                    }
                    return;
                }
                Some(ConductorAction::Fail(error)) => return self.over(step, Err(error)),
            }
        }
    }

    fn shard_message(&self, step: u32, shard: u32) -> Message {
        let front = &self.steps[step as usize];
        let of = &front.plan.shards[shard as usize];
        let home = front.first_home + shard;
        let mut message = Message::new(Kind::Shard, (COORDINATOR, of.home), home, step);
        message.rows = count(of.plan.tokens);
        let endpoints = self.ends.len();
        let row_bytes = self.sim.config().layer.row_bytes();
        message.bytes = of.plan.shard_frame_len(row_bytes, endpoints) as u64;
        message
    }

    pub(super) fn pack_shard(&mut self, step: u32, at: u64) -> u64 {
        let Some(shard) = self.steps[step as usize].packing else {
            return 0;
        };
        let message = self.shard_message(step, shard);
        let ns = self.sim.costs().pack.ns(message.bytes);
        self.messages.push(message);
        self.homes[message.home as usize].message = count(self.messages.len() - 1);
        self.homes[message.home as usize].packed_ns = at + ns;
        ns
    }

    pub(super) fn shard_packed(&mut self, step: u32) {
        let front = &mut self.steps[step as usize];
        let Some(shard) = front.packing.take() else {
            return;
        };
        let home = front.first_home + shard;
        let message = self.homes[home as usize].message;
        self.hand_over(COORDINATOR, message, 1);
        self.pump_shards(step);
    }

    /// A home that has its tokens begins at once.
    fn shard_is_there(&mut self, step: u32, shard: u32) {
        self.steps[step as usize].packing = None;
        let message = self.shard_message(step, shard);
        let home = &mut self.homes[message.home as usize];
        home.packed_ns = self.now;
        self.messages.push(message);
        self.on_shard(count(self.messages.len() - 1));
    }

    /// Outputs of a shard are at the coordinator, or an error in their place.
    pub(super) fn on_combined(&mut self, home: u32, error: Option<RemoteError>) {
        let slot = &mut self.homes[home as usize];
        let (step, endpoint) = (slot.step, slot.endpoint);
        let front = &mut self.steps[step as usize];
        let Some(conductor) = &mut front.conductor else {
            return;
        };
        match error {
            Some(error) => conductor.on_shard_failed(endpoint, error),
            None => {
                if let Some(shard) = conductor.awaited(endpoint) {
                    slot.arrived_ns = Some(self.now.max(slot.packed_ns));
                    conductor.on_combined(shard);
                }
            }
        }
        self.pump_shards(step);
    }

    /// Everything is here: outputs in token order.
    pub(super) fn collect(&mut self, step: u32) {
        let config = self.sim.config();
        let front = &mut self.steps[step as usize];
        if front.outcome.is_some() || std::mem::replace(&mut front.is_collecting, true) {
            return;
        }
        let tokens = front.input.route.tokens as u64;
        let width = config.layer.row_width() as u64;
        let bytes = tokens * config.layer.output_row_bytes() as u64;
        let total_ns = match (config.exchange, config.resident) {
            (_, true) => 0,
            (ExchangeKind::AllToAll | ExchangeKind::Hierarchical, false) => {
                self.sim.costs().collect.ns(bytes)
            }
            (ExchangeKind::Star, false) => {
                let rows = front.plan.shards.iter().map(|one| one.plan.choices());
                let rows = rows.sum::<usize>() as u64;
                let read = rows * config.layer.row_bytes() as u64;
                self.sim.costs().combine.ns(rows, read + bytes)
            }
        };
        let projected = match config.resident {
            true => 0,
            false => config.layer.projection_flops(tokens),
        };
        let choices = tokens * config.layer.top_k as u64;
        let pieces = (choices + tokens) * width / ADDS_PER_NS / INLINE_NS + 1;
        let is_long = projected / GATE_FLOPS_PER_NS > INLINE_NS;
        let cost = Shared {
            total_ns: total_ns + self.sim.costs().gate.product_ns(projected),
            longest_ns: 0,
            pieces: tokens.div_ceil(COMBINE_ROWS as u64),
            more_ns: 0,
        };
        self.compute(
            COORDINATOR,
            Work::Collect(step),
            cost,
            pieces <= MOST_PIECES as u64 && !is_long,
        );
    }

    pub(super) fn collected(&mut self, step: u32, began_ns: u64) {
        self.step_lane(step, Phase::Combine, began_ns);
        self.over(step, Ok(()));
    }

    pub(super) fn over(&mut self, step: u32, outcome: Result<(), StepError>) {
        let front = &mut self.steps[step as usize];
        if front.outcome.is_some() {
            return;
        }
        front.at.done = self.now;
        let failed = outcome.is_err();
        front.outcome = Some(outcome);
        let (took, behind_ns) = (self.now - front.at.begun, front.input.behind_ns);
        self.log.add(self.now, Entry::Over, step, 0, took);
        self.note_late(step);
        if failed {
            return self.nothing_follows(step);
        }
        let is_up = |worker: &u32| !self.ends[*worker as usize].is_down;
        let workers: Vec<u32> = match behind_ns {
            0 => Vec::new(),
            _ => (1..count(self.ends.len())).filter(is_up).collect(),
        };
        if workers.is_empty() {
            return self.left(step);
        }
        self.steps[step as usize].behind = workers.iter().copied().collect();
        for worker in workers {
            // All threads do it together, and none has time for anything else.
            let cost = Shared {
                total_ns: behind_ns,
                longest_ns: behind_ns,
                pieces: self.sim.config().threads as u64,
                more_ns: 0,
            };
            self.compute(worker, Work::Behind(step, worker), cost, false);
        }
    }

    /// What a worker's threads together spend on what lies behind a step.
    pub(super) fn behind_ns(&self, step: u32, worker: u32) -> u64 {
        let ns = self.steps[step as usize].input.behind_ns;
        let each = slowed(ns, self.ends[worker as usize].slow);
        each * self.sim.config().threads as u64
    }

    /// A worker has computed what lies behind a step, or failed.
    pub(super) fn behind_done(&mut self, step: u32, worker: u32) {
        let behind = &mut self.steps[step as usize].behind;
        if behind.remove(&worker) && behind.is_empty() {
            self.left(step);
        }
    }

    /// A step is over, and what lies behind it: the one that waited for it begins.
    fn left(&mut self, step: u32) {
        let front = &mut self.steps[step as usize];
        front.left_ns = self.now;
        self.open -= 1;
        if let Some(next) = front.next {
            let begins_ns = self.steps[next as usize].input.begins_ns.max(self.now);
            self.queue.push(begins_ns, Event::Begins(next));
        }
    }

    /// A step failed: what would follow it never begins.
    fn nothing_follows(&mut self, step: u32) {
        let mut at = Some(step);
        while let Some(step) = at {
            self.open -= 1;
            at = self.steps[step as usize].next;
        }
    }

    pub(super) fn step_lane(&mut self, step: u32, phase: Phase, begin_ns: u64) {
        self.lane(|end_ns| Lane {
            endpoint: COORDINATOR,
            phase,
            step: u64::from(step),
            begin_ns,
            end_ns,
            peer: None,
            bytes: 0,
            predicted: true,
        });
    }
}
