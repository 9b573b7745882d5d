//! Workers, and whole clusters, on this machine.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use expertmesh_exchange::OnLoss;
use tokio::time::timeout;

use crate::cluster::network::Network;
use crate::cluster::process::{ChildSpec, Exited, ProcessGroup};
use crate::cluster::ready::Ready;
use crate::error::Failure;
use crate::logging::LogFormat;
use crate::output::complain;

/// Address at which the system chooses a free port.
pub(crate) const ANY_PORT: &str = "127.0.0.1:0";

/// Name of the coordinator process.
const COORDINATOR: &str = "coordinator";

/// A call that fails is often the first sign of a process that died, whose end says more; it is
/// waited for this long.
const LATE_NEWS: Duration = Duration::from_millis(250);

/// The workers to start.
#[derive(Debug, Clone)]
pub(crate) struct WorkerOptions {
    pub(crate) count: NonZeroUsize,
    /// Compute threads of each, and of the coordinator.
    pub(crate) threads: NonZeroUsize,
    /// Longest wait for all of them to serve.
    pub(crate) patience: Duration,
    pub(crate) log_format: LogFormat,
    /// Links of a topology between them; `None` for this machine's own.
    pub(crate) network: Option<Arc<Network>>,
}

/// A coordinator whose workers are up.
#[derive(Debug, Clone)]
pub(crate) struct LocalCluster {
    pub(crate) coordinator: Ready,
}

/// Starts workers on free ports of the loopback interface, `worker-0`, `worker-1`, … Where they have
/// a network, its links are probed.
///
/// # Errors
/// As [`ProcessGroup::start`], and as [`Network::check`].
pub(crate) async fn start_workers(
    group: &mut ProcessGroup,
    options: &WorkerOptions,
) -> Result<Vec<Ready>, Failure> {
    let specs = (0..options.count.get()).map(|index| {
        let name = format!("worker-{index}");
        let threads = options.threads.to_string();
        let network = options.network.as_ref();
        let own = network.and_then(|network| network.any_port(index + 1));
        let args = [
            "worker",
            "--listen",
            own.as_deref().unwrap_or(ANY_PORT),
            "--name",
            &name,
            "--threads",
            &threads,
        ];
        let mut args = args.map(OsString::from).to_vec();
        if let Some(network) = network {
            args.extend(network.flags(index + 1));
        }
        ChildSpec {
            args: with_log_format(args, options.log_format),
            place: network.and_then(|network| network.place(index + 1)),
            name,
        }
    });
    let ready = group.start(specs.collect(), options.patience).await?;
    if let Some(network) = &options.network {
        let addresses: Vec<&str> = ready.iter().map(|one| one.address.as_str()).collect();
        network.check(&addresses).await?;
    }
    Ok(ready)
}

/// Starts workers, and a coordinator on top of them.
///
/// `coordinator` are its flags besides `--workers`, `--threads` and `--name`. It may take as long as
/// `options.patience` too, for its workers load their experts in that time.
///
/// # Errors
/// As [`start_workers`].
pub(crate) async fn start_cluster(
    group: &mut ProcessGroup,
    options: &WorkerOptions,
    coordinator: Vec<OsString>,
) -> Result<LocalCluster, Failure> {
    let workers = start_workers(group, options).await?;
    let addresses: Vec<&str> = workers.iter().map(|one| one.address.as_str()).collect();
    let mut args: Vec<OsString> = ["coordinator", "--name", COORDINATOR, "--workers"]
        .map(OsString::from)
        .to_vec();
    args.push(addresses.join(",").into());
    args.extend(["--threads".into(), options.threads.to_string().into()]);
    args.extend(options.network.iter().flat_map(|network| network.flags(0)));
    args.extend(coordinator);
    let spec = ChildSpec {
        name: COORDINATOR.to_owned(),
        args: with_log_format(args, options.log_format),
        place: None,
    };
    let mut ready = group.start(vec![spec], options.patience).await?;
    let coordinator = ready
        .pop()
        .ok_or_else(|| Failure::run("the coordinator said nothing"))?;
    Ok(LocalCluster { coordinator })
}

/// Waits for `work`, unless a process that it needs ends before. Under [`OnLoss::Drop`] it needs
/// the coordinator only.
///
/// # Errors
/// That of `work`, or [`Failure::Run`] naming the process.
pub(crate) async fn while_all_live<T, E>(
    work: impl Future<Output = Result<T, E>>,
    group: &mut ProcessGroup,
    on_loss: OnLoss,
) -> Result<T, Failure>
where
    Failure: From<E>,
{
    let needed = |exited: &Exited| on_loss == OnLoss::Fail || exited.name == COORDINATOR;
    let mut work = pin!(work);
    let error = loop {
        tokio::select! {
            biased;
            exited = group.exited() => {
                if needed(&exited) {
                    return Err(exited.during_the_run());
                }
                complain(&format!("warning: {}; its choices are lost", exited.describe()));
            }
            done = work.as_mut() => match done {
                Ok(done) => return Ok(done),
                Err(error) => break error,
            }
        }
    };
    match timeout(LATE_NEWS, group.exited()).await {
        Ok(exited) if needed(&exited) => Err(exited.during_the_run()),
        Ok(_) | Err(_) => Err(error.into()),
    }
}

fn with_log_format(mut args: Vec<OsString>, format: LogFormat) -> Vec<OsString> {
    args.extend(["--log-format", format.name()].map(OsString::from));
    args
}
