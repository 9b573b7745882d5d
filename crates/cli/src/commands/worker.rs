//! `expertmesh worker`: serves experts until it is told to stop.

use std::num::NonZeroUsize;

use clap::Args;
use expertmesh_worker::{ExpertRegistry, Worker, WorkerConfig};

use crate::args::values::{at_least_one, parsed, whole};
use crate::cluster::{Emulated, Ready, Role, die_with_parent};
use crate::commands::cores;
use crate::error::Failure;
use crate::signals::Signals;

/// Flags of `worker`.
#[derive(Debug, Args)]
#[command(after_help = "Example, two machines:
  10.0.0.7$ expertmesh worker --listen 0.0.0.0:7400 --name left
  10.0.0.8$ expertmesh worker --listen 0.0.0.0:7400 --name right
  10.0.0.7$ expertmesh coordinator --workers 10.0.0.7:7400,10.0.0.8:7400

Prints one line of JSON when it serves:
  {\"role\":\"worker\",\"name\":\"left\",\"address\":\"0.0.0.0:7400\",\"pid\":4711}
SIGTERM or Ctrl-C stops it.")]
pub(crate) struct WorkerArgs {
    /// Address to serve on; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: String,
    /// Name in logs
    #[arg(long, value_name = "NAME", default_value = "worker")]
    name: String,
    /// Compute threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroUsize>)]
    threads: Option<NonZeroUsize>,
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
/// [`Failure`] if the address cannot be served on.
pub(crate) async fn run(args: WorkerArgs) -> Result<(), Failure> {
    let mut signals = Signals::take()?;
    args.die_with_parent.map_or(Ok(()), die_with_parent)?;
    let worker = Worker::bind(WorkerConfig {
        name: args.name.clone(),
        listen: args.listen,
        threads: args.threads.unwrap_or_else(cores).get(),
        options: Emulated::options(args.emulated.as_ref())?,
        registry: ExpertRegistry::default(),
    })?;
    // Connections queue from here on: whoever reads the line may dial.
    Ready::new(Role::Worker, &args.name, worker.local_addr()).announce()?;
    let stopped = async move {
        let signal = signals.next().await;
        tracing::info!(signal, "worker stops");
    };
    Ok(worker.serve(stopped).await?)
}
