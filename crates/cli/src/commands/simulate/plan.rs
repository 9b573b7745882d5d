//! Flags → what is simulated.

use std::str::FromStr;

use expertmesh_bench::simulate::{SimLayer, SimLoad, SimulateError, Simulation, Stage};
use expertmesh_bench::workload::{Pattern, ScoredWorkload, WorkloadShape};
use expertmesh_checkpoint::LayerSpec;
use expertmesh_coordinator::{CoordinatorConfig, Rehearsal};
use expertmesh_exchange::ExchangeKind;
use expertmesh_routing::Kind;
use expertmesh_simulator::{SimConfig, SimError, Simulator};
use expertmesh_telemetry::{Run, Shape, Source};
use expertmesh_topology::Fabric;

use crate::args::process::WORKERS;
use crate::commands::launch::load;
use crate::commands::simulate::SimulateArgs;
use crate::commands::simulate::auto::settle;
use crate::commands::simulate::choice::Choice;
use crate::commands::simulate::machines::Machines;
use crate::commands::simulate::subject::{Subject, subject};
use crate::error::Failure;

/// Steps, unless told otherwise: a simulation repeats itself but for its routes.
const STEPS: u64 = 20;
/// Values of a batch from which on scores are drawn, unless told otherwise.
const MANY_VALUES: usize = 4 << 20;
/// Tokens of a preset model's batch on each worker: decoding, and of a whole sequence.
const DECODED: usize = 128;
const PREFILLED: usize = 4096;
const CONTEXT: u64 = 4096;
/// Work (choices × layers × steps) up to which other settings are simulated unasked.
const QUICK: u64 = 400_000;

/// Where a gate's scores come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scores {
    Rows,
    Drawn,
}

/// What a batch of a preset model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StageFlag {
    Decode,
    Prefill,
}

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
    pub(super) resident: bool,
    pub(super) layers: u32,
    pub(super) workers: usize,
}

/// Everything that the flags ask for, checked.
///
/// # Errors
/// [`Failure::Input`] for flags and files that do not fit.
pub(super) fn plan(args: &SimulateArgs, lane_steps: u64) -> Result<Planned, Failure> {
    let machines = Machines::read(args)?;
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
    let count = args.processes.workers.unwrap_or(WORKERS);
    let workers = count.get();
    let fabric = Fabric::new(&machines.topology, workers)?;
    let subject = subject(args)?;
    let spec = subject.model.source.spec();
    let mut step = args.step.clone();
    // Who stands together is known: the workers of a host.
    let grouped = Some(ExchangeKind::Hierarchical.into());
    let by_host = step.exchange == grouped && step.group_size.is_none();
    if by_host {
        step.group_size = Some(std::num::NonZeroUsize::MIN);
    }
    let mut step = step.resolve(
        spec.routed_experts(),
        workers,
        subject.model.dtype,
        subject.model.seed,
    )?;
    if by_host {
        step.groups = (1..=workers as u32).map(|id| fabric.host_of(id)).collect();
    }
    let tokens = tokens(args, &subject, workers);
    let scores = scores(args, &subject, tokens);
    if args.load.warmup.is_some() {
        return Err(Failure::input(
            "--warmup is for machines whose caches must fill; a simulated step is like the next, \
             drop the flag",
        ));
    }
    let (load, usual) = sim_load(args, &subject, scores, tokens, workers)?;
    // A file has tokens of its own.
    let tokens = load.shape().tokens;
    let force = match args.load.trace {
        Some(_) => Some(Kind::Replay),
        None => args.force.kind(),
    };
    let config = CoordinatorConfig {
        force,
        ..step.rehearsed(&subject.model, workers)
    };
    let gpu = !machines.costs.on_cores;
    let resident = args.resident || (gpu && step.exchange != ExchangeKind::Star);
    let sim = SimConfig {
        threads: args
            .processes
            .threads
            .unwrap_or_else(|| machines.threads(&fabric, count))
            .get(),
        one_machine: machines.cores,
        faults: args.fault.iter().map(|fault| fault.0).collect(),
        resident,
        lanes: lane_steps > 0,
        log: args.event_log.is_some(),
        ..step.simulated(subject.layer.clone())
    };
    let layers = args.layers.map_or_else(
        || subject.preset.map_or(1, |preset| preset.layers),
        u32::from,
    );
    let each = tokens.div_ceil(workers);
    let between_ns = subject.preset.map_or(0, |preset| {
        preset.between_ns(stage(args), each, step.wire_dtype, fabric.device_of(1))
    });
    let stack = (0..layers).map(|_| {
        Ok(SimLayer {
            rehearsal: Rehearsal::new(config.clone())?,
            simulator: Simulator::new(&machines.topology, machines.costs.clone(), sim.clone())
                .map_err(failed)?,
            between_ns,
        })
    });
    if let Some(trust) = &mut machines.trust {
        let exchange = step.exchange;
        let outside = (trust.domain).outside(workers, tokens, &subject.layer, exchange);
        let name = &machines.topology.name;
        let elsewhere = (name != "loopback").then(|| {
            format!("links of {name}, emulated between processes of the profile's machine")
        });
        trust.outside = trust.locked.map(str::to_owned).or(outside).or(elsewhere);
    }
    let source = match &machines.trust {
        None => machines.costs.source,
        Some(trust) if trust.outside.is_some() => Source::Extrapolated,
        Some(_) => Source::Calibrated,
    };
    Ok(Planned {
        args: args.clone(),
        choice: None,
        simulation: Simulation {
            layers: stack.collect::<Result<_, Failure>>()?,
            load,
            overlap: args.overlap.map_or(1, usize::from),
            lane_steps,
            source,
        },
        steps: args.load.steps.unwrap_or(usual),
        seed: subject.model.seed,
        name: subject.name,
        shape: Shape {
            tokens: tokens as u64,
            ..subject.shape
        },
        machines,
        scores,
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

fn tokens(args: &SimulateArgs, subject: &Subject, workers: usize) -> usize {
    match (args.load.tokens, subject.preset, args.stage) {
        (Some(tokens), _, _) => tokens.get(),
        (None, None, _) => args.load.tokens(),
        (None, Some(_), Some(StageFlag::Prefill)) => PREFILLED * workers,
        (None, Some(_), _) => DECODED * workers,
    }
}

fn scores(args: &SimulateArgs, subject: &Subject, tokens: usize) -> Scores {
    let router = &subject.model.source.spec().router;
    let by_logits = !router.needs().token_ids && !matches!(router.kind, Kind::Soft { .. });
    let many = by_logits && tokens * subject.layer.hidden > MANY_VALUES;
    let usual = match subject.preset.is_some() || many {
        true => Scores::Drawn,
        false => Scores::Rows,
    };
    let of_rows = args.load.input.is_some() || args.load.trace.is_some();
    args.scores
        .unwrap_or(if of_rows { Scores::Rows } else { usual })
}

/// The load, and how many steps of it are simulated unless told otherwise.
fn sim_load(
    args: &SimulateArgs,
    subject: &Subject,
    scores: Scores,
    tokens: usize,
    workers: usize,
) -> Result<(SimLoad, u64), Failure> {
    let spec: &LayerSpec = subject.model.source.spec();
    let of_rows = args.load.input.is_some() || args.load.trace.is_some();
    if scores == Scores::Rows {
        if subject.preset.is_some() {
            return Err(Failure::input(
                "--scores is rows, expected drawn with a model that is known by its sizes alone",
            ));
        }
        let load = load(&args.load, spec, subject.model.seed, workers)?;
        let usual = if args.load.trace.is_some() {
            load.steps
        } else {
            STEPS
        };
        return Ok((SimLoad::Rows(load.workload), usual));
    }
    if of_rows {
        return Err(Failure::input(
            "--scores is drawn, expected rows with --input or --trace, which bring their own",
        ));
    }
    let usual = match spec.family == "synthetic" {
        true => Pattern::Balanced,
        false => Pattern::Normal,
    };
    let pattern = args.load.workload.unwrap_or(usual);
    let shape = WorkloadShape {
        tokens,
        hidden: spec.hidden,
        experts: spec.experts,
        top_k: spec.top_k,
    };
    let asks_for_ranks = matches!(
        pattern,
        Pattern::HotRank { .. } | Pattern::SourceRagged | Pattern::ZeroExpertRank
    );
    let ranks = asks_for_ranks.then_some(workers);
    let workload = ScoredWorkload::new(pattern, shape, ranks, subject.model.seed)?;
    Ok((SimLoad::Scores(workload), STEPS))
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
        SimulateError::Nothing { .. } | SimulateError::Machines { .. } => Failure::input(error),
        SimulateError::Telemetry(_) | SimulateError::Identity(_) => Failure::run(error),
    }
}

// === impl Planned ===

impl Planned {
    /// Whether other settings may be simulated unasked.
    pub(super) fn is_quick(&self) -> bool {
        let choices = self.shape.tokens * self.shape.top_k;
        choices * u64::from(self.layers) * self.steps <= QUICK
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

// === impl Scores ===

impl FromStr for Scores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "rows" => Ok(Self::Rows),
            "drawn" => Ok(Self::Drawn),
            _ => Err("expected rows or drawn".to_owned()),
        }
    }
}

// === impl StageFlag ===

impl FromStr for StageFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "decode" => Ok(Self::Decode),
            "prefill" => Ok(Self::Prefill),
            _ => Err("expected decode or prefill".to_owned()),
        }
    }
}
