//! The coordinator on the bus.

use std::ops::Range;
use std::sync::Arc;

use expertmesh_exchange::{
    Beside, COORDINATOR, ClockMap, CombinedFrame, Conductor, ConductorAction, ExchangeKind,
    HomeRun, HomeSetup, KeptChoices, LossCause, Outgoing, PlanRules, RowSource, ShardOf, ShardPlan,
    StepError, StepPlan, TrafficLedger, write_shard,
};
use expertmesh_experts::Scratch;
use expertmesh_routing::{Admission, Fate, Route, admit};
use expertmesh_wire::{FrameKind, FrameView, Header, RemoteError, Tag};

use crate::bus::Bus;
use crate::bus::run::Net;
use crate::reference::through;

/// Session and step of everything on the bus.
pub(super) const TAG: Tag = Tag {
    session: 7,
    epoch: 0,
    step: 3,
    layer: 1,
    shard: 0,
    chunk: 0,
    attempt: 0,
};

/// The coordinator's side of a step.
pub(super) struct Front<'a> {
    pub(super) bus: &'a Bus,
    pub(super) route: Route,
    pub(super) planned: TrafficLedger,
    pub(super) outcome: Option<Result<(), StepError>>,
    x: &'a [f32],
    admission: Admission,
    shards: Vec<Shard>,
    kind: Kind,
    clocks: Vec<ClockMap>,
    gone: Vec<bool>,
    /// What each home tells the hosts of the others' chunks.
    extents: Vec<u32>,
}

struct Shard {
    home: u32,
    tokens: Range<usize>,
    kept: KeptChoices,
    combined: Option<CombinedFrame>,
}

enum Kind {
    Star(Box<HomeRun>),
    AllToAll(Conductor),
}

// === impl Front ===

impl<'a> Front<'a> {
    pub(super) fn new(bus: &'a Bus, x: &'a [f32], route: Route, now_ns: u64) -> Self {
        let setup = &bus.setup;
        let admission = admit(&route, &setup.capacity, &bus.admit_context());
        let admission = admission.expect("a route");
        let workers = u32::try_from(setup.placement.workers()).expect("few workers");
        let rules = PlanRules {
            kind: setup.exchange,
            homes: &(1..=workers).collect::<Vec<u32>>(),
            table: &bus.table,
            limits: bus.limits,
            output_row_bytes: bus.parts.spec.hidden * bus.rule.dtype.bytes(),
            one_by_one: bus.rule.one_by_one,
            credits: setup.credits,
        };
        let plan = StepPlan::new(
            |range| KeptChoices::new(&route, &admission, range),
            route.tokens,
            &rules,
        );
        let mut plans: Vec<ShardPlan> = Vec::new();
        let shard = |shard: ShardOf| {
            plans.push(shard.plan);
            Shard {
                home: shard.home,
                tokens: shard.tokens,
                kept: shard.kept,
                combined: None,
            }
        };
        let shards: Vec<Shard> = plan.shards.into_iter().map(shard).collect();
        let deadline_ns = now_ns + setup.deadline_ns;
        let kind = match setup.exchange {
            ExchangeKind::Star => Kind::Star(Box::new(HomeRun::new(
                plans.remove(0),
                home_setup(bus, TAG, now_ns, deadline_ns),
            ))),
            ExchangeKind::AllToAll | ExchangeKind::Hierarchical => {
                let homes: Vec<u32> = shards.iter().map(|shard| shard.home).collect();
                let (step, names, on_loss) = (TAG.step, &bus.names, setup.on_loss);
                Kind::AllToAll(Conductor::new(
                    step,
                    &homes,
                    names,
                    now_ns,
                    deadline_ns,
                    on_loss,
                ))
            }
        };
        Self {
            bus,
            route,
            planned: plan.ledger,
            outcome: None,
            x,
            admission,
            shards,
            kind,
            clocks: vec![ClockMap::unknown(); bus.table.endpoints()],
            gone: vec![false; bus.table.endpoints()],
            extents: plan.extents,
        }
    }

    /// Carries out what the machine asks for.
    pub(super) fn pump(&mut self, net: &mut Net) {
        match &mut self.kind {
            Kind::Star(run) => {
                let clock = net.clock(COORDINATOR);
                while let Some(action) = run.poll(RowSource::F32(self.x), &net.pool, || clock) {
                    match action {
                        Outgoing::Send { endpoint, .. } if self.gone[endpoint as usize] => {
                            run.on_host_lost(endpoint, gone());
                        }
                        Outgoing::Send { endpoint, message } => {
                            net.send(COORDINATOR, endpoint, message);
                        }
                        Outgoing::Combine => self.outcome = Some(Ok(())),
                        Outgoing::Fail(error) => self.outcome = Some(Err(error)),
                    }
                }
            }
            Kind::AllToAll(_) => self.pump_shards(net),
        }
    }

    fn pump_shards(&mut self, net: &mut Net) {
        let Kind::AllToAll(conductor) = &mut self.kind else {
            return;
        };
        let hidden = self.bus.parts.spec.hidden;
        let deadline_ns = conductor.deadline_ns();
        while let Some(action) = conductor.poll() {
            match action {
                ConductorAction::SendShard { shard } => {
                    let one = &self.shards[shard];
                    let home = one.home;
                    if self.gone[home as usize] {
                        conductor.on_home_lost(home, gone());
                        continue;
                    }
                    let tag = Tag { shard: home, ..TAG };
                    let narrow = u32::try_from(hidden).expect("a small row");
                    let header =
                        Header::new(FrameKind::Shard, tag, narrow, self.bus.rule.row_format);
                    let rows = &self.x[one.tokens.start * hidden..one.tokens.end * hidden];
                    let now = net.clock(COORDINATOR);
                    let stamp = || (now, deadline_ns.saturating_sub(now));
                    let (kept, extents) = (one.kept.as_kept(), &self.extents);
                    let message = write_shard(&net.pool, header, rows, kept, extents, stamp);
                    net.send(COORDINATOR, home, message);
                }
                ConductorAction::Finish => self.outcome = Some(Ok(())),
                ConductorAction::Fail(error) => self.outcome = Some(Err(error)),
            }
        }
    }

    /// A frame arrived.
    pub(super) fn arrived(&mut self, from: u32, frame: FrameView, net: &mut Net) {
        let now = net.clock(COORDINATOR);
        let kind = frame.header.kind;
        match (&mut self.kind, kind) {
            (Kind::Star(run), FrameKind::Results) => {
                run.on_results(from, frame, &mut self.clocks[from as usize], now);
            }
            (Kind::Star(run), FrameKind::Error) => {
                let error = RemoteError::decode(&frame.rows);
                run.on_host_lost(from, LossCause::Reported(error));
            }
            (Kind::AllToAll(conductor), FrameKind::Combined) => {
                if let Some(at) = conductor.awaited(from) {
                    let shard = &mut self.shards[at];
                    let combined = CombinedFrame::read(
                        frame,
                        shard.tokens.len(),
                        shard.kept.targets.len(),
                        u32::try_from(self.bus.parts.spec.hidden).expect("a small row"),
                        self.bus.rule.dtype,
                    );
                    shard.combined = Some(combined.expect("a frame of ours"));
                    conductor.on_combined(at);
                }
            }
            (Kind::AllToAll(conductor), FrameKind::Error) => {
                conductor.on_shard_failed(from, RemoteError::decode(&frame.rows));
            }
            _ => panic!("{} at the coordinator", kind.as_str_name()),
        }
        self.pump(net);
    }

    /// The stream to a worker ended.
    pub(super) fn closed(&mut self, endpoint: u32, net: &mut Net) {
        self.gone[endpoint as usize] = true;
        match &mut self.kind {
            Kind::Star(run) => run.on_host_lost(endpoint, gone()),
            Kind::AllToAll(conductor) => conductor.on_home_lost(endpoint, gone()),
        }
        self.pump(net);
    }

    pub(super) fn deadline_ns(&self) -> u64 {
        match &self.kind {
            Kind::Star(run) => run.deadline_ns(),
            Kind::AllToAll(conductor) => conductor.deadline_ns(),
        }
    }

    pub(super) fn tick(&mut self, net: &mut Net) {
        let now = net.clock(COORDINATOR);
        match &mut self.kind {
            Kind::Star(run) => run.on_tick(now),
            Kind::AllToAll(conductor) => conductor.on_tick(now),
        }
        self.pump(net);
    }

    /// Outputs in token order, and the last word on every choice.
    pub(super) fn results(&self) -> (Vec<f32>, Admission) {
        let hidden = self.bus.parts.spec.hidden;
        let mut output = vec![0.0; self.x.len()];
        let mut admission = self.admission.clone();
        for shard in &self.shards {
            let lost: Vec<u32> = match (&self.kind, &shard.combined) {
                (Kind::Star(run), _) => {
                    let shared = shared(self.bus, self.x);
                    let beside = Beside {
                        shared: shared.as_deref(),
                        own: &[],
                    };
                    run.combine(shard.tokens.clone(), &mut output, beside);
                    run.lost()
                }
                (Kind::AllToAll(_), Some(combined)) => {
                    let slot = shard.tokens.start * hidden..shard.tokens.end * hidden;
                    combined.outputs(0..shard.tokens.len(), &mut output[slot]);
                    combined.lost.clone()
                }
                (Kind::AllToAll(_), None) => (0..).take(shard.kept.targets.len()).collect(),
            };
            for at in lost {
                admission.fates[shard.kept.origin[at as usize] as usize] = Fate::Lost;
            }
        }
        (output, admission)
    }
}

/// What a [`HomeRun`] of this bus is told.
pub(super) fn home_setup(bus: &Bus, tag: Tag, started_ns: u64, deadline_ns: u64) -> HomeSetup {
    HomeSetup {
        tag,
        hidden: u32::try_from(bus.parts.spec.hidden).expect("a small row"),
        rule: bus.rule,
        credits: bus.setup.credits,
        on_loss: bus.setup.on_loss,
        started_ns,
        deadline_ns,
        names: Arc::clone(&bus.names),
        extents: Vec::new(),
    }
}

/// The shared expert's rows for `x`, if the layer has one.
pub(super) fn shared(bus: &Bus, x: &[f32]) -> Option<Vec<f32>> {
    let expert = bus.parts.shared.as_ref()?;
    let x = through(bus.setup.wire, x);
    let mut rows = vec![0.0; x.len()];
    let computed = expert.forward(&x, &mut rows, &mut Scratch::default());
    computed.expect("whole rows");
    Some(rows)
}

pub(super) fn gone() -> LossCause {
    LossCause::Disconnected("the bus ended its streams".to_owned())
}
