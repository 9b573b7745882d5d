//! A worker on the bus: expert host, and home to a shard.

use std::collections::BTreeMap;

use expertmesh_exchange::{
    Beside, COORDINATOR, ClockMap, Cohort, HomeRun, HomeSetup, Host, HostAction, Outgoing,
    RelayFrame, RowSource, RowsJob, ShardFrame, ShardPlan, StepError, error_frame,
    home_deadline_ns, write_combined,
};
use expertmesh_experts::Scratch;
use expertmesh_kernels::{decode_row, encode_row};
use expertmesh_wire::{ErrorCode, FrameKind, FrameView, Header, RemoteError, Tag, Times};

use crate::bus::front::{gone, home_setup, shared};
use crate::bus::run::Net;
use crate::bus::{Bus, Fault, FaultKind};

/// A worker's side of a step.
pub(super) struct Peer<'a> {
    pub(super) id: u32,
    bus: &'a Bus,
    host: Host,
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
    /// Keys of the batch that runs, and when it began.
    batch: Option<(Vec<u64>, u64)>,
    home: Option<Home>,
    clocks: Vec<ClockMap>,
    gone: Vec<bool>,
    fault: Option<Fault>,
    taken: usize,
    down: bool,
}

struct Job {
    rows: RowsJob,
    received_ns: u64,
}

struct Home {
    run: HomeRun,
    shard: ShardFrame,
    received_ns: u64,
    ended: bool,
}

/// What a message finds.
pub(super) enum Status {
    Up,
    /// It failed earlier.
    Down,
    /// It fails now.
    Fails(FaultKind),
}

// === impl Peer ===

impl<'a> Peer<'a> {
    pub(super) fn new(bus: &'a Bus, id: u32, fault: Option<Fault>) -> Self {
        let endpoints = bus.table.endpoints();
        Self {
            id,
            bus,
            host: Host::new(bus.setup.batch_choices),
            jobs: BTreeMap::new(),
            next_job: 0,
            batch: None,
            home: None,
            clocks: vec![ClockMap::unknown(); endpoints],
            gone: vec![false; endpoints],
            fault,
            taken: 0,
            down: false,
        }
    }

    /// Counts a message that is about to be taken.
    pub(super) fn takes_one(&mut self) -> Status {
        if self.down {
            return Status::Down;
        }
        match self.fault {
            Some(fault) if self.taken >= fault.after => {
                self.down = true;
                Status::Fails(fault.kind)
            }
            _ => {
                self.taken += 1;
                Status::Up
            }
        }
    }

    pub(super) fn can_start_batch(&self) -> bool {
        !self.down && self.batch.is_none() && self.host.waiting() > 0
    }

    pub(super) fn can_end_batch(&self) -> bool {
        !self.down && self.batch.is_some()
    }

    pub(super) fn start_batch(&mut self, net: &Net) {
        // The scheduler starts a batch at any time: one whose cohort is not complete is one whose
        // patience is over.
        let polled = self.host.poll().or_else(|| {
            self.host.on_tick(u64::MAX);
            self.host.poll()
        });
        let Some(HostAction::Run(keys)) = polled else {
            panic!("a host with work and no batch");
        };
        self.batch = Some((keys, net.clock(self.id)));
    }

    /// Computes the batch, expert by expert and row by row, and sends its results.
    pub(super) fn end_batch(&mut self, net: &mut Net) {
        let Some((keys, started_ns)) = self.batch.take() else {
            return;
        };
        self.host.on_done();
        for key in keys {
            let job = self.jobs.remove(&key).expect("a queued job");
            let times = Times {
                received_ns: job.received_ns,
                started_ns,
                computed_ns: net.clock(self.id),
                sent_ns: net.clock(self.id),
            };
            let message = self.compute(&job, times, net);
            // Whoever passed the rows on, their home adds them up.
            net.send(self.id, job.rows.frame.header.tag.shard, message);
        }
    }

    fn compute(&self, job: &Job, times: Times, net: &Net) -> bytes::Bytes {
        let header = job.rows.results_header(times);
        let mut frame = job.rows.results(&net.pool);
        frame.set_header(&header);
        let hidden = self.bus.parts.spec.hidden;
        let (mut x, mut y) = (vec![0.0; hidden], vec![0.0; hidden]);
        let mut scratch = Scratch::default();
        let mut slots = frame.rows().chunks_exact_mut(header.row_bytes());
        for (row, range) in job.rows.offsets.windows(2).enumerate() {
            decode_row(header.format, job.rows.frame.row(row), &mut x);
            for expert in &job.rows.experts[range[0] as usize..range[1] as usize] {
                let expert = &self.bus.parts.experts[*expert as usize];
                expert.forward(&x, &mut y, &mut scratch).expect("one row");
                encode_row(header.format, &y, slots.next().expect("a slot a choice"));
            }
        }
        assert!(slots.next().is_none(), "a slot without a choice");
        frame.finish()
    }

    /// A frame arrived.
    pub(super) fn arrived(&mut self, from: u32, frame: FrameView, net: &mut Net) {
        let now = net.clock(self.id);
        match frame.header.kind {
            FrameKind::Shard => self.on_shard(frame, net),
            FrameKind::Rows => self.on_rows(frame, now),
            FrameKind::Relay => self.on_relay(from, frame, net),
            FrameKind::Error => {
                if let Some(home) = &mut self.home {
                    home.run.on_error(from, RemoteError::decode(&frame.rows));
                }
                self.pump(net);
            }
            FrameKind::Results => {
                if let Some(home) = &mut self.home {
                    let clock = &mut self.clocks[from as usize];
                    home.run.on_results(from, frame, clock, now);
                }
                self.pump(net);
            }
            kind => panic!("{} at a worker", kind.as_str_name()),
        }
    }

    /// The stream to another endpoint ended.
    pub(super) fn closed(&mut self, endpoint: u32, net: &mut Net) {
        self.gone[endpoint as usize] = true;
        if let Some(home) = &mut self.home {
            home.run.on_host_lost(endpoint, gone());
        }
        self.pump(net);
    }

    /// When this home gives up, on its own clock.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        let home = self.home.as_ref().filter(|home| !home.ended && !self.down);
        home.map(|home| home.run.deadline_ns())
    }

    pub(super) fn tick(&mut self, net: &mut Net) {
        if self.down {
            return;
        }
        if let Some(home) = &mut self.home {
            home.run.on_tick(net.clock(self.id));
        }
        self.pump(net);
    }

    fn on_relay(&mut self, from: u32, frame: FrameView, net: &mut Net) {
        let hidden = frame.header.hidden;
        let relay = RelayFrame::read(frame, hidden, [self.id, from], &self.bus.table);
        let relay = relay.expect("a bundle of ours");
        let now = net.clock(self.id);
        for part in relay.parts() {
            let to = part.endpoint;
            let stamp = || (now, relay.header().budget_ns);
            let message = match self.gone[to as usize] {
                false => relay.rows_frame(part, &net.pool, stamp),
                true => {
                    let error = RemoteError::new(ErrorCode::WorkerLost, "it is gone").about(to);
                    let message = error_frame(&net.pool, relay.header(), &error);
                    net.send(self.id, from, message);
                    continue;
                }
            };
            net.send(self.id, to, message);
        }
    }

    fn on_rows(&mut self, frame: FrameView, received_ns: u64) {
        let hidden = u32::try_from(self.bus.parts.spec.hidden).expect("a small row");
        let holds = |expert| self.bus.table.holds(self.id, expert);
        let (frame_step, extent) = (frame.header.tag.step, frame.header.extent);
        let rows = RowsJob::read(frame, hidden, holds).expect("rows of ours");
        let key = self.next_job;
        self.next_job += 1;
        let cohort = Cohort {
            step: frame_step,
            chunks: extent,
            patience_ns: 1,
        };
        self.host.on_rows(key, rows.choices(), cohort, received_ns);
        let job = Job { rows, received_ns };
        self.jobs.insert(key, job);
    }

    fn on_shard(&mut self, frame: FrameView, net: &mut Net) {
        let received_ns = net.clock(self.id);
        let header = frame.header;
        let shard = ShardFrame::read(frame, header.hidden, &self.bus.table);
        let shard = shard.expect("a shard of ours");
        let plan = ShardPlan::new(self.id, shard.kept(), &self.bus.table, self.bus.limits);
        let tag = Tag {
            shard: self.id,
            ..header.tag
        };
        let deadline_ns = home_deadline_ns(received_ns, header.budget_ns);
        let setup = HomeSetup {
            extents: shard.extents.clone(),
            ..home_setup(self.bus, tag, received_ns, deadline_ns)
        };
        self.home = Some(Home {
            run: HomeRun::new(plan, setup),
            shard,
            received_ns,
            ended: false,
        });
        self.pump(net);
    }

    fn pump(&mut self, net: &mut Net) {
        let Some(mut home) = self.home.take() else {
            return;
        };
        let now = net.clock(self.id);
        let rows = home.shard.frame.rows.clone();
        while let Some(action) = home.run.poll(RowSource::Encoded(&rows), &net.pool, || now) {
            match action {
                Outgoing::Send { endpoint, .. } if self.gone[endpoint as usize] => {
                    home.run.on_host_lost(endpoint, gone());
                }
                Outgoing::Send { endpoint, message } => net.send(self.id, endpoint, message),
                Outgoing::Combine => {
                    home.ended = true;
                    let message = self.combined(&home, net);
                    net.send(self.id, COORDINATOR, message);
                }
                Outgoing::Fail(error) => {
                    home.ended = true;
                    let message = failed(&home, &error, net);
                    net.send(self.id, COORDINATOR, message);
                }
            }
        }
        self.home = Some(home);
    }

    fn combined(&self, home: &Home, net: &Net) -> bytes::Bytes {
        let request = home.shard.frame.header;
        let (tokens, hidden) = (request.row_count as usize, request.hidden as usize);
        let mut x = vec![0.0; tokens * hidden];
        decode_row(request.format, &home.shard.frame.rows, &mut x);
        let shared = shared(self.bus, &x);
        let mut out = vec![0.0; tokens * hidden];
        let beside = Beside {
            shared: shared.as_deref(),
            own: &[],
        };
        home.run.combine(0..tokens, &mut out, beside);
        let mut header = Header::new(
            FrameKind::Combined,
            request.tag,
            request.hidden,
            self.bus.rule.dtype,
        );
        header.row_count = request.row_count;
        header.times.received_ns = home.received_ns;
        let now = net.clock(self.id);
        let timeline = home.run.timeline(now, 0);
        write_combined(&net.pool, header, &out, &timeline, &home.run.lost(), || now)
    }
}

fn failed(home: &Home, error: &StepError, net: &Net) -> bytes::Bytes {
    error_frame(&net.pool, &home.shard.frame.header, &error.to_remote())
}
