//! `expertmesh bench`: parts of a step against what the machine can do.

mod dispatch;
mod overflow;
mod table;

use clap::{Args, Subcommand};

use crate::commands::bench::dispatch::DispatchArgs;
use crate::commands::bench::overflow::OverflowArgs;
use crate::commands::block_on;
use crate::error::Failure;
use crate::logging::LogFormat;

/// Flags of `bench`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum Bench {
    /// The exchange beside its floor: the same messages without the work
    Dispatch(Box<DispatchArgs>),
    /// Every overflow policy on the same batches, beside dropless
    Overflow(Box<OverflowArgs>),
}

/// Measures.
///
/// # Errors
/// [`Failure`] of the bench.
pub(crate) fn run(args: BenchArgs, log_format: LogFormat) -> Result<(), Failure> {
    match args.bench {
        Bench::Dispatch(args) => block_on(dispatch::run(*args, log_format)),
        Bench::Overflow(args) => block_on(overflow::run(*args, log_format)),
    }
}
