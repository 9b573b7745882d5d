//! One file for each command: its flags, and what it does.

pub(crate) mod bench;
pub(crate) mod calibrate;
pub(crate) mod completions;
pub(crate) mod coordinator;
pub(crate) mod doctor;
pub(crate) mod inspect;
pub(crate) mod launch;
pub(crate) mod measure;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod simulate;
pub(crate) mod topology;
pub(crate) mod trace;
pub(crate) mod validate;
pub(crate) mod worker;

use std::num::NonZeroUsize;

use crate::args::{Cli, Command};
use crate::error::Failure;

/// Does what the command line asks for.
///
/// # Errors
/// [`Failure`] of the command.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let log_format = cli.log_format;
    match cli.command {
        Command::Launch(args) => block_on(launch::run(*args, log_format)),
        Command::Run(args) => block_on(run::run(*args, log_format)),
        Command::Worker(args) => block_on(worker::run(args)),
        Command::Coordinator(args) => block_on(coordinator::run(*args)),
        Command::Bench(args) => bench::run(args, log_format),
        Command::Report(args) => report::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Calibrate(args) => block_on(calibrate::run(args, log_format)),
        Command::Validate(args) => block_on(validate::run(args, log_format)),
        Command::Inspect(args) => inspect::run(&args),
        Command::Topology(args) => topology::run(&args),
        Command::Doctor(args) => block_on(doctor::run(args)),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Runs `work` on a current-thread runtime in this, the main thread: IO needs no more than one
/// thread, and child processes are tied to the thread that starts them.
///
/// # Errors
/// [`Failure`] of `work`, or of a system that gives no runtime.
pub(crate) fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::run(format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(work);
    // A load from disk that is still under way must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// Cores that this process may use.
pub(crate) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
