//! Flags → what is simulated.

use std::num::NonZeroUsize;

use expertmesh_bench::simulate::{SimulateError, Simulation, Stage};
use expertmesh_bench::workload::Pattern;
use expertmesh_coordinator::{CoordinatorConfig, Rehearsal};
use expertmesh_exchange::ExchangeKind;
use expertmesh_routing::Kind;
use expertmesh_simulator::{SimConfig, SimError, Simulator};
use expertmesh_telemetry::{Run, Shape};
use expertmesh_topology::Fabric;

use crate::args::force::check_replay;
use crate::args::process::WORKERS;
use crate::args::step::StepOptions;
use crate::commands::simulate::SimulateArgs;
use crate::commands::simulate::auto::{settle, size_of_hosts};
use crate::commands::simulate::check::{check, check_costs, check_faults, check_steps};
use crate::commands::simulate::choice::Choice;
use crate::commands::simulate::covered::Setting;
use crate::commands::simulate::load::{Driven, Scores, StageFlag, driven};
use crate::commands::simulate::machines::Machines;
use crate::commands::simulate::subject::{Subject, subject};
use crate::error::Failure;

/// Tokens before the one that is decoded, unless told otherwise.
const CONTEXT: u64 = 4096;
/// Work (choices × layers × steps) up to which other settings are simulated unasked.
const QUICK: u64 = 400_000;

/// A simulation and what is said about it.
pub(super) struct Planned {
    /// The flags, with an exchange that has a name.
    pub(super) args: SimulateArgs,
    /// Why it is that exchange, if it was chosen.
    pub(super) choice: Option<Choice>,
    pub(super) simulation: Simulation,
    pub(super) steps: u64,
    pub(super) seed: u64,
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) machines: Machines,
    pub(super) scores: Scores,
    /// How tokens spread over the experts; `None` where a file says so.
    pub(super) pattern: Option<Pattern>,
    pub(super) resident: bool,
    pub(super) layers: u32,
    pub(super) workers: usize,
}

/// The cluster that is not there.
struct Cluster {
    fabric: Fabric,
    subject: Subject,
    step: StepOptions,
}

/// Everything that the flags ask for, checked.
///
/// # Errors
/// [`Failure::Input`] for flags and files that do not fit.
pub(super) fn plan(args: &SimulateArgs, lane_steps: u64) -> Result<Planned, Failure> {
    check(args)?;
    check_replay(&args.model, args.load.trace.is_some())?;
    let machines = Machines::read(args)?;
    check_costs(args, &machines.costs)?;
    let (args, choice) = settle(args, &machines)?;
    Ok(Planned {
        choice,
        ..plan_on(&args, lane_steps, machines)?
    })
}

/// The same on machines that are there already.
pub(super) fn plan_on(
    args: &SimulateArgs,
    lane_steps: u64,
    mut machines: Machines,
) -> Result<Planned, Failure> {
    let cluster = Cluster::of(args, &machines)?;
    check_faults(args, cluster.workers())?;
    let driven = driven(args, &cluster.subject, cluster.workers())?;
    // A file has tokens of its own.
    let tokens = driven.load.shape().tokens;
    let coordinator = cluster.coordinator(args);
    let simulated = cluster.simulated(args, &machines, lane_steps);
    let layers = cluster.layers(args);
    if let Some(trust) = &machines.trust {
        let setting = Setting {
            args,
            subject: &cluster.subject,
            fabric: &cluster.fabric,
            coordinator: &coordinator,
            simulated: &simulated,
            pattern: driven.pattern,
            tokens,
            layers,
        };
        let outside = setting.outside(trust, machines.threads(&cluster.fabric))?;
        machines.trust = Some(trust.with(outside));
    }
    let (resident, between_ns) = (simulated.resident, cluster.between_ns(args, tokens));
    let stack = (0..layers).map(|_| Ok(Rehearsal::new(coordinator.clone())?));
    let simulator = Simulator::new(&machines.topology, machines.costs.clone(), simulated);
    let overlap = args.overlap.map_or(1, usize::from);
    let Driven {
        load,
        scores,
        pattern,
        usual_steps,
    } = driven;
    let simulation = Simulation {
        layers: stack.collect::<Result<_, Failure>>()?,
        simulator: simulator.map_err(failed)?,
        between_ns,
        load,
        overlap,
        lane_steps,
        source: machines.source(),
    };
    let workers = cluster.workers();
    let subject = cluster.subject;
    Ok(Planned {
        args: args.clone(),
        choice: None,
        simulation,
        steps: check_steps(args.load.steps, usual_steps, overlap as u64)?,
        seed: subject.model.seed,
        name: subject.name,
        shape: Shape {
            tokens: tokens as u64,
            ..subject.shape
        },
        machines,
        scores,
        pattern,
        resident,
        layers,
        workers,
    })
}

fn stage(args: &SimulateArgs) -> Stage {
    match args.stage {
        Some(StageFlag::Prefill) => Stage::Prefill,
        Some(StageFlag::Decode) | None => Stage::Decode {
            context: args.context.unwrap_or(CONTEXT),
        },
    }
}

fn failed(error: SimError) -> Failure {
    match error {
        SimError::Step(_) | SimError::Stuck { .. } => Failure::run(error),
        _ => Failure::input(error),
    }
}

/// A simulation that ended, by whose fault it did.
pub(super) fn refused(error: SimulateError) -> Failure {
    match error {
        SimulateError::Simulate(error) => failed(error),
        SimulateError::Decide(error) => error.into(),
        SimulateError::Nothing { .. } | SimulateError::Layer { .. } => Failure::input(error),
        SimulateError::Telemetry(_) | SimulateError::Identity(_) => Failure::run(error),
    }
}

// === impl Planned ===

impl Planned {
    /// Whether other settings may be simulated unasked.
    pub(super) fn is_quick(&self) -> bool {
        let choices = self.shape.tokens * self.shape.top_k;
        choices.saturating_mul(u64::from(self.layers) * self.steps) <= QUICK
    }

    /// The run with why it has its exchange, and the bands that the profile's own error gives its
    /// times.
    pub(super) fn told(&self, mut run: Run) -> Run {
        run.exchange_choice = self.choice.as_ref().map(Choice::for_report);
        let Some(error) = self.machines.trust.as_ref().map(|trust| trust.error) else {
            return run;
        };
        let latency = &run.latency_us;
        let figures = [
            ("step", latency.step),
            ("exchange", latency.exchange),
            ("dispatch", latency.dispatch),
            ("combine", latency.combine),
        ];
        for (name, figure) in figures {
            let band = [
                figure.mean * (1.0 - error).max(0.0),
                figure.mean * (1.0 + error),
            ];
            run.bands.insert(format!("latency_us.{name}.mean"), band);
        }
        run
    }
}

// === impl Cluster ===

impl Cluster {
    fn of(args: &SimulateArgs, machines: &Machines) -> Result<Self, Failure> {
        let workers = args.processes.workers.unwrap_or(WORKERS).get();
        let fabric = Fabric::new(&machines.topology, workers)?;
        let subject = subject(args)?;
        Ok(Self {
            step: step(args, &subject, &fabric)?,
            fabric,
            subject,
        })
    }

    fn workers(&self) -> usize {
        self.fabric.endpoints() - 1
    }

    fn layers(&self, args: &SimulateArgs) -> u32 {
        let usual = self.subject.preset.map_or(1, |preset| preset.layers);
        args.layers.map_or(usual, u32::from)
    }

    /// Who gates and admits.
    fn coordinator(&self, args: &SimulateArgs) -> CoordinatorConfig {
        let force = match args.load.trace {
            Some(_) => Some(Kind::Replay),
            None => args.force.kind(),
        };
        CoordinatorConfig {
            force,
            ..self.step.rehearsed(&self.subject.model, self.workers())
        }
    }

    /// How a step of a layer is simulated.
    fn simulated(&self, args: &SimulateArgs, machines: &Machines, lane_steps: u64) -> SimConfig {
        let threads = args.processes.threads.map(usize::from);
        let by_devices = !machines.costs.on_cores && self.step.exchange != ExchangeKind::Star;
        SimConfig {
            threads: threads.unwrap_or_else(|| machines.threads(&self.fabric)),
            one_machine: machines.cores,
            faults: args.fault.iter().map(|fault| fault.0).collect(),
            resident: args.resident || by_devices,
            lanes: lane_steps > 0,
            log: args.event_log.is_some(),
            ..self.step.simulated(self.subject.layer.clone())
        }
    }

    /// What lies behind a layer of a whole model: all wait for the worker that takes longest.
    fn between_ns(&self, args: &SimulateArgs, tokens: usize) -> u64 {
        let Some(preset) = self.subject.preset else {
            return 0;
        };
        let each = tokens.div_ceil(self.workers());
        let dtype = self.subject.model.dtype;
        let of_worker = |id| preset.between_ns(stage(args), each, dtype, self.fabric.device_of(id));
        let workers = 1..=self.workers() as u32;
        workers.map(of_worker).max().unwrap_or(0)
    }
}

/// How a step runs; the workers of a host stand together unless `--group-size` says otherwise.
fn step(args: &SimulateArgs, subject: &Subject, fabric: &Fabric) -> Result<StepOptions, Failure> {
    let mut flags = args.step.clone();
    let grouped = flags.exchange == Some(ExchangeKind::Hierarchical.into());
    let hosts = (grouped && flags.group_size.is_none()).then(|| fabric.groups_of_workers());
    let size = hosts.as_ref().map(|hosts| size_of_hosts(hosts));
    // Hosts that hold equally many workers in order are what a size says, as for a launch.
    let uneven = hosts.filter(|_| !matches!(size, Some(Ok(_))));
    if let Some(size) = size {
        flags.group_size = size.unwrap_or(Some(NonZeroUsize::MIN));
    }
    let (model, routed) = (&subject.model, subject.model.source.spec().routed_experts());
    let step = flags.resolve(routed, fabric.endpoints() - 1, model.dtype, model.seed)?;
    Ok(match uneven {
        Some(groups) => StepOptions { groups, ..step },
        None => step,
    })
}
