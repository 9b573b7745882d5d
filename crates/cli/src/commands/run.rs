//! `expertmesh run`: hidden states from a file through one layer, results to a file.

mod agree;
mod results;
mod routes;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use expertmesh_bench::drive::{
    DriveError, LaneLog, Meter, RouteLog, bring_choices, forward_request, identity, with_deadline,
};
use expertmesh_bench::workload::{Batch, ReplayedStep};
use expertmesh_telemetry::{ExchangeChoice, Shape};
use expertmesh_transport::{CoordinatorClient, LinkOptions};
use expertmesh_wire::v1;

use crate::args::auto::AutoArgs;
use crate::args::force::{ForceArgs, check_replay};
use crate::args::model::{Model, ModelArgs};
use crate::args::network::NetworkArgs;
use crate::args::own_rule::check_own_rule;
use crate::args::picture::PictureArgs;
use crate::args::process::ProcessArgs;
use crate::args::stack::StackArgs;
use crate::args::step::{StepArgs, StepOptions};
use crate::cluster::{Network, ProcessGroup, WorkerOptions, start_cluster, while_all_live};
use crate::commands::run::agree::agree;
use crate::commands::run::results::Results;
use crate::commands::run::routes::RoutesArgs;
use crate::commands::simulate::{Asked, Choice, for_cluster};
use crate::error::Failure;
use crate::logging::LogFormat;
use crate::output::{check_place, print};
use crate::pictures::Pictures;
use crate::report::{ReportFile, of_run};
use crate::signals::{Signals, interrupted};
use crate::tensors::Hidden;
use crate::traces::TraceFile;

/// Flags of `run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  expertmesh run --model Mixtral-8x7B-v0.1 --layer 0 --dtype bf16 --workers 2 \\
      --input in.safetensors --output out.safetensors
  expertmesh run --coordinator 127.0.0.1:7500 --input in.safetensors --output out.safetensors
  expertmesh run --hidden 64 --topology 25gbe --input in.safetensors --output out.safetensors
  expertmesh run --hidden 64 --trace routes.moetrace --input in.safetensors --output out.safetensors

The input holds hidden_states [T, H] or [B, S, H], F32 or BF16, and may hold padding_mask
(1 = padding: the token's choices are skipped), attention_mask (for losses only) and token_ids
(for gates that hash them).
The output holds output (the input's shape, F32), router_logits [T, E] F32, topk_index [T, k] I32,
executed_expert [T, k] I32 (-1: none), topk_weight [T, k] F32, fate [T, k] U8 (0 computed,
1 rerouted, 2 dropped, 3 skipped, 4 lost) and aux.<name>, F32 scalars. topk_weight is what results
are multiplied by. Gates without a fixed k give choice_token, choice_expert, choice_executed,
choice_weight and choice_fate instead; soft MoE gives dispatch and combine [T, slots].")]
pub(crate) struct RunArgs {
    /// Safetensors file with hidden_states
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Safetensors file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// A coordinator that is up, instead of a cluster for this run; flags that say which layer
    /// and how a step runs must agree with it, or be absent
    #[arg(long, value_name = "HOST:PORT")]
    coordinator: Option<String>,
    /// Also write a report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Also write what the gate chose to this file: .moetrace, .csv or .parquet
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
    routes: RoutesArgs,
    #[command(flatten)]
    pictures: PictureArgs,
}

/// Where the step runs.
enum Place {
    /// On a cluster that is up.
    Up(String),
    /// On one of its own.
    Own(Box<Own>),
}

/// A cluster to start.
struct Own {
    model: Model,
    /// The flags of the coordinator process.
    flags: Vec<OsString>,
    step: StepOptions,
    /// Why the exchange is what it is, if it was chosen.
    choice: Option<Choice>,
    workers: WorkerOptions,
}

/// What the file holds, and where results go.
struct Task {
    hidden: Hidden,
    routes: RoutesArgs,
    output: PathBuf,
    report: Option<ReportFile>,
    trace: Option<TraceFile>,
    pictures: Pictures,
}

/// Forwards the input and writes the output.
///
/// # Errors
/// [`Failure`] of the input, the cluster or the step.
pub(crate) async fn run(args: RunArgs, log_format: LogFormat) -> Result<(), Failure> {
    let mut signals = Signals::take()?;
    let place = place(&args, log_format)?;
    check_place(&args.output)?;
    let record = args.record_trace.as_deref();
    let task = Task {
        trace: record.map(|file| TraceFile::at(file, None)).transpose()?,
        report: args.report.as_deref().map(ReportFile::at).transpose()?,
        pictures: args.pictures.check(1)?,
        hidden: Hidden::read(&args.input)?,
        routes: args.routes.clone(),
        output: args.output.clone(),
    };
    let mut group = ProcessGroup::new();
    let work = async {
        match &place {
            Place::Up(address) => on_coordinator(&args, &task, address).await,
            Place::Own(own) => on_own_cluster(&task, own, &mut group).await,
        }
    };
    let outcome = tokio::select! {
        biased;
        signal = signals.next() => Err(interrupted(signal)),
        outcome = work => outcome,
    };
    group.stop().await;
    outcome
}

/// Decides where the step runs, and opens the layer if that is here.
fn place(args: &RunArgs, log_format: LogFormat) -> Result<Place, Failure> {
    if let Some(address) = &args.coordinator {
        let own = args.processes != ProcessArgs::default();
        if own || args.network != NetworkArgs::default() {
            return Err(Failure::input(
                "--workers, --threads, --start-timeout and --topology are for a cluster of this \
                 run's own; drop them, or --coordinator",
            ));
        }
        if args.step.is_auto() || args.auto != AutoArgs::default() {
            return Err(Failure::input(
                "--exchange auto and --profile are for a cluster of this run's own, whose exchange \
                 is still open; drop them, or --coordinator",
            ));
        }
        return Ok(Place::Up(address.clone()));
    }
    if args.model == ModelArgs::default() {
        return Err(Failure::input(
            "no layer to run: give --model DIR and --layer N, --coordinator HOST:PORT of a \
             cluster that is up, or the shape of a synthetic layer, such as --hidden 64",
        ));
    }
    check_replay(&args.model, args.routes.force() != ForceArgs::default())?;
    let model = args.model.resolve()?;
    check_own_rule(model.source.spec(), &args.step, &StackArgs::default())?;
    let experts = model.source.spec().routed_experts();
    let mut workers = args.processes.options(log_format)?;
    workers.network = args.network.resolve(workers.count)?;
    let count = workers.count.get();
    let (step, choice) = for_cluster(&Asked {
        auto: &args.auto,
        topology: args.network.topology.as_deref(),
        processes: &args.processes,
        model: &args.model,
        step: &args.step,
        force: &args.routes.force(),
        loads: vec![args.routes.load(args.input.clone())],
    })?;
    let mut flags = args.model.to_argv();
    flags.extend(step.to_argv());
    flags.extend(args.routes.force().to_argv());
    let step = step.resolve(experts, count, model.dtype, model.seed)?;
    Ok(Place::Own(Box::new(Own {
        model,
        flags,
        step,
        choice,
        workers,
    })))
}

async fn on_coordinator(args: &RunArgs, task: &Task, address: &str) -> Result<(), Failure> {
    let client = CoordinatorClient::connect(address, &LinkOptions::default()).await?;
    let cluster = client.cluster(v1::ClusterRequest {}).await?;
    if cluster.layers > 1 {
        return Err(Failure::input(format!(
            "the coordinator at {address} serves a stack of {} layers, expected one layer, whose \
             routing --output holds; start it without --layers (--layer N says which one), or \
             leave out --coordinator: --model DIR --layer N runs one layer on a cluster of its own",
            cluster.layers
        )));
    }
    let agreed = agree(&args.model, &args.step, &cluster);
    agreed.and(args.routes.agree(&cluster)).map_err(|reason| {
        Failure::input(format!(
            "{reason}; the coordinator at {address} decides: drop the flag"
        ))
    })?;
    let model = match cluster
        .model
        .as_ref()
        .and_then(|model| model.source.as_ref())
    {
        Some(v1::model_source::Source::Checkpoint(from)) => {
            format!(
                "{} layer {} of {}",
                cluster.family, from.layer, from.directory
            )
        }
        _ => cluster.family.clone(),
    };
    let seed = args.model.seed.unwrap_or(match &cluster.model {
        Some(v1::ModelSource {
            source: Some(v1::model_source::Source::Synthetic(spec)),
            ..
        }) => spec.seed,
        _ => 0,
    });
    let replay = task.routes.read(&(&cluster).into(), &task.hidden)?;
    let done = forward(&client, &cluster, task, replay.as_ref()).await?;
    done.tell(
        task,
        &cluster,
        Layer {
            seed,
            model,
            shape: None,
            network: None,
            choice: None,
        },
    )
}

async fn on_own_cluster(task: &Task, own: &Own, group: &mut ProcessGroup) -> Result<(), Failure> {
    let Own {
        model,
        flags,
        step,
        choice,
        workers,
    } = own;
    task.hidden.check_hidden(model.source.spec().hidden)?;
    let replay = task
        .routes
        .read(&model.source.spec().into(), &task.hidden)?;
    let local = start_cluster(group, workers, flags.clone()).await?;
    let address = &local.coordinator.address;
    let work = async {
        let client = CoordinatorClient::connect(address, &LinkOptions::default()).await?;
        let cluster = client.cluster(v1::ClusterRequest {}).await?;
        let done = forward(&client, &cluster, task, replay.as_ref()).await?;
        Ok::<_, Failure>((done, cluster))
    };
    let (done, cluster) = while_all_live(work, group, step.on_loss).await?;
    let layer = Layer {
        seed: model.seed,
        model: model.describe(),
        shape: Some(model.shape(task.hidden.tokens, step.wire_dtype)),
        network: workers.network.clone(),
        choice: choice.as_ref().map(Choice::for_report),
    };
    done.tell(task, &cluster, layer)
}

/// The layer, for the report's identity.
struct Layer {
    seed: u64,
    model: String,
    shape: Option<Shape>,
    network: Option<Arc<Network>>,
    choice: Option<ExchangeChoice>,
}

/// A step that was run.
struct Done {
    meter: Meter,
    results: Results,
    /// Of a run that is recorded.
    routes: Option<RouteLog>,
    lanes: LaneLog,
}

async fn forward(
    client: &CoordinatorClient,
    cluster: &v1::ClusterReply,
    task: &Task,
    replay: Option<&ReplayedStep>,
) -> Result<Done, Failure> {
    let hidden = &task.hidden;
    hidden.check_hidden(cluster.hidden as usize)?;
    let mut rows = hidden.rows.clone();
    let padding = hidden.padding.as_deref();
    let padding = padding.or(replay.and_then(|replay| replay.padding.as_deref()));
    let ids = hidden.token_ids.iter().flatten();
    let mut request = v1::ForwardRequest {
        token_ids: ids.flat_map(|id| id.to_le_bytes()).collect(),
        sequence: u32::try_from(hidden.sequence()).unwrap_or(u32::MAX),
        // What is random is the same in every run of a file.
        at_step: Some(0),
        want_lanes: task.pictures.steps > 0,
        ..forward_request(cluster, hidden.tokens, &mut rows, padding, true)
    };
    if let Some(replay) = replay {
        bring_choices(&mut request, replay);
    }
    let mut meter = Meter::new(cluster);
    let mut lanes = LaneLog::new(cluster);
    let mut routes = match task.trace {
        Some(_) => Some(RouteLog::new(cluster)?),
        None => None,
    };
    let started = Instant::now();
    let reply = with_deadline(client, cluster).forward(request).await?;
    meter.record(&reply, started.elapsed())?;
    lanes.record(&reply)?;
    let results = Results::read(&reply, cluster, hidden)
        .map_err(|reason| Failure::from(DriveError::Answer(reason)))?;
    if let Some(routes) = &mut routes {
        let batch = Batch {
            tokens: hidden.tokens,
            padding,
            replay,
        };
        routes.record(&reply, &batch)?;
    }
    Ok(Done {
        meter,
        results,
        routes,
        lanes,
    })
}

// === impl Done ===

impl Done {
    /// Writes the output and the report, and prints a summary.
    fn tell(self, task: &Task, cluster: &v1::ClusterReply, layer: Layer) -> Result<(), Failure> {
        let Self {
            meter,
            results,
            routes,
            lanes,
        } = self;
        results.write(&task.output, &task.hidden.shape)?;
        let Layer {
            seed,
            model,
            shape,
            network,
            choice,
        } = layer;
        let input = task.routes.name(&task.hidden);
        let identity = identity(cluster, seed, &model, shape, &input)?;
        let mut run = meter.finish(identity, 0);
        run.losses = results.losses();
        run.exchange_choice = choice;
        if let Some(network) = &network {
            network.mark(&mut run);
        }
        let mut summary = results.summary(&run, &task.output);
        if let (Some(file), Some(routes)) = (&task.trace, routes) {
            let trace = routes.finish(input, Some(seed))?;
            summary.push_str(&format!("  {:<16}  {}\n", "trace", file.write(&trace)?));
        }
        print(&summary)?;
        let mut report = of_run(run, &cluster.endpoints);
        if let Some(network) = network {
            network.mark_place(&mut report.environment);
        }
        task.pictures.write(&report, &[lanes.finish()])?;
        let Some(file) = &task.report else {
            return Ok(());
        };
        print(&format!("\n{}", expertmesh_report::terminal(&report)))?;
        file.write(&report)
    }
}
