//! `expertmesh trace sample`: tokens for loads that were counted without them.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use clap::Args;
use expertmesh_bench::trace::LoadMatrix;

use crate::args::values::{at_least_one, whole};
use crate::error::Failure;
use crate::output::print;
use crate::traces::TraceFile;

/// Flags of `trace sample`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  expertmesh trace sample loads.csv sampled.moetrace --tokens 4096 --top-k 8 --seed 1

LOADS is EPLB's weight as CSV, a line for each layer and a column for each expert, or the JSON that
examples/traces/sglang_to_json.py makes of SGLang's recorder in mode stat. Each token chooses an
expert with exactly k times its share of the layer's load; tokens are independent.")]
pub(crate) struct SampleArgs {
    /// Choices that each expert of each layer got
    #[arg(value_name = "LOADS")]
    loads: PathBuf,
    /// Trace to write: .moetrace, .csv or .parquet
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Token rows of a step
    #[arg(long, value_name = "T", default_value = "64")]
    #[arg(value_parser = at_least_one::<NonZeroU32>)]
    tokens: NonZeroU32,
    /// Experts that each token chooses
    #[arg(long, value_name = "K", default_value = "2")]
    #[arg(value_parser = at_least_one::<NonZeroU32>)]
    top_k: NonZeroU32,
    /// Steps
    #[arg(long, value_name = "N", default_value = "1")]
    #[arg(value_parser = at_least_one::<NonZeroU64>)]
    steps: NonZeroU64,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value = "0", value_parser = whole::<u64>)]
    seed: u64,
}

/// Draws and writes.
///
/// # Errors
/// [`Failure::Input`] for loads that cannot be read, or that no k distinct choices can give.
pub(super) fn run(args: &SampleArgs) -> Result<(), Failure> {
    let file = TraceFile::at(&args.output, None)?;
    let loads = LoadMatrix::read(&args.loads)?;
    let (steps, tokens, top_k) = (args.steps.get(), args.tokens.get(), args.top_k.get());
    let trace = loads.sample_steps(steps, tokens, top_k, args.seed);
    let trace = trace.map_err(|error| {
        Failure::input(format!(
            "{error}; the loads are those of {}",
            args.loads.display()
        ))
    })?;
    let trace = trace.from_source(format!("sampled from {}", args.loads.display()));
    let written = file.write(&trace)?;
    print(&format!("wrote {written}\n"))
}
