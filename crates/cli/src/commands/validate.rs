//! `expertmesh validate`: predictions beside what they predict.

mod published;

use std::path::PathBuf;

use clap::Args;

use crate::error::Failure;

/// Flags of `validate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  expertmesh validate --published
  expertmesh validate --published --table mine.csv --json

A table has the columns nodes, ranks, tokens_per_rank, hidden, topk, experts, dispatch_us and
combine_us. Exit code 3 if a figure misses its bound.")]
pub(crate) struct ValidateArgs {
    /// Compare with the published figures of other systems
    #[arg(long)]
    published: bool,
    /// Another measured table, as CSV, to be predicted in the same way; may be repeated
    #[arg(long, value_name = "FILE", requires = "published")]
    table: Vec<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Compares and prints.
///
/// # Errors
/// [`Failure::Gate`] for a bound that is missed.
pub(crate) fn run(args: &ValidateArgs) -> Result<(), Failure> {
    published::run(&args.table, args.json)
}
