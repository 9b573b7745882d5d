//! Flags → what is simulated.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use expertmesh_bench::calibrate::{Domain, Profile, set_loopback};
use expertmesh_bench::simulate::{
    ModelPreset, SimLayer, SimLoad, SimulateError, Simulation, Stage,
};
use expertmesh_bench::workload::{Pattern, ScoredWorkload, WorkloadShape};
use expertmesh_checkpoint::{LayerSource, LayerSpec, SyntheticLayer, SyntheticSpec};
use expertmesh_coordinator::{CoordinatorConfig, Rehearsal};
use expertmesh_exchange::ExchangeKind;
use expertmesh_experts::ExpertKind;
use expertmesh_kernels::Format;
use expertmesh_routing::{Kind, RouterPreset};
use expertmesh_simulator::{Costs, Layer, SimConfig, SimError, Simulator};
use expertmesh_telemetry::{Run, Shape, Source};
use expertmesh_topology::{Fabric, Topology};
use expertmesh_transport::LinkOptions;
use expertmesh_wire::{format_to_wire, v1};

use crate::args::model::Model;
use crate::commands::launch::load;
use crate::commands::simulate::SimulateArgs;
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
    pub(super) simulation: Simulation,
    pub(super) steps: u64,
    pub(super) seed: u64,
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) topology: Topology,
    pub(super) costs: Costs,
    pub(super) scores: Scores,
    pub(super) resident: bool,
    pub(super) layers: u32,
    /// What is known of the costs' errors; `None` for presets.
    pub(super) trust: Option<Trust>,
    pub(super) workers: usize,
}

/// How far a profile's costs can be trusted.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    /// Error that nine of ten points had, as a share: at held-out points where it was validated, else
    /// at those that it was fitted to.
    pub(super) error: f64,
    /// Latency and rate of the machine's loopback.
    loopback: [f64; 2],
    domain: Domain,
    /// Why figures are extrapolated whatever is simulated.
    locked: Option<&'static str>,
    /// Why these are.
    pub(super) outside: Option<String>,
}

/// The layer, in the three forms that are asked for.
struct Subject {
    source: Arc<dyn LayerSource>,
    wire: v1::ModelSource,
    layer: Layer,
    dtype: Format,
    wire_dtype: Format,
    seed: u64,
    name: String,
    shape: Shape,
    preset: Option<&'static ModelPreset>,
}

/// Everything that the flags ask for, checked.
///
/// # Errors
/// [`Failure::Input`] for flags and files that do not fit.
pub(super) fn plan(args: &SimulateArgs, lane_steps: u64) -> Result<Planned, Failure> {
    let mut topology = Topology::read(args.topology.as_deref().unwrap_or("loopback"))?;
    let (costs, trust) = costs(args, &topology)?;
    if let (Some(trust), "loopback") = (&trust, topology.name.as_str()) {
        set_loopback(&mut topology, &trust.loopback);
    }
    plan_on(args, lane_steps, topology, costs, trust)
}

/// The same on machines that are there already.
pub(super) fn plan_on(
    args: &SimulateArgs,
    lane_steps: u64,
    topology: Topology,
    costs: Costs,
    trust: Option<Trust>,
) -> Result<Planned, Failure> {
    let workers = args
        .processes
        .workers
        .unwrap_or(crate::args::process::WORKERS)
        .get();
    let fabric = Fabric::new(&topology, workers)?;
    let subject = subject(args)?;
    let spec = subject.source.spec();
    let mut step = args.step.clone();
    // Who stands together is known: the workers of a host.
    let by_host = step.exchange == Some(ExchangeKind::Hierarchical) && step.group_size.is_none();
    if by_host {
        step.group_size = Some(std::num::NonZeroUsize::MIN);
    }
    let mut step = step.resolve(spec.routed_experts(), workers, subject.dtype, subject.seed)?;
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
    let force = match args.load.trace {
        Some(_) => Some(Kind::Replay),
        None => args.force.kind(),
    };
    let config = CoordinatorConfig {
        name: "coordinator".to_owned(),
        workers: vec!["simulated".to_owned(); workers],
        source: Arc::clone(&subject.source),
        model: subject.wire.clone(),
        placement: step.placement.clone(),
        exchange: step.exchange,
        groups: step.groups.clone(),
        wire_dtype: subject.wire_dtype,
        capacity: step.capacity,
        seed: subject.seed,
        bias_update: step.bias_update,
        training: step.capacity.training,
        depth: None,
        force,
        on_loss: step.on_loss,
        deadline: step.deadline.0,
        chunk_bytes: step.chunk_bytes,
        credits: step.credits,
        threads: 1,
        options: LinkOptions::default(),
    };
    let gpu = !costs.on_cores;
    let resident = args.resident || (gpu && step.exchange != ExchangeKind::Star);
    let cores = fabric.cores_of_host(fabric.host_of(1)) as usize;
    let on_host = (1..=workers as u32)
        .filter(|id| fabric.host_of(*id) == fabric.host_of(1))
        .count();
    let sim = SimConfig {
        chunk_bytes: step.chunk_bytes,
        credits: step.credits,
        on_loss: step.on_loss,
        deadline_ns: u64::try_from(step.deadline.0.as_nanos()).unwrap_or(u64::MAX),
        threads: args
            .processes
            .threads
            .map_or_else(|| (cores / on_host.max(1)).max(1), usize::from),
        faults: args.fault.iter().map(|fault| fault.0).collect(),
        groups: step.groups.clone(),
        resident,
        lanes: lane_steps > 0,
        log: args.event_log.is_some(),
        ..SimConfig::new(subject.layer.clone(), step.placement.clone(), step.exchange)
    };
    let layers = args.layers.map_or_else(
        || subject.preset.map_or(1, |preset| preset.layers),
        u32::from,
    );
    let each = tokens.div_ceil(workers);
    let between_ns = subject.preset.map_or(0, |preset| {
        preset.between_ns(stage(args), each, subject.wire_dtype, fabric.device_of(1))
    });
    let stack = (0..layers).map(|_| {
        Ok(SimLayer {
            rehearsal: Rehearsal::new(config.clone())?,
            simulator: Simulator::new(&topology, costs.clone(), sim.clone()).map_err(failed)?,
            between_ns,
        })
    });
    let trust = trust.map(|trust| {
        let (hidden, ffn) = (subject.layer.hidden, subject.layer.expert.ffn);
        let outside = trust.domain.outside(workers, tokens, hidden, ffn);
        let elsewhere = (topology.name != "loopback").then(|| {
            format!(
                "links of {}: experts and processes as on this machine",
                topology.name
            )
        });
        let outside = trust.locked.map(str::to_owned).or(outside).or(elsewhere);
        Trust { outside, ..trust }
    });
    let source = match &trust {
        None => costs.source,
        Some(trust) if trust.outside.is_some() => Source::Extrapolated,
        Some(_) => Source::Calibrated,
    };
    Ok(Planned {
        simulation: Simulation {
            layers: stack.collect::<Result<_, Failure>>()?,
            load,
            overlap: args.overlap.map_or(1, usize::from),
            lane_steps,
            source,
        },
        steps: args.load.steps.unwrap_or(usual),
        seed: subject.seed,
        name: subject.name,
        shape: Shape {
            tokens: tokens as u64,
            ..subject.shape
        },
        topology,
        costs,
        scores,
        resident,
        layers,
        trust,
        workers,
    })
}

/// Costs, and how far off they are known to be.
fn costs(args: &SimulateArgs, topology: &Topology) -> Result<(Costs, Option<Trust>), Failure> {
    let name = match (&args.costs, &args.profile) {
        (_, Some(file)) => {
            let profile = Profile::read(file)?;
            let (error, locked) = match profile.verdict {
                None => (profile.error.p90, Some("the profile was never validated")),
                Some(one) if one.passed => (one.error.p90, None),
                Some(one) => (one.error.p90, Some("the profile failed its validation")),
            };
            let trust = Trust {
                error,
                loopback: profile.loopback,
                domain: profile.domain,
                locked,
                outside: None,
            };
            return Ok((profile.costs, Some(trust)));
        }
        (Some(name), None) => name.as_str(),
        (None, None) => match Costs::preset(&topology.name) {
            Some(costs) => return Ok((costs, None)),
            None => "loopback",
        },
    };
    if let Some(costs) = Costs::preset(name) {
        return Ok((costs, None));
    }
    if !Path::new(name).exists() {
        let known = Costs::preset_names().join(", ");
        return Err(Failure::input(format!(
            "--costs is `{name}`, expected a TOML file or one of {known}"
        )));
    }
    let text = std::fs::read_to_string(name)
        .map_err(|error| Failure::input(format!("cannot read {name}: {error}")))?;
    let costs = Costs::parse(&text).map_err(|error| Failure::input(format!("{name}: {error}")))?;
    Ok((costs, None))
}

fn subject(args: &SimulateArgs) -> Result<Subject, Failure> {
    let wire_dtype = |dtype| args.step.wire_dtype.unwrap_or(dtype);
    let named = args.model.model.as_deref().filter(|path| !path.exists());
    if let Some(path) = named {
        let name = path.display().to_string();
        let Some(preset) = ModelPreset::named(&name) else {
            let known: Vec<&str> = ModelPreset::all().iter().map(|one| one.name).collect();
            return Err(Failure::input(format!(
                "--model is `{name}`, expected a directory of a checkpoint or one of {}",
                known.join(", ")
            )));
        };
        return of_preset(args, preset);
    }
    for (flag, given) in [
        ("--stage", args.stage.is_some()),
        ("--context", args.context.is_some()),
    ] {
        if given {
            return Err(Failure::input(format!(
                "{flag} is about a whole model; add --model with one of its names, such as \
                 deepseek-v3"
            )));
        }
    }
    let model: Model = args.model.resolve()?;
    let spec = model.source.spec();
    let wire_dtype = wire_dtype(model.dtype);
    Ok(Subject {
        layer: Layer::of(spec, wire_dtype),
        dtype: model.dtype,
        wire_dtype,
        seed: model.seed,
        name: model.describe(),
        shape: model.shape(0, wire_dtype),
        preset: None,
        source: Arc::clone(&model.source),
        wire: model.wire,
    })
}

/// A model that has no weights: its gate chooses by drawn scores.
fn of_preset(args: &SimulateArgs, preset: &'static ModelPreset) -> Result<Subject, Failure> {
    if args.model.layer.is_some() {
        return Err(Failure::input(format!(
            "--layer is about a checkpoint, --model {} is known by its sizes alone; drop it",
            preset.name
        )));
    }
    let dtype = args.model.dtype.unwrap_or(Format::Bf16);
    let wire_dtype = args.step.wire_dtype.unwrap_or(dtype);
    let seed = args.model.seed.unwrap_or(0);
    let spec = SyntheticSpec {
        // No row is made: the gate's own weights are as small as they can be.
        hidden: 1,
        ffn: preset.ffn,
        experts: preset.experts,
        top_k: preset.top_k,
        kind: ExpertKind::Identity,
        seed,
        layer: 0,
        dtype,
    };
    let gate: RouterPreset = preset.gate.parse()?;
    let source: Arc<dyn LayerSource> = Arc::new(SyntheticLayer::new(spec)?.with_gate(&gate)?);
    Ok(Subject {
        layer: Layer {
            wire: wire_dtype,
            ..preset.layer(dtype)
        },
        source,
        // No worker is told where weights are; the format is for the report.
        wire: v1::ModelSource {
            source: None,
            dtype: format_to_wire(dtype).into(),
        },
        dtype,
        wire_dtype,
        seed,
        name: preset.name.to_owned(),
        shape: Shape {
            tokens: 0,
            hidden: preset.hidden as u64,
            ffn: preset.ffn as u64,
            experts: preset.experts as u64,
            top_k: preset.top_k as u64,
            expert: preset.kind.to_string(),
            dtype: dtype.to_string(),
            wire_dtype: wire_dtype.to_string(),
        },
        preset: Some(preset),
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
    let usual = match subject.preset.is_some() || tokens * subject.layer.hidden > MANY_VALUES {
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
    let spec: &LayerSpec = subject.source.spec();
    let of_rows = args.load.input.is_some() || args.load.trace.is_some();
    if scores == Scores::Rows {
        if subject.preset.is_some() {
            return Err(Failure::input(
                "--scores is rows, expected drawn with a model that is known by its sizes alone",
            ));
        }
        let load = load(&args.load, spec, subject.seed, workers)?;
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
    let workload = ScoredWorkload::new(pattern, shape, ranks, subject.seed)?;
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
        SimulateError::Nothing { .. } => Failure::input(error),
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

    /// The run with the bands that the profile's own error gives its times.
    pub(super) fn with_bands(&self, mut run: Run) -> Run {
        let Some(error) = self.trust.as_ref().map(|trust| trust.error) else {
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
