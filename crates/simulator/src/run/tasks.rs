//! Tasks on threads: who runs when, and what it takes.

use crate::costs::whole;
use crate::cpu::Grant;
use crate::experts::Shared;
use crate::net::slowed;
use crate::queue::Event;
use crate::run::parts::{Group, Task, Work};
use crate::run::{World, count};

// === impl World ===

impl World<'_> {
    /// Something for the I/O thread of an endpoint, behind what waits already.
    pub(super) fn push(&mut self, endpoint: u32, task: Task) {
        self.ends[endpoint as usize].queue.push_back(task);
        self.wake(endpoint, 0);
    }

    /// Something that its I/O thread does next.
    pub(super) fn push_urgent(&mut self, endpoint: u32, task: Task) {
        self.ends[endpoint as usize].urgent.push_back(task);
        self.wake(endpoint, 0);
    }

    /// A message is at an endpoint: its I/O thread reads it, in passing where that takes no time.
    pub(super) fn take_in(&mut self, endpoint: u32, message: u32) {
        if self.is_idle(endpoint) && self.reading_ns(message) == 0 {
            return self.read(message);
        }
        self.push(endpoint, Task::Read(message));
    }

    /// Messages, the first of so many, are for the network.
    pub(super) fn hand_over(&mut self, endpoint: u32, first: u32, messages: u32) {
        if self.is_idle(endpoint) {
            self.write(endpoint, first, messages, self.now);
            return;
        }
        self.push(endpoint, Task::Write(first, messages));
    }

    /// Whether I/O takes no time here and nothing is in its way.
    fn is_idle(&self, endpoint: u32) -> bool {
        self.sim.is_instant() && !self.ends[endpoint as usize].threads[0].is_awake
    }

    /// Work for an endpoint's compute threads, or for its I/O thread if it is `inline`. A device has
    /// no I/O thread to do it on.
    pub(super) fn compute(&mut self, endpoint: u32, work: Work, cost: Shared, inline: bool) {
        let inline = inline && self.sim.costs().on_cores;
        let threads = if inline { 1 } else { self.sim.config().threads };
        let (parts, piece_ns) = cost.cut(threads);
        let group = Group {
            work,
            piece_ns: slowed(piece_ns, self.ends[endpoint as usize].slow),
            slowdown: if inline { 1.0 } else { cost.slowdown() },
            left: u32::try_from(parts).unwrap_or(u32::MAX),
            began_ns: None,
        };
        let at = self.keep(group);
        if inline {
            return self.push_urgent(endpoint, Task::Piece(at));
        }
        let pieces = (0..parts).map(|_| Task::Piece(at));
        self.ends[endpoint as usize].pool.extend(pieces);
        let mut sleepers = parts;
        for lane in 1..=threads {
            if sleepers > 0 && !self.ends[endpoint as usize].threads[lane].is_awake {
                sleepers -= 1;
                self.wake(endpoint, lane);
            }
        }
    }

    fn keep(&mut self, group: Group) -> u32 {
        if let Some(at) = self.free_groups.pop() {
            self.groups[at as usize] = group;
            return at;
        }
        self.groups.push(group);
        count(self.groups.len() - 1)
    }

    /// Number of an endpoint's thread among all.
    pub(super) fn thread(&self, endpoint: u32, lane: usize) -> u32 {
        endpoint * (1 + count(self.sim.config().threads)) + count(lane)
    }

    /// The endpoint of a thread, and which of its threads it is.
    fn owner(&self, thread: u32) -> (u32, usize) {
        let each = 1 + count(self.sim.config().threads);
        (thread / each, (thread % each) as usize)
    }

    fn wake(&mut self, endpoint: u32, lane: usize) {
        let one = &mut self.ends[endpoint as usize];
        if one.is_down || std::mem::replace(&mut one.threads[lane].is_awake, true) {
            return;
        }
        let thread = self.thread(endpoint, lane);
        let grant = self.cpus.ask(thread, self.now);
        self.granted(grant);
    }

    pub(super) fn granted(&mut self, grant: Option<Grant>) {
        match grant {
            None => {}
            Some(Grant::Goes(thread, until)) => self.queue.push(until, Event::Thread(thread)),
            Some(Grant::Begin(thread)) => self.next_task(thread),
        }
    }

    /// A thread that has a core takes its next task, or sleeps. What takes no time is done at once.
    fn next_task(&mut self, thread: u32) {
        let (endpoint, lane) = self.owner(thread);
        let costs = self.sim.costs();
        loop {
            let one = &mut self.ends[endpoint as usize];
            let Some(task) = one.next(lane) else {
                one.threads[lane].is_awake = false;
                one.threads[lane].has_slept = true;
                let grant = self.cpus.leave(thread, false, self.now);
                return self.granted(grant);
            };
            let extra = match (std::mem::take(&mut one.threads[lane].has_slept), lane) {
                (false, _) => 0,
                (true, 0) => whole(costs.wake_ns),
                (true, _) => whole(costs.pool_ns),
            };
            let ns = extra + self.begin(endpoint, task, self.now + extra);
            if ns == 0 {
                self.end(endpoint, task);
                continue;
            }
            self.ends[endpoint as usize].threads[lane].task = Some(task);
            let slowdown = match task {
                Task::Piece(group) => self.groups[group as usize].slowdown,
                _ => 1.0,
            };
            let until = self.cpus.work(thread, ns, slowdown, self.now);
            return self.queue.push(until, Event::Thread(thread));
        }
    }

    pub(super) fn thread_ended(&mut self, thread: u32) {
        let Some(done) = self.cpus.ended(thread, self.now) else {
            return;
        };
        let (endpoint, lane) = self.owner(thread);
        if done {
            let task = self.ends[endpoint as usize].threads[lane].task.take();
            if let Some(task) = task {
                self.end(endpoint, task);
            }
        }
        let more = !done || self.ends[endpoint as usize].has_more(lane);
        if more && self.cpus.must_yield(thread, self.now) {
            let grant = self.cpus.leave(thread, true, self.now);
            self.granted(grant);
        } else if done {
            self.next_task(thread);
        } else {
            let until = self.cpus.goes_on(thread, self.now);
            self.queue.push(until, Event::Thread(thread));
        }
    }

    /// A task begins on a core at `at`; what it takes.
    fn begin(&mut self, endpoint: u32, task: Task, at: u64) -> u64 {
        let costs = self.sim.costs();
        match task {
            Task::Check(step) => {
                let tokens = self.steps[step as usize].input.route.tokens;
                let bytes = tokens * self.sim.config().layer.hidden * 4;
                costs.check.ns(bytes as u64)
            }
            Task::Plan(step) => {
                let choices = self.steps[step as usize].input.route.choices();
                costs.plan.ns(self.sim.at_each(choices as u64))
            }
            Task::SendShard(step) => self.pack_shard(step, at),
            Task::Pump(home) => self.pack_rows(home, at),
            Task::PassOn(message) => self.pack_parts(message),
            Task::Write(first, messages) => self.write(endpoint, first, messages, at),
            Task::Read(message) => self.reading_ns(message),
            Task::Closed(_) => costs.read.ns(0),
            Task::Tick => 0,
            Task::Piece(group) => {
                let one = &mut self.groups[group as usize];
                let work = one.work;
                if one.began_ns.is_none() {
                    one.began_ns = Some(at);
                    if let (Work::Batch(_), Some(batch)) =
                        (work, &mut self.ends[endpoint as usize].batch)
                    {
                        batch.started_ns = at;
                    }
                }
                self.groups[group as usize].piece_ns
            }
        }
    }

    /// Messages are handed over one after another.
    fn write(&mut self, endpoint: u32, first: u32, messages: u32, at: u64) -> u64 {
        let mut ns = 0;
        for message in first..first + messages {
            let one = &self.messages[message as usize];
            if one.to == endpoint {
                continue;
            }
            ns += self.sim.costs().write.ns(one.bytes);
            match at + ns > self.now {
                true => self.queue.push(at + ns, Event::Departs(message)),
                false => self.departs(message),
            }
        }
        ns
    }

    fn end(&mut self, endpoint: u32, task: Task) {
        match task {
            Task::Check(step) => self.checked(step),
            Task::Plan(step) => self.planned(step),
            Task::SendShard(step) => self.shard_packed(step),
            Task::Pump(home) => self.rows_packed(home),
            Task::PassOn(message) => self.parts_packed(message),
            Task::Write(..) => {}
            Task::Read(message) => self.read(message),
            Task::Closed(peer) => self.closed(endpoint, peer),
            Task::Tick => self.tick(endpoint),
            Task::Piece(group) => {
                let one = &mut self.groups[group as usize];
                one.left -= 1;
                if one.left == 0 {
                    let (work, began_ns) = (one.work, one.began_ns.unwrap_or(self.now));
                    self.free_groups.push(group);
                    self.computed(work, began_ns);
                }
            }
        }
    }

    /// Work is done that began at `began_ns`.
    fn computed(&mut self, work: Work, began_ns: u64) {
        match work {
            Work::Gate(step) => self.gated(step),
            Work::Batch(endpoint) => self.batch_done(endpoint),
            Work::Own(home) => self.own_done(home, began_ns),
            Work::FrontOwn(step) => self.front_own_done(step, began_ns),
            Work::Combine(home) => self.combined(home, began_ns),
            Work::Collect(step) => self.collected(step, began_ns),
            Work::Behind(step, worker) => {
                self.uses[worker as usize].behind_ns += self.behind_ns(step, worker);
                self.behind_done(step, worker);
            }
        }
    }
}
