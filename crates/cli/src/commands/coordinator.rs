//! `expertmesh coordinator`: a gate over a set of workers, served to clients.

use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::Args;
use expertmesh_coordinator::{CoordinatorConfig, CoordinatorService, Stack};
use expertmesh_transport::{LinkOptions, Listener, serve_coordinator};

use crate::args::force::ForceArgs;
use crate::args::model::{Model, ModelArgs};
use crate::args::own_rule::check_own_rule;
use crate::args::stack::StackArgs;
use crate::args::step::{StepArgs, StepOptions};
use crate::args::values::{at_least_one, parsed, whole};
use crate::cluster::{Emulated, Ready, Role, die_with_parent};
use crate::commands::cores;
use crate::error::Failure;
use crate::signals::Signals;

/// Flags of `coordinator`.
#[derive(Debug, Args)]
#[command(after_help = "Example, against two workers that are up:
  expertmesh coordinator --listen 127.0.0.1:7500 --workers 10.0.0.7:7400,10.0.0.8:7400 \\
      --model Mixtral-8x7B-v0.1 --layer 0 --dtype bf16
  expertmesh run --coordinator 127.0.0.1:7500 --input in.safetensors --output out.safetensors

Prints one line of JSON when the workers hold their experts and it serves:
  {\"role\":\"coordinator\",\"name\":\"coordinator\",\"address\":\"127.0.0.1:7500\",\"pid\":4712}
SIGTERM or Ctrl-C stops it; the workers free the layer and stay.")]
pub(crate) struct CoordinatorArgs {
    /// Address to serve clients on; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: String,
    /// Addresses of the workers, separated by commas
    #[arg(long, value_name = "HOST:PORT", required = true, value_delimiter = ',')]
    workers: Vec<String>,
    /// Name in logs
    #[arg(long, value_name = "NAME", default_value = "coordinator")]
    name: String,
    /// Compute threads for the gate and long combines [default: all cores]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroUsize>)]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    stack: StackArgs,
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    force: ForceArgs,
    /// Process to die with; its launcher says so
    #[arg(long, value_name = "PID", hide = true, value_parser = whole::<u32>)]
    die_with_parent: Option<u32>,
    /// The emulated network that it is in; its launcher says so
    #[arg(long, value_name = "PATH:ENDPOINT", hide = true, value_parser = parsed::<Emulated>)]
    emulated: Option<Emulated>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`Failure`] if the layer, the workers or the address cannot be used.
pub(crate) async fn run(args: CoordinatorArgs) -> Result<(), Failure> {
    let mut signals = Signals::take()?;
    args.die_with_parent.map_or(Ok(()), die_with_parent)?;
    let models = args.stack.layers(&args.model)?;
    for model in &models {
        check_own_rule(model.source.spec(), &args.step, &args.stack)?;
    }
    let first = &models[0];
    let (experts, workers) = (first.source.spec().routed_experts(), args.workers.len());
    let step = args
        .step
        .resolve(experts, workers, first.dtype, first.seed)?;
    let exit = args.stack.exit(first)?;
    let options = Emulated::options(args.emulated.as_ref())?;
    // Bound first: a port that is taken is told before the workers load anything.
    let listener = Listener::bind(&args.listen, &options)?;
    let configs = models
        .iter()
        .map(|model| config(&args, model, &step, &options))
        .collect::<Result<_, _>>()?;
    let stack = tokio::select! {
        connected = Stack::connect(configs, args.stack.residual(), exit) => connected?,
        signal = signals.next() => {
            tracing::info!(signal, "coordinator stops before it served");
            return Ok(());
        }
    };
    let service = CoordinatorService::new(stack);
    Ready::new(Role::Coordinator, &args.name, listener.local_addr()).announce()?;
    let stopped = async move {
        let signal = signals.next().await;
        tracing::info!(signal, "coordinator stops");
    };
    listener.health().set_ready(true);
    Ok(serve_coordinator(listener, Arc::new(service), stopped).await?)
}

/// What the coordinator of one layer is told.
fn config(
    args: &CoordinatorArgs,
    model: &Model,
    step: &StepOptions,
    options: &LinkOptions,
) -> Result<CoordinatorConfig, Failure> {
    Ok(CoordinatorConfig {
        name: args.name.clone(),
        depth: args.stack.depth(model)?,
        force: args.force.kind(),
        threads: args.threads.unwrap_or_else(cores).get(),
        options: options.clone(),
        ..step.coordinator(model, args.workers.clone())
    })
}
