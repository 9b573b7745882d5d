//! `expertmesh launch`: a cluster of processes on this machine, driven and measured.

mod load;
mod tell;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use expertmesh_bench::drive::{DriveOptions, Driven, drive};
use expertmesh_transport::{CoordinatorClient, LinkOptions};
use expertmesh_wire::v1;

use crate::args::auto::AutoArgs;
use crate::args::force::{ForceArgs, ForceFlag, check_replay};
use crate::args::load::LoadArgs;
use crate::args::model::{Model, ModelArgs};
use crate::args::network::NetworkArgs;
use crate::args::own_rule::check_own_rule;
use crate::args::picture::PictureArgs;
use crate::args::process::ProcessArgs;
use crate::args::stack::StackArgs;
use crate::args::step::{StepArgs, StepOptions};
use crate::args::values::push;
use crate::cluster::{LocalCluster, ProcessGroup, WorkerOptions, start_cluster, while_all_live};
use crate::commands::launch::load::Load;
pub(crate) use crate::commands::launch::load::{load, pattern};
use crate::commands::launch::tell::Results;
use crate::commands::simulate::{Asked, for_cluster};
use crate::error::Failure;
use crate::logging::LogFormat;
use crate::output::print;
use crate::progress::Progress;
use crate::report::ReportFile;
use crate::signals::{Signals, interrupted};
use crate::traces::TraceFile;

/// Flags of `launch`.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
#[command(after_help = "Examples:
  expertmesh launch
  expertmesh launch --workers 3 --experts 16 --top-k 4 --exchange star --workload zipf:1.2
  expertmesh launch --model Mixtral-8x7B-v0.1 --layer 0 --dtype bf16 --report report.json
  expertmesh launch --capacity-factor 1.25 --workload hot:0.4 --html launch.html
  expertmesh launch --layers 4 --depth-capacity 0.5 --exit probability:0.9
  expertmesh launch --workload zipf:1.2 --self-test --record-trace routes.moetrace
  expertmesh launch --trace routes.moetrace --exchange star
  expertmesh launch --topology 10gbe --workers 4
  expertmesh launch --exchange auto --profile profile.json --tokens 256
  expertmesh launch --topology h100 --dilation 200 --workers 4
  expertmesh launch --config cluster/local.toml --workers 2 --stay

A run is a function of its flags: the digest at its end is the same for any number of workers,
any placement, any exchange and any number of threads. (What is about workers is not: workloads
w2, w4 and w5, gates node-limited and topology, --capacity-scope worker, reroute-to-replica.)
Ctrl-C stops every process.")]
pub(crate) struct LaunchArgs {
    /// TOML file whose keys are the names of these flags; flags override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address of the coordinator; port 0 takes a free one [default: 127.0.0.1:0]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Keep the cluster up after the report, for `expertmesh run --coordinator`, until Ctrl-C
    #[arg(long)]
    stay: bool,
    /// Also write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Also write what the gate chose in the recorded steps to this file: .moetrace, .csv or
    /// .parquet
    #[arg(long, value_name = "FILE")]
    record_trace: Option<PathBuf>,
    /// Hold what the gate chose against what the workload claims; exit with 3 if it does not
    #[arg(long, conflicts_with_all = ["trace", "input"])]
    self_test: bool,
    #[command(flatten)]
    processes: ProcessArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    stack: StackArgs,
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    auto: AutoArgs,
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    pictures: PictureArgs,
}

#[cfg(test)]
impl LaunchArgs {
    /// What a coordinator process is told of these flags.
    pub(crate) fn layer_and_step(&self) -> (&ModelArgs, &StepArgs) {
        (&self.model, &self.step)
    }

    /// The same for the stack.
    pub(crate) fn stack(&self) -> &StackArgs {
        &self.stack
    }
}

/// Everything that the flags ask for, checked before a process is started.
struct Plan {
    workers: WorkerOptions,
    model: Model,
    /// Name of the stack, for the report's identity.
    name: String,
    /// Whether there are several layers, whose routes nobody can ask for.
    is_stack: bool,
    /// The flags of the coordinator process.
    flags: Vec<OsString>,
    step: StepOptions,
    load: Load,
    results: Results,
}

/// Runs the cluster, and stops it however the run ends.
///
/// # Errors
/// [`Failure`] of a start, a step or a process; none of them leaves a process behind.
pub(crate) async fn run(args: LaunchArgs, log_format: LogFormat) -> Result<(), Failure> {
    let mut signals = Signals::take()?;
    let plan = plan(&args, log_format)?;
    let mut group = ProcessGroup::new();
    let outcome = tokio::select! {
        biased;
        signal = signals.next() => Err(interrupted(signal)),
        outcome = start_and_drive(&args.load, &plan, &mut group) => outcome,
    };
    let outcome = match outcome {
        Ok(cluster) if args.stay => stay(&cluster, &plan, &mut group, &mut signals).await,
        Ok(_) => Ok(()),
        Err(failure) => Err(failure),
    };
    group.stop().await;
    outcome
}

fn plan(args: &LaunchArgs, log_format: LogFormat) -> Result<Plan, Failure> {
    let mut workers = args.processes.options(log_format)?;
    workers.network = args.network.resolve(workers.count)?;
    let mut layers = args.stack.layers(&args.model)?;
    check_routes(args, layers.len())?;
    for layer in &layers {
        check_own_rule(layer.source.spec(), &args.step, &args.stack)?;
    }
    let is_stack = layers.len() > 1;
    let model = layers.swap_remove(0);
    args.stack.depth(&model)?;
    args.stack.exit(&model)?;
    let spec = model.source.spec();
    let (step, choice) = for_cluster(&Asked {
        auto: &args.auto,
        topology: args.network.topology.as_deref(),
        processes: &args.processes,
        model: &args.model,
        step: &args.step,
        force: &args.force,
        loads: vec![args.load.clone()],
    })?;
    let flags = coordinator_flags(args, &step);
    let step = step.resolve(
        spec.routed_experts(),
        workers.count.get(),
        model.dtype,
        model.seed,
    )?;
    let load = load(&args.load, spec, model.seed, workers.count.get())?;
    if args.stay && workers.network.as_ref().is_some_and(|net| net.is_closed()) {
        return Err(Failure::input(
            "--stay keeps the coordinator up for others, who cannot reach it with --links namespaces; \
             leave one of them out",
        ));
    }
    if load.steps == 0 && !args.stay {
        return Err(Failure::input(
            "--steps is 0, expected at least 1 unless --stay keeps the cluster up for others",
        ));
    }
    let record = args.record_trace.as_deref();
    let results = Results {
        report: args.report.as_deref().map(ReportFile::at).transpose()?,
        trace: record.map(|file| TraceFile::at(file, None)).transpose()?,
        self_test: args.self_test,
        pictures: args.pictures.check(1)?,
        network: workers.network.clone(),
        choice,
    };
    if load.steps == 0 && results.want_routing() {
        return Err(Failure::input(
            "--steps is 0, expected at least 1 with --record-trace or --self-test",
        ));
    }
    let mut name = args.stack.describe(model.describe());
    if let (Some(force), None) = (args.force.force_routes, &args.load.trace) {
        name.push_str(&format!(", routes forced to {force}"));
    }
    Ok(Plan {
        workers,
        load,
        results,
        name,
        is_stack,
        model,
        flags,
        step,
    })
}

/// Checks the flags about routes against each other and the number of layers.
fn check_routes(args: &LaunchArgs, layers: usize) -> Result<(), Failure> {
    let of_one_layer = [
        ("--trace", args.load.trace.is_some()),
        ("--record-trace", args.record_trace.is_some()),
        ("--self-test", args.self_test),
    ];
    if let Some((flag, _)) = of_one_layer.iter().find(|(_, given)| *given && layers > 1) {
        return Err(Failure::input(format!(
            "{flag} is about the routes of one layer, --layers asks for {layers}; drop one of them"
        )));
    }
    let has_trace = args.load.trace.is_some();
    check_replay(&args.model, has_trace || args.load.steps == Some(0))?;
    match args.force.force_routes {
        Some(ForceFlag::Replay) if !has_trace && args.load.steps != Some(0) => Err(Failure::input(
            "--force-routes replay has nothing to replay; add --trace FILE, or --steps 0 \
                 --stay for clients that bring their choices",
        )),
        Some(other @ (ForceFlag::Balance | ForceFlag::Skew(_))) if has_trace => {
            Err(Failure::input(format!(
                "--force-routes is {other}, expected replay with --trace"
            )))
        }
        _ => Ok(()),
    }
}

/// Brings the cluster up, drives it and prints the report. The cluster is up when it returns.
async fn start_and_drive(
    args: &LoadArgs,
    plan: &Plan,
    group: &mut ProcessGroup,
) -> Result<LocalCluster, Failure> {
    let cluster = start_cluster(group, &plan.workers, plan.flags.clone()).await?;
    if plan.load.steps > 0 {
        let work = drive_cluster(args, plan, &cluster);
        let (driven, described) = while_all_live(work, group, plan.step.on_loss).await?;
        plan.results.tell(driven, &plan.load.workload, &described)?;
    }
    Ok(cluster)
}

async fn drive_cluster(
    args: &LoadArgs,
    plan: &Plan,
    cluster: &LocalCluster,
) -> Result<(Driven, v1::ClusterReply), Failure> {
    let address = &cluster.coordinator.address;
    let client = CoordinatorClient::connect(address, &LinkOptions::default()).await?;
    let described = client.cluster(v1::ClusterRequest {}).await?;
    let workload = &plan.load.workload;
    let tokens = workload.shape().tokens;
    let options = DriveOptions {
        steps: plan.load.steps,
        warmup: args.warmup(),
        seed: plan.model.seed,
        model: plan.name.clone(),
        shape: Some(plan.model.shape(tokens, plan.step.wire_dtype)),
        want_routing: plan.results.want_routing(),
        lane_steps: plan.results.pictures.steps,
    };
    let progress = Progress::steps(options.warmup + options.steps);
    let on_step = |recorded| progress.step(recorded);
    let driven = drive(&client, &described, workload, &options, on_step).await?;
    Ok((driven, described))
}

/// Keeps the cluster up for clients until a signal, which is the good end of it.
async fn stay(
    cluster: &LocalCluster,
    plan: &Plan,
    group: &mut ProcessGroup,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let address = &cluster.coordinator.address;
    print(&format!(
        "\nThe cluster stays up; its coordinator is at {address}. Ctrl-C stops it.\n"
    ))?;
    if !plan.is_stack {
        print(&format!(
            "For example:\n  \
             expertmesh run --coordinator {address} --input IN.safetensors --output OUT.safetensors\n"
        ))?;
    }
    let forever = std::future::pending::<Result<(), Failure>>();
    tokio::select! {
        biased;
        _ = signals.next() => Ok(()),
        ended = while_all_live(forever, group, plan.step.on_loss) => ended,
    }
}

/// The flags of the coordinator process, whose exchange has a name.
fn coordinator_flags(args: &LaunchArgs, step: &StepArgs) -> Vec<OsString> {
    let mut flags = args.model.to_argv();
    flags.extend(args.stack.to_argv());
    flags.extend(step.to_argv());
    let force = match args.load.trace {
        Some(_) => ForceArgs {
            force_routes: Some(ForceFlag::Replay),
        },
        None => args.force.clone(),
    };
    flags.extend(force.to_argv());
    push(&mut flags, "--listen", args.listen.as_ref());
    flags
}
