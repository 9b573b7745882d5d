//! Being host to experts: reading, batches, results.

use std::ops::Range;

use expertmesh_exchange::{
    COORDINATOR, Cohort, ExchangeKind, HostAction, HostRows, LossCause, estimate_ns,
};
use expertmesh_experts::pieces::INLINE_NS;
use expertmesh_kernels::prefetch_to_write;
use expertmesh_telemetry::{Lane, Phase};
use expertmesh_wire::{Times, encoded_len};

use crate::costs::whole;
use crate::log::Entry;
use crate::queue::Event;
use crate::run::parts::{Batch, Kind, Message, Task, Work};
use crate::run::{World, count};

// === impl World ===

impl World<'_> {
    /// What taking a message in costs.
    pub(super) fn reading_ns(&self, message: u32) -> u64 {
        let one = &self.messages[message as usize];
        let read = self.sim.costs().read.ns(one.bytes);
        match one.kind {
            Kind::Shard => read + self.shard_plan_ns(one.home),
            _ => read,
        }
    }

    /// A message is in.
    pub(super) fn read(&mut self, message: u32) {
        let Message {
            kind,
            home,
            from,
            to,
            ..
        } = self.messages[message as usize];
        let known = &mut self.down[from as usize];
        if to == COORDINATOR && matches!(known, Some(LossCause::Deadline { .. })) {
            // It was late, but it lives.
            *known = None;
        }
        match kind {
            Kind::Shard => self.on_shard(message),
            Kind::Rows => self.on_rows(message),
            Kind::Relay => {
                let relay = self.messages[message as usize].to;
                self.push_urgent(relay, Task::PassOn(message));
            }
            Kind::Results => self.on_results(message),
            Kind::Combined => self.on_combined(home, None),
            Kind::Failed => {
                let error = self.homes[home as usize].error.clone();
                self.on_combined(home, error);
            }
            // It is its own task.
            Kind::Closed => {}
        }
    }

    /// Rows for experts of this worker.
    pub(super) fn on_rows(&mut self, message: u32) {
        let config = self.sim.config();
        let one = &mut self.messages[message as usize];
        one.note = self.now;
        let (to, step, choices) = (one.to, one.step, one.choices as usize);
        let extent = match config.exchange {
            ExchangeKind::Star => self.rows_of(message).0.first_chunks(config.credits),
            _ => self.steps[step as usize].plan.extents[to as usize],
        };
        let active = self.count_rows(message);
        self.counts.drain().for_each(drop);
        let expert = config.layer.expert;
        let cost_ns = estimate_ns(
            choices as u64 * expert.flops_per_row,
            active * expert.weight_bytes,
            (choices * config.layer.row_bytes()) as u64,
        );
        // What it was handed over at is told; its host remembers what it costs.
        self.messages[message as usize].moment_ns = cost_ns;
        let cohort = Cohort::new(u64::from(step), extent, cost_ns);
        let machine = &mut self.ends[to as usize].host;
        machine.on_rows(u64::from(message), choices, cohort, self.now);
        self.pump_host(to);
    }

    /// What a host gets of a home's plan, and the choices of a chunk of it.
    fn rows_of(&self, message: u32) -> (HostRows<'_>, Range<usize>) {
        let one = &self.messages[message as usize];
        let shard = self.homes[one.home as usize].shard as usize;
        let plan = &self.steps[one.step as usize].plan.shards[shard].plan;
        let rows = plan.host(one.host as usize);
        (rows, rows.chunks[one.chunk as usize].choices.clone())
    }

    /// Counts a chunk's rows by expert; returns the experts that have rows by now.
    fn count_rows(&mut self, message: u32) -> u64 {
        let one = &self.messages[message as usize];
        if let Some(expert) = self.sim.only_expert(one.to) {
            self.counts.add(expert, one.choices);
            return 1;
        }
        let shard = self.homes[one.home as usize].shard as usize;
        let plan = &self.steps[one.step as usize].plan.shards[shard].plan;
        let rows = plan.host(one.host as usize);
        let choices = rows.chunks[one.chunk as usize].choices.clone();
        for expert in &rows.experts[choices] {
            self.counts.count(*expert);
        }
        self.counts.active() as u64
    }

    /// Starts the host machine's next batch, if it has any.
    pub(super) fn pump_host(&mut self, endpoint: u32) {
        let now = self.now;
        let one = &mut self.ends[endpoint as usize];
        one.host.on_tick(now);
        let Some(HostAction::Run(jobs)) = one.host.poll() else {
            if let Some(deadline_ns) = one.host.deadline_ns() {
                self.arm(endpoint, deadline_ns);
            }
            return;
        };
        let costs = self.sim.costs();
        let row_bytes = self.sim.config().layer.row_bytes() as u64;
        let (mut estimate, mut replies_ns, mut rows, mut choices) = (0, 0, 0, 0);
        for (at, job) in jobs.iter().enumerate() {
            self.expect_job(&jobs, at);
            let at = index_of(*job);
            let one = &self.messages[at];
            estimate += one.moment_ns;
            rows += u64::from(one.rows);
            choices += u64::from(one.choices);
            let back = encoded_len(0, one.choices as usize * row_bytes as usize);
            replies_ns += costs.reply.ns(back as u64);
            self.count_rows(count(at));
        }
        let mut cost = self.sim.experts_on(endpoint).of(self.counts.drain());
        let copied = crate::costs::float((rows + choices) * row_bytes) * costs.experts.byte_ns;
        cost.total_ns += whole(copied + costs.experts.batch_ns) + replies_ns;
        let batch = count(jobs.len());
        self.log.add(now, Entry::Batch, endpoint, batch, choices);
        self.ends[endpoint as usize].batch = Some(Batch {
            jobs,
            started_ns: now,
            replies_ns,
        });
        self.compute(endpoint, Work::Batch(endpoint), cost, estimate <= INLINE_NS);
    }

    /// A batch is computed: its results go home.
    pub(super) fn batch_done(&mut self, endpoint: u32) {
        let Some(batch) = self.ends[endpoint as usize].batch.take() else {
            return;
        };
        let started_ns = batch.started_ns;
        let computed_ns = self.now.saturating_sub(batch.replies_ns).max(started_ns);
        let jobs = count(batch.jobs.len());
        let took = self.now - started_ns;
        self.log.add(self.now, Entry::Batched, endpoint, jobs, took);
        self.ends[endpoint as usize].host.on_done();
        let first = count(self.messages.len());
        let row_bytes = self.sim.config().layer.row_bytes();
        let mut sent_ns = computed_ns;
        for (at, job) in batch.jobs.iter().enumerate() {
            self.expect_job(&batch.jobs, at);
            let rows = self.messages[index_of(*job)];
            self.batch_lanes(&rows, started_ns, computed_ns);
            let choices = rows.choices as usize;
            // Whoever passed the rows on, their home adds them up.
            let back = (endpoint, self.homes[rows.home as usize].endpoint);
            let mut message = Message::new(Kind::Results, back, rows.home, rows.step);
            (message.host, message.chunk) = (rows.host, rows.chunk);
            message.rows = rows.choices;
            message.bytes = encoded_len(0, choices * row_bytes) as u64;
            sent_ns = (sent_ns + self.sim.costs().reply.ns(message.bytes)).min(self.now);
            message.at = rows.at;
            message.note = self.times.len() as u64;
            self.times.push(Times {
                received_ns: rows.note,
                started_ns,
                computed_ns,
                sent_ns,
            });
            self.messages.push(message);
        }
        self.hand_over(endpoint, first, jobs);
        for message in first..first + jobs {
            let one = &self.messages[message as usize];
            if one.to == endpoint {
                let (step, rows, bytes) = (one.step as usize, one.rows as usize, one.bytes);
                self.steps[step]
                    .carried
                    .carry(endpoint, endpoint, rows, bytes, false);
                self.on_results(message);
            }
        }
        self.pump_host(endpoint);
    }

    /// Asks memory for the message of a job that soon follows the one at `at`.
    #[inline]
    fn expect_job(&self, jobs: &[u64], at: usize) {
        if let Some(job) = jobs.get(at + 4) {
            prefetch_to_write(&self.messages, index_of(*job));
        }
    }

    fn batch_lanes(&mut self, rows: &Message, started_ns: u64, computed_ns: u64) {
        if !self.sim.config().lanes {
            return;
        }
        let home = self.homes[rows.home as usize].endpoint;
        let (endpoint, peer, step) = (rows.to, Some(home), u64::from(rows.step));
        let spans = [
            (Phase::Queue, rows.note, started_ns),
            (Phase::Experts, started_ns, computed_ns),
        ];
        for (phase, begin_ns, end_ns) in spans {
            self.lane(|_| Lane {
                endpoint,
                phase,
                step,
                begin_ns,
                end_ns,
                peer,
                bytes: rows.bytes,
                predicted: true,
            });
        }
    }

    /// An endpoint looks at its deadlines at `deadline_ns`, or on the grid of its timers.
    pub(super) fn arm(&mut self, endpoint: u32, deadline_ns: u64) {
        let grid = whole(self.sim.costs().timer_ns).max(1);
        let at = deadline_ns
            .div_ceil(grid)
            .saturating_mul(grid)
            .max(self.now);
        let one = &mut self.ends[endpoint as usize];
        if at < one.timer_ns {
            one.timer_ns = at;
            self.queue.push(at, Event::Timer(endpoint));
        }
    }

    /// Ends what is late.
    pub(super) fn tick(&mut self, endpoint: u32) {
        let now = self.now;
        let mut next = u64::MAX;
        for home in self.ends[endpoint as usize].homes.clone() {
            if let Some(run) = &mut self.homes[home as usize].run {
                match run.home.deadline_ns() <= now {
                    true => run.home.on_tick(now),
                    false => next = next.min(run.home.deadline_ns()),
                }
            }
            self.pump_home(home);
        }
        if endpoint == COORDINATOR {
            for step in 0..count(self.steps.len()) {
                let front = &mut self.steps[step as usize];
                if let (Some(conductor), None) = (&mut front.conductor, &front.outcome) {
                    match conductor.deadline_ns() <= now {
                        true => conductor.on_tick(now),
                        false => next = next.min(conductor.deadline_ns()),
                    }
                    self.pump_shards(step);
                }
            }
        } else {
            self.pump_host(endpoint);
        }
        if next < u64::MAX {
            self.arm(endpoint, next);
        }
    }
}

/// Keys of jobs are numbers of messages, and notes are positions.
pub(super) fn index_of(job: u64) -> usize {
    usize::try_from(job).unwrap_or(usize::MAX)
}
