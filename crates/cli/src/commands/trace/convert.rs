//! `expertmesh trace convert`: the same choices in another format.

use std::path::PathBuf;

use clap::Args;
use expertmesh_bench::trace::{ReadOptions, Trace, TraceFormat};

use crate::args::values::{at_least_one, parsed};
use crate::error::Failure;
use crate::output::print;
use crate::traces::TraceFile;

/// Flags of `trace convert`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  expertmesh trace convert router_trace.jsonl routes.moetrace --experts 64
  expertmesh trace convert routes.moetrace routes.csv
  expertmesh trace convert dump.txt routes.parquet --from csv

Read are moetrace, csv, parquet, megatron (.jsonl, or a directory of them) and sglang (.json);
written are moetrace, csv and parquet. CSV holds neither where a trace is from nor its seed, and of
the number of experts only the highest that was chosen.")]
pub(crate) struct ConvertArgs {
    /// Trace to read
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Trace to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Format of IN [default: by its extension, else by its first bytes]
    #[arg(long, value_name = "FORMAT", value_parser = parsed::<TraceFormat>)]
    from: Option<TraceFormat>,
    /// Format of OUT: moetrace, csv or parquet [default: by its extension]
    #[arg(long, value_name = "FORMAT", value_parser = parsed::<TraceFormat>)]
    to: Option<TraceFormat>,
    /// Experts of a layer, where IN does not say [default: the highest index + 1]
    #[arg(long, value_name = "N", value_parser = at_least_one::<std::num::NonZeroU32>)]
    experts: Option<std::num::NonZeroU32>,
}

/// Reads and writes.
///
/// # Errors
/// [`Failure::Input`] for a trace that cannot be read, or a format that cannot be written.
pub(super) fn run(args: &ConvertArgs) -> Result<(), Failure> {
    let file = TraceFile::at(&args.output, args.to)?;
    let options = ReadOptions {
        format: args.from,
        experts: args.experts.map(std::num::NonZeroU32::get),
        ..ReadOptions::default()
    };
    let trace = Trace::read_with(&args.input, &options)?;
    let written = file.write(&trace)?;
    print(&format!("wrote {written} ({})\n", file.format()))
}
