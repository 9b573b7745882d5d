//! `expertmesh trace synth`: the choices of a workload, and whether they are what it claims.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::Args;
use expertmesh_bench::workload::{Draws, Pattern, WorkloadShape};

use crate::args::load::{STEPS, TOKENS};
use crate::args::model::{EXPERTS, TOP_K};
use crate::args::values::{at_least_one, parsed, whole};
use crate::error::Failure;
use crate::output::print;
use crate::traces::TraceFile;

/// Flags of `trace synth`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  expertmesh trace synth --workload zipf:1.2 zipf.moetrace
  expertmesh trace synth --workload w5 --experts 64 --top-k 8 --ranks 8 --tokens 4096 idle.parquet

Prints every claim of the workload beside what the trace has; ends with 3 where one does not hold.
These are the choices that launch --workload makes the gate take.")]
pub(crate) struct SynthArgs {
    /// Trace to write: .moetrace, .csv or .parquet
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// How tokens spread over experts: balanced, zipf:S, hot:SHARE, w0 to w7, drift or locality
    /// (see launch --help)
    #[arg(long, value_name = "PATTERN", value_parser = parsed::<Pattern>)]
    workload: Pattern,
    /// Token rows of a step [default: 64]
    #[arg(long, value_name = "T", value_parser = at_least_one::<NonZeroUsize>)]
    tokens: Option<NonZeroUsize>,
    /// Experts of the layer [default: 8]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroUsize>)]
    experts: Option<NonZeroUsize>,
    /// Experts that each token chooses [default: 2]
    #[arg(long, value_name = "K", value_parser = at_least_one::<NonZeroUsize>)]
    top_k: Option<NonZeroUsize>,
    /// Steps [default: 100]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroU64>)]
    steps: Option<NonZeroU64>,
    /// Ranks that hold the experts and the tokens, in equal runs [default: 4, or the experts]
    #[arg(long, value_name = "R", value_parser = at_least_one::<NonZeroUsize>)]
    ranks: Option<NonZeroUsize>,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value = "0", value_parser = whole::<u64>)]
    seed: u64,
}

/// Draws, writes and tests.
///
/// # Errors
/// [`Failure::Input`] for a workload that the shape cannot have, [`Failure::Gate`] for a claim
/// that does not hold.
pub(super) fn run(args: &SynthArgs) -> Result<(), Failure> {
    let file = TraceFile::at(&args.output, None)?;
    let shape = WorkloadShape {
        tokens: args.tokens.map_or(TOKENS, NonZeroUsize::get),
        // Draws are made without hidden states.
        hidden: 1,
        experts: args.experts.map_or(EXPERTS, NonZeroUsize::get),
        top_k: args.top_k.map_or(TOP_K, NonZeroUsize::get),
    };
    let ranks = args.ranks.map(NonZeroUsize::get);
    let draws = Draws::new(args.workload, shape, ranks, args.seed)?;
    let trace = draws.trace(0..args.steps.map_or(STEPS, NonZeroU64::get))?;
    let records = trace.records().iter();
    let test = draws.self_test(records.map(|record| (record.step, &record.experts)))?;
    let written = file.write(&trace)?;
    print(&format!("wrote {written}\n{test}"))?;
    test.verdict()
        .map_err(|error| Failure::Gate(error.to_string()))
}
