//! Being home to tokens: the coordinator in `star`, a worker in `all-to-all`.

use expertmesh_exchange::{
    COORDINATOR, ClockMap, Home, HomeAction, HomeMoments, LossCause, StepError, Timeline,
    home_deadline_ns,
};
use expertmesh_experts::pieces::{ADDS_PER_NS, COMBINE_ROWS, GATE_FLOPS_PER_NS, INLINE_NS};
use expertmesh_telemetry::{Lane, Phase};
use expertmesh_wire::{RemoteError, encoded_len};

use crate::experts::Shared;
use crate::log::Entry;
use crate::run::host::index_of;
use crate::run::parts::{Kind, Message, Task, Work};
use crate::run::{World, count};

/// A home of a step.
#[derive(Debug)]
pub(super) struct HomeSlot {
    pub(super) step: u32,
    /// Position among the shards of the step.
    pub(super) shard: u32,
    pub(super) endpoint: u32,
    /// The message that brought its shard.
    pub(super) message: u32,
    pub(super) packed_ns: u64,
    pub(super) received_ns: u64,
    pub(super) left_ns: u64,
    /// When its outputs were at the coordinator.
    pub(super) arrived_ns: Option<u64>,
    pub(super) line: Timeline,
    /// Who did not answer in time.
    pub(super) late: Vec<(u32, LossCause)>,
    /// Why there are no outputs.
    pub(super) error: Option<RemoteError>,
    /// Kept choices that were lost.
    pub(super) lost: Vec<u32>,
    /// Machine and moments, while it is under way.
    pub(super) run: Option<Box<Running>>,
}

/// A home under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) home: Home,
    pub(super) moments: HomeMoments,
    /// What the machine asked for last and nobody has done yet.
    next: Option<HomeAction>,
    /// Messages that were packed and wait to be written: the first, and how many.
    packed: (u32, u32),
    is_pumping: bool,
    results_are_in: bool,
    own: Own,
}

/// What a home computes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    None,
    Due,
    Running,
    Done(u64),
}

// === impl HomeSlot ===

impl HomeSlot {
    pub(super) fn new(step: u32, shard: u32, endpoint: u32) -> Self {
        Self {
            step,
            shard,
            endpoint,
            message: 0,
            packed_ns: 0,
            received_ns: 0,
            left_ns: 0,
            arrived_ns: None,
            line: Timeline::default(),
            late: Vec::new(),
            error: None,
            lost: Vec::new(),
            run: None,
        }
    }
}

// === impl World ===

impl World<'_> {
    /// The coordinator is home.
    pub(super) fn star_begins(&mut self, step: u32, home: u32) {
        let deadline_ns = self.steps[step as usize].deadline_ns;
        self.home_begins(home, self.now, deadline_ns);
    }

    /// A shard is at its home.
    pub(super) fn on_shard(&mut self, message: u32) {
        let Message { home, step, .. } = self.messages[message as usize];
        let plan_ns = match self.sim.config().resident {
            true => 0,
            false => self.shard_plan_ns(home),
        };
        let received_ns = self.now - plan_ns;
        let slot = &self.homes[home as usize];
        let budget_ns = self.steps[step as usize]
            .deadline_ns
            .saturating_sub(slot.packed_ns);
        self.home_begins(home, received_ns, home_deadline_ns(received_ns, budget_ns));
    }

    pub(super) fn shard_plan_ns(&self, home: u32) -> u64 {
        let slot = &self.homes[home as usize];
        let plan = &self.steps[slot.step as usize].plan.shards[slot.shard as usize].plan;
        self.sim.costs().shard_plan.ns(plan.choices() as u64)
    }

    fn home_begins(&mut self, home: u32, started_ns: u64, deadline_ns: u64) {
        let config = self.sim.config();
        let slot = &mut self.homes[home as usize];
        let plan = &self.steps[slot.step as usize].plan.shards[slot.shard as usize].plan;
        let has_shared = config.layer.shared.is_some() && !config.has_front_shared();
        let has_own = has_shared || config.layer.free_experts > 0;
        slot.received_ns = started_ns;
        slot.run = Some(Box::new(Running {
            home: Home::new(
                u64::from(slot.step),
                plan,
                self.sim.names(),
                config.credits,
                started_ns,
                deadline_ns,
                config.on_loss,
            ),
            moments: HomeMoments::new(started_ns, plan.hosts.len(), plan.chunks()),
            next: None,
            packed: (0, 0),
            is_pumping: false,
            results_are_in: false,
            own: match has_own && plan.tokens > 0 {
                true => Own::Due,
                false => Own::None,
            },
        }));
        let endpoint = slot.endpoint;
        self.ends[endpoint as usize].homes.push(home);
        self.arm(endpoint, deadline_ns);
        self.pump_home(home);
    }

    /// Asks the machine what to do, and has it done.
    pub(super) fn pump_home(&mut self, home: u32) {
        let slot = &mut self.homes[home as usize];
        let Some(run) = &mut slot.run else {
            return;
        };
        if run.is_pumping {
            return;
        }
        run.next = run.home.poll();
        match run.next {
            None => self.start_own(home),
            Some(HomeAction::Send { .. } | HomeAction::Relay { .. }) => {
                run.is_pumping = true;
                let endpoint = slot.endpoint;
                self.push_urgent(endpoint, Task::Pump(home));
            }
            Some(HomeAction::Combine | HomeAction::Fail(_)) => self.carry_out(home),
        }
    }

    /// Packs what the machine sends: all of it on a worker, one message at a time on the
    /// coordinator, whose socket starts on a message while the next is packed.
    pub(super) fn pack_rows(&mut self, home: u32, at: u64) -> u64 {
        let costs = self.sim.costs();
        let me = self.homes[home as usize].endpoint;
        let first = count(self.messages.len());
        let mut ns = 0;
        while let Some(action) = self.next_action(home) {
            let message = match action {
                HomeAction::Send { host, chunk } => self.rows_message(home, host, chunk),
                HomeAction::Relay { bundle } => self.relay_message(home, bundle),
                HomeAction::Combine | HomeAction::Fail(_) => {
                    if let Some(run) = &mut self.homes[home as usize].run {
                        run.next = Some(action);
                    }
                    break;
                }
            };
            let is_gone = self.gone.contains(&(me, message.to));
            let slot = &mut self.homes[home as usize];
            let plan = &self.steps[slot.step as usize].plan.shards[slot.shard as usize].plan;
            let Some(run) = &mut slot.run else {
                break;
            };
            if is_gone {
                run.home.on_host_lost(message.to, super::fail::gone());
                continue;
            }
            ns += costs.pack.ns(message.bytes);
            match action {
                HomeAction::Relay { bundle } => {
                    for part in &plan.parts()[plan.bundles()[bundle].parts.clone()] {
                        let chunk = plan.hosts[part.host].chunks.start + part.chunk;
                        run.moments.packed(chunk, at + ns);
                    }
                }
                _ => run.moments.packed(message.at as usize, at + ns),
            }
            self.messages.push(message);
            if me == COORDINATOR {
                break;
            }
        }
        let packed = &self.messages[first as usize..];
        let local = packed.iter().filter(|one| one.to == me);
        let local_ns: u64 = local.map(|one| costs.local.ns(one.bytes)).sum();
        let packed = (first, count(packed.len()));
        if let Some(run) = &mut self.homes[home as usize].run {
            run.packed = packed;
        }
        ns + local_ns
    }

    fn next_action(&mut self, home: u32) -> Option<HomeAction> {
        let run = self.homes[home as usize].run.as_mut()?;
        run.next.take().or_else(|| run.home.poll())
    }

    fn rows_message(&self, home: u32, host: usize, chunk: usize) -> Message {
        let slot = &self.homes[home as usize];
        let plan = &self.steps[slot.step as usize].plan.shards[slot.shard as usize].plan;
        let of = plan.host(host);
        let piece = &of.chunks[chunk];
        let (rows, choices) = (piece.rows.len(), piece.choices.len());
        let ends = (slot.endpoint, of.endpoint);
        let mut message = Message::new(Kind::Rows, ends, home, slot.step);
        (message.host, message.chunk) = (count(host), count(chunk));
        message.at = count(plan.hosts[host].chunks.start + chunk);
        (message.rows, message.choices) = (count(rows), count(choices));
        let row_bytes = self.sim.config().layer.row_bytes();
        message.bytes = encoded_len(rows + choices, rows * row_bytes) as u64;
        message
    }

    /// What was packed goes to the network; a worker's own rows to its experts.
    pub(super) fn rows_packed(&mut self, home: u32) {
        let slot = &mut self.homes[home as usize];
        let me = slot.endpoint;
        let Some(run) = &mut slot.run else {
            return;
        };
        run.is_pumping = false;
        let (first, messages) = run.packed;
        if messages > 0 {
            self.hand_over(me, first, messages);
        }
        for message in first..first + messages {
            if self.messages[message as usize].to == me {
                self.count_local(message);
                self.on_rows(message);
            }
        }
        let Some(run) = &mut self.homes[home as usize].run else {
            return;
        };
        if run.next.is_some() {
            return self.carry_out(home);
        }
        if me == COORDINATOR {
            // The next message is packed when the socket has had its turn.
            run.next = run.home.poll();
            match run.next {
                Some(HomeAction::Send { .. } | HomeAction::Relay { .. }) => {
                    run.is_pumping = true;
                    return self.push(me, Task::Pump(home));
                }
                Some(_) => return self.carry_out(home),
                None => return self.start_own(home),
            }
        }
        // What came meanwhile may have more sent.
        self.pump_home(home);
    }

    /// Carries out the end of a home.
    fn carry_out(&mut self, home: u32) {
        let Some(run) = &mut self.homes[home as usize].run else {
            return;
        };
        match run.next.take() {
            Some(HomeAction::Combine) => {
                run.results_are_in = true;
                self.start_own(home);
                self.end_if_ready(home);
            }
            Some(HomeAction::Fail(error)) => self.home_failed(home, &error),
            Some(HomeAction::Send { .. } | HomeAction::Relay { .. }) | None => {}
        }
    }

    /// What the home computes itself runs while rows travel.
    fn start_own(&mut self, home: u32) {
        let slot = &mut self.homes[home as usize];
        let endpoint = slot.endpoint;
        let plan = &self.steps[slot.step as usize].plan.shards[slot.shard as usize].plan;
        let Some(run) = &mut slot.run else {
            return;
        };
        if run.own != Own::Due {
            return;
        }
        run.own = Own::Running;
        let cost = self.sim.own_cost(endpoint, plan.tokens, plan.own.len());
        self.compute(endpoint, Work::Own(home), cost, false);
    }

    pub(super) fn own_done(&mut self, home: u32, began_ns: u64) {
        let (endpoint, step) = (
            self.homes[home as usize].endpoint,
            self.homes[home as usize].step,
        );
        self.lane(|end_ns| Lane {
            endpoint,
            phase: Phase::Shared,
            step: u64::from(step),
            begin_ns: began_ns,
            end_ns,
            peer: None,
            bytes: 0,
            predicted: true,
        });
        let now = self.now;
        if let Some(run) = &mut self.homes[home as usize].run {
            run.own = Own::Done(now - began_ns);
        }
        self.end_if_ready(home);
    }

    /// Results of a chunk are at their home.
    pub(super) fn on_results(&mut self, message: u32) {
        let Message {
            from,
            home,
            host,
            at,
            note,
            ..
        } = self.messages[message as usize];
        let Some(run) = &mut self.homes[home as usize].run else {
            return;
        };
        let (host, at) = ((host as usize, from), at as usize);
        if run.home.on_chunk(at) {
            let times = self.times[index_of(note)];
            let clock = &mut ClockMap::shared();
            run.moments.answered(host, at, times, clock, self.now);
        }
        self.pump_home(home);
    }

    fn end_if_ready(&mut self, home: u32) {
        let config = self.sim.config();
        let slot = &mut self.homes[home as usize];
        let Some(run) = &slot.run else {
            return;
        };
        if !run.results_are_in || matches!(run.own, Own::Due | Own::Running) {
            return;
        }
        let (step, endpoint) = (slot.step, slot.endpoint);
        let front = &mut self.steps[step as usize];
        let plan = &front.plan.shards[slot.shard as usize].plan;
        slot.lost = match run.home.lost().next() {
            Some(_) => plan.unanswered(|chunk| run.home.is_answered(chunk)),
            None => Vec::new(),
        };
        let lost = slot.lost.len() as u64;
        self.log.add(self.now, Entry::Results, home, step, lost);
        if endpoint == COORDINATOR {
            if let Own::Done(took_ns) = run.own {
                front.at.shared = took_ns;
            }
            return self.collect(step);
        }
        let choices = plan.choices() as u64;
        let tokens = plan.tokens as u64;
        let read = choices * config.layer.row_bytes() as u64;
        let written = tokens * config.layer.output_row_bytes() as u64;
        // Homes that hold their tokens have the outputs of latent rows to make too.
        let projected = match config.resident {
            true => config.layer.projection_flops(tokens),
            false => 0,
        };
        let costs = self.sim.costs();
        let cost = Shared {
            total_ns: costs.combine.ns(choices, read + written) + costs.gate.product_ns(projected),
            longest_ns: 0,
            pieces: tokens.div_ceil(COMBINE_ROWS as u64),
            more_ns: 0,
        };
        let inline = (choices + 1) * config.layer.row_width() as u64 / ADDS_PER_NS <= INLINE_NS
            && projected / GATE_FLOPS_PER_NS <= INLINE_NS;
        self.compute(endpoint, Work::Combine(home), cost, inline);
    }

    /// A worker has its shard's outputs.
    pub(super) fn combined(&mut self, home: u32, began_ns: u64) {
        let config = self.sim.config();
        let slot = &mut self.homes[home as usize];
        let (step, endpoint) = (slot.step, slot.endpoint);
        let Some(run) = slot.run.take() else {
            return;
        };
        let own_ns = match run.own {
            Own::Done(took_ns) => took_ns,
            _ => 0,
        };
        slot.line = run.moments.timeline(self.now, own_ns);
        slot.left_ns = self.now;
        let plan = &self.steps[step as usize].plan.shards[slot.shard as usize].plan;
        let mut message = Message::new(Kind::Combined, (endpoint, COORDINATOR), home, step);
        message.rows = count(plan.tokens);
        // Choices that were lost are listed, a word each.
        let row = config.layer.output_row_bytes();
        message.bytes = plan.combined_frame_len_without(slot.lost.len(), row) as u64;
        self.ends[endpoint as usize]
            .homes
            .retain(|one| *one != home);
        self.late(home, &run.home);
        self.lane(|end_ns| Lane {
            endpoint,
            phase: Phase::Combine,
            step: u64::from(step),
            begin_ns: began_ns,
            end_ns,
            peer: None,
            bytes: 0,
            predicted: true,
        });
        self.send_back(message);
    }

    fn home_failed(&mut self, home: u32, error: &StepError) {
        let slot = &mut self.homes[home as usize];
        let (step, endpoint) = (slot.step, slot.endpoint);
        slot.run = None;
        self.ends[endpoint as usize]
            .homes
            .retain(|one| *one != home);
        if endpoint == COORDINATOR {
            return self.over(step, Err(error.clone()));
        }
        let remote = error.to_remote();
        let mut message = Message::new(Kind::Failed, (endpoint, COORDINATOR), home, step);
        message.bytes = encoded_len(0, remote.encode().len()) as u64;
        self.homes[home as usize].error = Some(remote);
        self.send_back(message);
    }

    fn send_back(&mut self, message: Message) {
        let from = message.from;
        self.messages.push(message);
        let at = count(self.messages.len() - 1);
        if self.sim.config().resident {
            return self.read(at);
        }
        self.hand_over(from, at, 1);
    }

    pub(super) fn count_local(&mut self, message: u32) {
        let one = &self.messages[message as usize];
        let (at, rows, bytes) = ((one.from, one.to), one.rows as usize, one.bytes);
        let request = one.kind.is_request();
        let carried = &mut self.steps[one.step as usize].carried;
        carried.carry(at.0, at.1, rows, bytes, request);
    }
}
