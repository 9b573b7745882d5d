//! `expertmesh bench dispatch`: what our logic adds to the transport, as a ratio within one run.
//!
//! Every restart brings up fresh worker processes; this process is the coordinator. Rounds of a
//! step and of its floor alternate, so both see the same machine, and the ratio of their medians
//! is what is compared: over restarts, because whole processes settle on faster or slower cores.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use expertmesh_bench::dispatch::{DispatchPlan, measure};
use expertmesh_bench::drive::{RouteLog, identity};
use expertmesh_bench::workload::{Pattern, Workload, WorkloadShape};
use expertmesh_coordinator::{Coordinator, CoordinatorConfig, StepInput, StepOutput};
use expertmesh_experts::{ExpertKind, synthetic_gate};
use expertmesh_telemetry::{Load, Report, Run, RunRecorder, Source, Trace};
use expertmesh_transport::LinkOptions;
use ndarray::ArcArray2;

use crate::args::auto::AutoArgs;
use crate::args::force::ForceArgs;
use crate::args::load::LoadArgs;
use crate::args::model::{Model, ModelArgs};
use crate::args::network::NetworkArgs;
use crate::args::own_rule::check_own_rule;
use crate::args::picture::PictureArgs;
use crate::args::process::ProcessArgs;
use crate::args::stack::StackArgs;
use crate::args::step::{StepArgs, StepOptions};
use crate::args::values::{at_least_one, parsed};
use crate::cluster::{ProcessGroup, WorkerOptions, start_workers};
use crate::commands::bench::table::{Point, render};
use crate::commands::simulate::{Asked, Choice, for_cluster};
use crate::error::Failure;
use crate::logging::LogFormat;
use crate::output::print;
use crate::progress::Progress;
use crate::report::{ReportFile, environment};
use crate::signals::{Signals, interrupted};
use crate::traces::TraceFile;

/// Distinct batches that are used in turn.
const BATCHES: u64 = 8;

/// Flags of `bench dispatch`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  expertmesh bench dispatch
  expertmesh bench dispatch --exchange star --tokens 1,16,64,256 --restarts 5 \\
    --max-ratio 1.5,1.5,1.5,1.9
  expertmesh bench dispatch --expert swiglu --tokens 64 --report dispatch.json
  expertmesh bench dispatch --topology 10gbe --workers 2 --tokens 64

The floor is the same messages in the same pattern over the same streams, answered without any
work; `ratio` is the p50 of the exchange over the p50 of the floor, taken in each restart.")]
pub(crate) struct DispatchArgs {
    /// Token rows of a step, one measurement each
    #[arg(
        long,
        value_name = "T,…",
        value_delimiter = ',',
        default_value = "1,16,64,256"
    )]
    #[arg(value_parser = at_least_one::<NonZeroUsize>)]
    tokens: Vec<NonZeroUsize>,
    /// Rounds of a step and its floor that count, in each restart
    #[arg(long, value_name = "N", default_value = "300")]
    #[arg(value_parser = at_least_one::<NonZeroUsize>)]
    steps: NonZeroUsize,
    /// Rounds before them
    #[arg(long, value_name = "N", default_value = "50")]
    warmup: usize,
    /// Times that the worker processes are started anew
    #[arg(long, value_name = "N", default_value = "5")]
    #[arg(value_parser = at_least_one::<NonZeroUsize>)]
    restarts: NonZeroUsize,
    /// How tokens spread over the experts of a synthetic layer (see launch --help)
    /// [default: balanced; normal for a checkpoint]
    #[arg(long, value_name = "PATTERN", value_parser = parsed::<Pattern>)]
    workload: Option<Pattern>,
    /// Exit with 3 if a median ratio is above this; one value, or one for each of --tokens
    #[arg(long, value_name = "R,…", value_delimiter = ',')]
    max_ratio: Vec<f64>,
    /// Also write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Also write what the gate chose in the first restart's rounds to this file: .moetrace, .csv
    /// or .parquet; for one value of --tokens
    #[arg(long, value_name = "FILE")]
    record_trace: Option<PathBuf>,
    #[command(flatten)]
    processes: ProcessArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    auto: AutoArgs,
    #[command(flatten)]
    pictures: PictureArgs,
}

/// Everything that the flags ask for, checked before a process is started.
struct Plan {
    workers: WorkerOptions,
    model: Model,
    step: StepOptions,
    workloads: Vec<Workload>,
    rounds: usize,
    warmup: usize,
    restarts: usize,
    record: bool,
    /// Rounds of each restart that come with their lanes.
    lane_rounds: u64,
    /// Why the exchange is what it is, if it was chosen.
    choice: Option<Choice>,
}

/// What the restarts gave for one number of tokens.
struct Measured {
    recorder: Option<RunRecorder>,
    ratios: Vec<f64>,
    run: Option<Run>,
    /// Of the first restart, where routes are recorded.
    routes: Option<RouteLog>,
    /// Of the last restart.
    lanes: Trace,
}

/// Measures, prints, and stops every process however it ends.
///
/// # Errors
/// [`Failure::Input`] for flags that do not fit, [`Failure::Gate`] for a ratio above `--max-ratio`.
pub(crate) async fn run(mut args: DispatchArgs, log_format: LogFormat) -> Result<(), Failure> {
    let mut signals = Signals::take()?;
    if args.model.model.is_none() {
        // What is dispatched, not what is computed, unless asked for.
        args.model.expert.get_or_insert(ExpertKind::Identity);
    }
    let limits = limits(&args)?;
    let report = args.report.as_deref().map(ReportFile::at).transpose()?;
    let trace = trace_file(&args)?;
    let pictures = args.pictures.check(args.tokens.len())?;
    let plan = Plan {
        lane_rounds: pictures.steps,
        ..plan(&args, log_format)?
    };
    let mut group = ProcessGroup::new();
    let outcome = tokio::select! {
        biased;
        signal = signals.next() => Err(interrupted(signal)),
        outcome = measure_all(&plan, &mut group) => outcome,
    };
    group.stop().await;
    let (mut measured, environment) = outcome?;
    if let Some(network) = &plan.workers.network {
        let runs = measured.iter_mut().filter_map(|one| one.run.as_mut());
        runs.for_each(|run| network.mark(run));
    }
    let points: Vec<Point> = measured
        .iter()
        .zip(&plan.workloads)
        .zip(&limits)
        .filter_map(|((one, workload), limit)| {
            let run = one.run.as_ref()?;
            Some(Point::new(
                workload.shape().tokens,
                run,
                one.ratios.clone(),
                *limit,
            ))
        })
        .collect();
    print(&render(
        &points,
        plan.step.exchange,
        plan.workers.count.get(),
        plan.restarts,
    ))?;
    let routes = measured.iter_mut().find_map(|one| one.routes.take());
    if let (Some(file), Some(routes), Some(workload)) = (trace, routes, plan.workloads.first()) {
        let (source, seed) = workload.origin();
        let written = file.write(&routes.finish(source, seed)?)?;
        print(&format!("\ntrace: {written}\n"))?;
    }
    let mut whole = Report::new(environment);
    let mut lanes = Vec::new();
    for one in measured {
        whole.runs.extend(one.run);
        lanes.push(one.lanes);
    }
    if let Some(network) = &plan.workers.network {
        network.mark_place(&mut whole.environment);
    }
    if let Some(file) = report {
        file.write(&whole)?;
    }
    pictures.write(&whole, &lanes)?;
    match points.iter().find(|point| point.misses()) {
        None => Ok(()),
        Some(point) => Err(Failure::Gate(point.miss())),
    }
}

/// Where routes go, if they are recorded.
fn trace_file(args: &DispatchArgs) -> Result<Option<TraceFile>, Failure> {
    let Some(file) = &args.record_trace else {
        return Ok(None);
    };
    if args.tokens.len() != 1 {
        return Err(Failure::input(format!(
            "--tokens holds {} values, expected 1 with --record-trace: a trace is one run's",
            args.tokens.len()
        )));
    }
    TraceFile::at(file, None).map(Some)
}

/// One limit for each number of tokens.
fn limits(args: &DispatchArgs) -> Result<Vec<Option<f64>>, Failure> {
    if let Some(bad) = args
        .max_ratio
        .iter()
        .find(|ratio| !(ratio.is_finite() && **ratio > 0.0))
    {
        return Err(Failure::input(format!(
            "--max-ratio holds {bad}, expected numbers above 0"
        )));
    }
    let count = args.tokens.len();
    match args.max_ratio.as_slice() {
        [] => Ok(vec![None; count]),
        [one] => Ok(vec![Some(*one); count]),
        many if many.len() == count => Ok(many.iter().copied().map(Some).collect()),
        many => Err(Failure::input(format!(
            "--max-ratio holds {} values, expected 1 or {count}, one for each of --tokens",
            many.len()
        ))),
    }
}

fn plan(args: &DispatchArgs, log_format: LogFormat) -> Result<Plan, Failure> {
    let mut workers = args.processes.options(log_format)?;
    workers.network = args.network.resolve(workers.count)?;
    let model = args.model.resolve()?;
    let spec = model.source.spec();
    check_own_rule(spec, &args.step, &StackArgs::default())?;
    let (step, choice) = for_cluster(&Asked {
        auto: &args.auto,
        topology: args.network.topology.as_deref(),
        processes: &args.processes,
        model: &args.model,
        step: &args.step,
        force: &ForceArgs::default(),
        loads: loads(args),
    })?;
    let step = step.resolve(
        spec.routed_experts(),
        workers.count.get(),
        model.dtype,
        model.seed,
    )?;
    let synthetic = spec.family == "synthetic";
    let pattern = args.workload.unwrap_or(match synthetic {
        true => Pattern::Balanced,
        false => Pattern::Normal,
    });
    let gate = || {
        (synthetic && pattern != Pattern::Normal)
            .then(|| synthetic_gate(spec.experts, spec.hidden, model.seed, spec.layer))
    };
    let workloads = args.tokens.iter().map(|tokens| {
        let shape = WorkloadShape {
            tokens: tokens.get(),
            hidden: spec.hidden,
            experts: spec.experts,
            top_k: spec.top_k,
        };
        Workload::new(pattern, shape, model.seed, gate())
    });
    Ok(Plan {
        workers,
        workloads: workloads.collect::<Result<_, _>>()?,
        model,
        step,
        rounds: args.steps.get(),
        warmup: args.warmup,
        restarts: args.restarts.get(),
        record: args.record_trace.is_some(),
        lane_rounds: 0,
        choice,
    })
}

/// What is driven, by number of tokens.
fn loads(args: &DispatchArgs) -> Vec<LoadArgs> {
    let one = |tokens: &NonZeroUsize| LoadArgs {
        tokens: Some(*tokens),
        workload: args.workload,
        ..LoadArgs::default()
    };
    args.tokens.iter().map(one).collect()
}

async fn measure_all(
    plan: &Plan,
    group: &mut ProcessGroup,
) -> Result<(Vec<Measured>, expertmesh_telemetry::Environment), Failure> {
    let mut measured: Vec<Measured> = plan
        .workloads
        .iter()
        .map(|_| Measured {
            recorder: None,
            ratios: Vec::new(),
            run: None,
            routes: None,
            lanes: Trace::default(),
        })
        .collect();
    let progress = Progress::steps((plan.restarts * plan.workloads.len()) as u64);
    let mut environment = environment(&[]);
    for _ in 0..plan.restarts {
        let workers = start_workers(group, &plan.workers).await?;
        let addresses = workers.into_iter().map(|ready| ready.address).collect();
        let coordinator = Coordinator::connect(config(plan, addresses)).await?;
        environment = crate::report::environment(&coordinator.cluster().endpoints);
        for (workload, measured) in plan.workloads.iter().zip(&mut measured) {
            measure_one(plan, &coordinator, workload, measured).await?;
            progress.step(true);
        }
        drop(coordinator);
        group.stop().await;
    }
    Ok((measured, environment))
}

fn config(plan: &Plan, workers: Vec<String>) -> CoordinatorConfig {
    CoordinatorConfig {
        bias_update: None,
        threads: plan.workers.threads.get(),
        options: match &plan.workers.network {
            Some(network) => network.options(),
            None => LinkOptions::default(),
        },
        ..plan.step.coordinator(&plan.model, workers)
    }
}

/// One number of tokens in one restart: its ratio, and its samples beside those of the others.
async fn measure_one(
    plan: &Plan,
    coordinator: &Coordinator,
    workload: &Workload,
    measured: &mut Measured,
) -> Result<(), Failure> {
    let shape = workload.shape();
    let batches = (0..BATCHES).map(|step| {
        let mut rows = Vec::new();
        workload.fill(step, &mut rows);
        let rows = ArcArray2::from_shape_vec((shape.tokens, shape.hidden), rows);
        let hashes = plan.model.source.spec().router.needs().token_ids;
        let input = StepInput {
            token_ids: hashes.then(|| workload.token_ids(step, shape.tokens)),
            ..StepInput::default()
        };
        Ok::<_, Failure>((rows.map_err(Failure::run)?, input))
    });
    let rounds = DispatchPlan {
        rounds: plan.rounds,
        warmup: plan.warmup,
        batches: batches.collect::<Result<_, _>>()?,
        lane_rounds: usize::try_from(plan.lane_rounds).unwrap_or(usize::MAX),
    };
    let cluster = coordinator.cluster();
    let mut routes = match plan.record && measured.routes.is_none() {
        true => Some(RouteLog::new(&cluster)?),
        false => None,
    };
    let started = Instant::now();
    let mut lanes = Trace::new(&coordinator.endpoint_names());
    let on_step = |step: &StepOutput| {
        lanes.lanes.extend_from_slice(&step.lanes);
        if let Some(routes) = &mut routes {
            routes.keep(&step.route);
        }
    };
    let recorder = measure(coordinator, &rounds, on_step).await;
    let recorder = recorder.map_err(Failure::run)?;
    let elapsed = started.elapsed().as_secs_f64();
    measured.routes = measured.routes.take().or(routes);
    measured.lanes = lanes;
    let dimensions = plan.model.shape(shape.tokens, plan.step.wire_dtype);
    let name = plan.model.describe();
    let identity = identity(
        &cluster,
        plan.model.seed,
        &name,
        Some(dimensions),
        workload.name(),
    )?;
    let load = Load::closed(plan.rounds as u64, plan.warmup as u64, elapsed);
    let alone = recorder.finish(identity.clone(), load.clone(), Source::Measured, None);
    let floor = alone.latency_us.floor.and_then(|floor| floor.p50);
    if let (Some(exchange), Some(floor)) = (alone.latency_us.exchange.p50, floor) {
        measured.ratios.push(exchange / floor);
    }
    let merged = match measured.recorder.take() {
        None => recorder,
        Some(mut merged) => {
            merged.merge(&recorder).map_err(Failure::run)?;
            merged
        }
    };
    let mut run = merged.finish(identity, load, Source::Measured, None);
    run.exchange_choice = plan.choice.as_ref().map(Choice::for_report);
    measured.run = Some(run);
    measured.recorder = Some(merged);
    Ok(())
}
