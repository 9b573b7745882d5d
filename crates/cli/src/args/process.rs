//! The processes of a cluster on this machine.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;

use crate::args::values::{Wait, at_least_one, parsed};
use crate::cluster::WorkerOptions;
use crate::error::Failure;
use crate::logging::LogFormat;

/// Workers, unless told otherwise.
pub(crate) const WORKERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
/// Past it lie slips of the finger: every two of so many processes may hold a connection.
const MOST_WORKERS: usize = 1024;
/// How long processes may take to come up: reading a layer's experts from a slow disk counts.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// The flags that say which processes are started; `None` for absent ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Processes")]
pub(crate) struct ProcessArgs {
    /// Worker processes [default: 4]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroUsize>)]
    pub(crate) workers: Option<NonZeroUsize>,
    /// Compute threads of each process [default: the cores dealt out to workers, at least 1]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroUsize>)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Longest wait for the processes to come up, loading experts included [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = parsed::<Wait>)]
    pub(crate) start_timeout: Option<Wait>,
}

// === impl ProcessArgs ===

impl ProcessArgs {
    /// The workers that the flags ask for.
    ///
    /// # Errors
    /// [`Failure::Input`] for more processes than are started on one machine.
    pub(crate) fn options(&self, log_format: LogFormat) -> Result<WorkerOptions, Failure> {
        let count = self.workers.unwrap_or(WORKERS);
        if count.get() > MOST_WORKERS {
            return Err(Failure::input(format!(
                "--workers is {count}, expected at most {MOST_WORKERS} processes on one machine; \
                 `expertmesh simulate` has room for more"
            )));
        }
        Ok(WorkerOptions {
            count,
            threads: self
                .threads
                .unwrap_or_else(|| threads_each(crate::commands::cores().get(), count.get())),
            patience: self.start_timeout.map_or(PATIENCE, |wait| wait.0),
            log_format,
            network: None,
        })
    }
}

/// `cores` cores of a machine dealt out to `workers` workers, at least one each.
pub(crate) fn threads_each(cores: usize, workers: usize) -> NonZeroUsize {
    NonZeroUsize::new(cores / workers.max(1)).unwrap_or(NonZeroUsize::MIN)
}
