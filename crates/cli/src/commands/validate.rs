//! `expertmesh validate`: predictions beside what they predict.

mod machine;
mod published;
mod tell;

use std::path::PathBuf;

use clap::Args;

pub(crate) use crate::commands::validate::tell::errors;

use crate::args::values::whole;
use crate::error::Failure;
use crate::logging::LogFormat;

/// Flags of `validate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  expertmesh validate --profile profile.json --holdout-seed 1
  expertmesh validate --profile profile.json --holdout-seed 1,2,3
  expertmesh validate --profile profile.json --holdout-seed 2 --points 12 --restarts 3 \\
    --links lab.toml
  expertmesh validate --published
  expertmesh validate --published --table mine.csv --json

Held-out points are drawn by the seed from the profile's domain and are none that calibration
measured. Of several seeds each has its own table and must meet the gates by itself; a seed that
failed stays so until it is validated again. A/A is half the range of a point's medians over its restarts.
A table has the columns nodes, ranks, tokens_per_rank, hidden, topk, experts, dispatch_us and
combine_us. Exit code 3 if a gate or a bound is missed.")]
pub(crate) struct ValidateArgs {
    /// Profile of this machine, by `calibrate`; the verdict is written into it
    #[arg(long, value_name = "FILE", required_unless_present = "published")]
    profile: Option<PathBuf>,
    /// Seed that the held-out points are drawn by, or several: N,N
    #[arg(long, value_name = "N", conflicts_with = "published", value_parser = whole::<u64>)]
    #[arg(required_unless_present = "published", value_delimiter = ',')]
    holdout_seed: Vec<u64>,
    /// Points to draw by each seed [default: 24]
    #[arg(long, value_name = "N", conflicts_with = "published", value_parser = whole::<usize>)]
    points: Option<usize>,
    /// Times that each point is launched, in turn with the others [default: 5]
    #[arg(long, value_name = "N", conflicts_with = "published", value_parser = whole::<usize>)]
    restarts: Option<usize>,
    /// Seconds of steps in each launch [default: 0.4]
    #[arg(long, value_name = "S", conflicts_with = "published")]
    seconds: Option<f64>,
    /// Topology whose links are emulated at about half of the points; `none` for loopback alone
    /// [default: lab, 1 Gbit/s and 0.5 ms]
    #[arg(long, value_name = "FILE|PRESET", conflicts_with = "published")]
    links: Option<String>,
    /// Compare with the published figures of other systems
    #[arg(long, conflicts_with = "profile")]
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
/// [`Failure::Gate`] for a gate or a bound that is missed.
pub(crate) async fn run(args: ValidateArgs, log_format: LogFormat) -> Result<(), Failure> {
    match &args.profile {
        Some(profile) => machine::run(&args, profile, log_format).await,
        None => published::run(&args.table, args.json),
    }
}
