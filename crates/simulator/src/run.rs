//! A run: all endpoints of a cluster under one clock, event by event.
//!
//! Reading order: [`World`] here, what endpoints and messages are (`parts`), how tasks get their
//! threads and what they take (`tasks`), then who does what: the coordinator (`front`), a home of
//! tokens (`home`), a host of experts (`host`), who passes rows on (`relay`), failures (`fail`), and what is told at the end
//! (`finish`).

mod fail;
mod finish;
mod front;
mod home;
mod host;
mod parts;
mod relay;
mod tasks;

use std::collections::BTreeSet;

use expertmesh_exchange::LossCause;
use expertmesh_kernels::prefetch_to_write;
use expertmesh_telemetry::Lane;
use expertmesh_topology::Passage;
use expertmesh_wire::Times;

use crate::config::{EndpointUse, Failure, Fault, SimConfig, SimRun, StepInput};
use crate::cpu::Cpus;
use crate::error::SimError;
use crate::experts::RowCounts;
use crate::log::{Entry, Log};
use crate::net::Net;
use crate::queue::{Event, Queue};
use crate::run::front::Front;
use crate::run::home::HomeSlot;
use crate::run::parts::{Endpoint, Group, Kind, Message, Task};
use crate::simulator::Simulator;
use crate::standing::{Failed, Standing};

/// Memory that one run leaves to the next: fresh pages cost more than they hold.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    messages: Vec<Message>,
    times: Vec<Times>,
    queue: Queue,
}

/// What is left of a run.
pub(crate) struct Ended {
    pub(crate) outcome: Result<SimRun, SimError>,
    pub(crate) standing: Standing,
}

/// Everything that a run changes.
pub(crate) struct World<'a> {
    sim: &'a Simulator,
    now: u64,
    queue: Queue,
    net: Net<'a>,
    cpus: Cpus,
    log: Log,
    ends: Vec<Endpoint>,
    uses: Vec<EndpointUse>,
    messages: Vec<Message>,
    /// Moments of results.
    times: Vec<Times>,
    /// When messages left, by number; empty unless lanes are asked for.
    departed_ns: Vec<u64>,
    /// Homes of all steps, those of a step in the order of its shards.
    homes: Vec<HomeSlot>,
    steps: Vec<Front<'a>>,
    groups: Vec<Group>,
    free_groups: Vec<u32>,
    /// Steps that are not over.
    open: usize,
    /// What the coordinator knows of its workers, by endpoint id.
    down: Vec<Option<LossCause>>,
    /// Which faults came true.
    happened: Vec<bool>,
    /// Which machines failed, by endpoint id.
    failed: Vec<Option<Failed>>,
    /// Who knows that whose streams have ended.
    gone: BTreeSet<(u32, u32)>,
    counts: RowCounts,
    lanes: Vec<Lane>,
    events: u64,
}

// === impl World ===

impl<'a> World<'a> {
    pub(crate) fn new(sim: &'a Simulator, inputs: &[StepInput<'a>], standing: Standing) -> Self {
        let config = sim.config();
        let fabric = sim.fabric();
        let endpoints = fabric.endpoints();
        let cores: Vec<u32> = match (sim.costs().on_cores, config.one_machine) {
            (true, Some(cores)) => vec![cores],
            (true, None) => (0..)
                .zip(fabric.hosts())
                .map(|(at, _)| fabric.cores_of_host(at))
                .collect(),
            (false, _) => vec![u32::MAX; fabric.hosts().len()],
        };
        let standing = standing.sized(endpoints, config.faults.len());
        let scratch = standing.scratch;
        let mut cpus = Cpus::new(&cores, crate::costs::whole(sim.costs().slice_ns));
        let mut ends = Vec::with_capacity(endpoints);
        for endpoint in 0..count(endpoints) {
            let host = match config.one_machine {
                Some(_) => 0,
                None => fabric.host_of(endpoint),
            };
            cpus.add(host, true);
            (0..config.threads).for_each(|_| cpus.add(host, false));
            ends.push(Endpoint::new(
                config.threads,
                slow_compute(config, endpoint),
            ));
        }
        let mut world = Self {
            sim,
            now: 0,
            queue: scratch.queue,
            net: Net::new(fabric, slow_links(config, endpoints), standing.lines),
            cpus,
            log: Log::new(config.log),
            ends,
            uses: vec![EndpointUse::default(); endpoints],
            messages: scratch.messages,
            times: scratch.times,
            departed_ns: Vec::new(),
            homes: Vec::new(),
            steps: inputs.iter().map(|input| Front::new(*input)).collect(),
            groups: Vec::new(),
            free_groups: Vec::new(),
            open: inputs.len(),
            down: standing.down,
            happened: standing.happened,
            failed: standing.failed,
            gone: BTreeSet::new(),
            counts: RowCounts::new(config.layer.experts + config.layer.free_experts),
            lanes: Vec::new(),
            events: 0,
        };
        world.prepare(inputs);
        world
    }

    /// Machines that failed already, then steps and faults that are known to come.
    fn prepare(&mut self, inputs: &[StepInput<'a>]) {
        let begins_ns = inputs.iter().map(|input| input.begins_ns).min();
        for endpoint in 1..count(self.ends.len()) {
            if let Some(LossCause::Disconnected(_)) = self.down[endpoint as usize] {
                let others = (0..count(self.ends.len())).filter(|other| *other != endpoint);
                self.gone.extend(others.map(|other| (other, endpoint)));
            }
            if let Some(failed) = self.failed[endpoint as usize] {
                self.ends[endpoint as usize].is_down = true;
                // Its streams ended, and not everybody has learnt of it yet.
                if failed.how == Failure::Dies && self.down[endpoint as usize].is_none() {
                    self.streams_end(endpoint, failed.at_ns, begins_ns.unwrap_or(0));
                }
            }
        }
        for (step, input) in (0..).zip(inputs) {
            match input.follows {
                Some(before) => self.steps[before].next = Some(step),
                None => self.queue.push(input.begins_ns, Event::Begins(step)),
            }
        }
        for (at, fault) in (0..).zip(&self.sim.config().faults) {
            if let (Fault::Lost { at_ns, .. }, false) = (fault, self.happened[at as usize]) {
                self.queue.push(*at_ns, Event::Fault(at));
            }
        }
    }

    /// Lets things happen until every step is over.
    pub(crate) fn finish(mut self) -> Ended {
        let outcome = self.play().and_then(|()| self.told());
        let mut scratch = Scratch {
            messages: std::mem::take(&mut self.messages),
            times: std::mem::take(&mut self.times),
            queue: std::mem::take(&mut self.queue),
        };
        scratch.messages.clear();
        scratch.times.clear();
        scratch.queue.clear();
        Ended {
            outcome,
            standing: Standing {
                down: self.down,
                happened: self.happened,
                failed: self.failed,
                lines: self.net.take_lines(),
                scratch,
            },
        }
    }

    fn play(&mut self) -> Result<(), SimError> {
        while self.open > 0 {
            let Some((at, event)) = self.queue.pop() else {
                let step = self.steps.iter().position(|step| step.outcome.is_none());
                return Err(SimError::Stuck {
                    step: step.unwrap_or(0),
                    now_ns: self.now,
                });
            };
            debug_assert!(at >= self.now, "time goes one way");
            self.look_ahead();
            self.now = at;
            self.events += 1;
            self.happen(event);
        }
        Ok(())
    }

    /// Asks memory for what the next events are about: by the time they come it is far away.
    #[inline]
    fn look_ahead(&self) {
        if let Some(message) = self.queue.message_ahead(6) {
            prefetch_to_write(&self.messages, message as usize);
        }
        if let Some(message) = self.queue.message_ahead(4) {
            let message = &self.messages[message as usize];
            prefetch_to_write(&self.homes, message.home as usize);
            prefetch_to_write(&self.ends, message.to as usize);
            prefetch_to_write(&self.times, message.note as usize);
        }
        if let Some(message) = self.queue.message_ahead(2) {
            let message = &self.messages[message as usize];
            let home = self.homes.get(message.home as usize);
            let run = home.and_then(|home| home.run.as_ref());
            if let (Kind::Results, Some(run)) = (message.kind, run) {
                run.home.expect_chunk(message.at as usize);
                run.moments
                    .expect_chunk(message.host as usize, message.at as usize);
            }
        }
    }

    #[inline]
    fn happen(&mut self, event: Event) {
        match event {
            Event::Departs(message) => self.departs(message),
            Event::Reaches(message) => {
                let one = &self.messages[message as usize];
                let parcel = one.parcel(self.net.is_near(one.from, one.to));
                let window = Passage {
                    begin_ns: self.now,
                    end_ns: one.moment_ns,
                };
                let at = self.net.arrive(parcel, window);
                self.queue.push(at, Event::Arrives(message));
            }
            Event::Arrives(message) => self.arrives(message),
            Event::Thread(thread) => self.thread_ended(thread),
            Event::Timer(endpoint) => {
                self.ends[endpoint as usize].timer_ns = u64::MAX;
                if !self.ends[endpoint as usize].is_down {
                    self.push(endpoint, Task::Tick);
                }
            }
            Event::Begins(step) => self.begins(step),
            Event::Fault(fault) => self.fails(fault),
        }
    }

    fn departs(&mut self, message: u32) {
        let one = &self.messages[message as usize];
        let (from, to) = (one.from, one.to);
        // What was still in the hands of an endpoint that failed never leaves it.
        if self.ends[from as usize].is_down {
            return;
        }
        let parcel = one.parcel(false);
        self.uses[from as usize].sent_bytes += one.bytes;
        if one.kind.is_counted() {
            let (rows, request) = (one.rows as usize, one.kind.is_request());
            let step = &mut self.steps[one.step as usize];
            step.carried.carry(from, to, rows, one.bytes, request);
        }
        let passed = self.net.leave(parcel, self.now);
        self.messages[message as usize].moment_ns = passed.end_ns;
        if self.sim.config().lanes {
            self.departed_ns.resize(self.messages.len(), 0);
            self.departed_ns[message as usize] = self.now;
        }
        self.queue.push(passed.begin_ns, Event::Reaches(message));
    }

    fn arrives(&mut self, message: u32) {
        let Message {
            kind,
            from,
            to,
            bytes,
            ..
        } = self.messages[message as usize];
        if kind == Kind::Closed {
            return self.push(to, Task::Closed(from));
        }
        self.log.add(self.now, Entry::Message, from, to, bytes);
        if self.ends[to as usize].is_down {
            return;
        }
        self.uses[to as usize].received_bytes += bytes;
        self.message_lane(message);
        self.take_in(to, message);
    }

    /// Keeps a piece of somebody's time, if lanes are asked for.
    fn lane(&mut self, lane: impl FnOnce(u64) -> Lane) {
        if self.sim.config().lanes {
            self.lanes.push(lane(self.now));
        }
    }

    fn message_lane(&mut self, message: u32) {
        if !self.sim.config().lanes {
            return;
        }
        let one = &self.messages[message as usize];
        let Some(phase) = one.kind.phase() else {
            return;
        };
        let (endpoint, peer, step) = (one.from, Some(one.to), u64::from(one.step));
        let (begin_ns, bytes) = (self.departed_ns[message as usize], one.bytes);
        self.lane(|end_ns| Lane {
            endpoint,
            phase,
            step,
            begin_ns,
            end_ns,
            peer,
            bytes,
            predicted: true,
        });
    }
}

fn slow_compute(config: &SimConfig, of: u32) -> f64 {
    let factor = |fault: &Fault| match *fault {
        Fault::SlowCompute { endpoint, factor } if endpoint == of => factor,
        _ => 1.0,
    };
    config.faults.iter().map(factor).fold(1.0, f64::max)
}

fn slow_links(config: &SimConfig, endpoints: usize) -> Vec<f64> {
    let mut slow = Vec::new();
    for fault in &config.faults {
        if let Fault::SlowLink { endpoint, factor } = *fault {
            slow.resize(endpoints, 1.0);
            slow[endpoint as usize] = factor.max(slow[endpoint as usize]);
        }
    }
    slow
}

/// Numbers of endpoints, messages and shards are below 2^32.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
