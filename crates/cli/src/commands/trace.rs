//! `expertmesh trace`: routing traces, without a cluster.

mod convert;
mod sample;
mod stats;
mod synth;

use clap::{Args, Subcommand};

use crate::error::Failure;

/// Flags of `trace`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
#[command(after_help = "Examples:
  expertmesh trace synth --workload zipf:1.2 --steps 20 zipf.moetrace
  expertmesh trace stats zipf.moetrace
  expertmesh launch --trace zipf.moetrace

A trace says which experts the tokens of each step chose. launch and run record one with
--record-trace, and launch --trace makes the gate choose what a trace says. docs/traces.md has the
formats.")]
pub(crate) struct TraceArgs {
    #[command(subcommand)]
    trace: TraceCommand,
}

/// What to do with a trace.
#[derive(Debug, Subcommand)]
enum TraceCommand {
    /// Tell skew, locality and idle experts of each layer, beside what chance gives
    Stats(stats::StatsArgs),
    /// Write a trace in another format
    Convert(convert::ConvertArgs),
    /// Make a trace whose experts have given loads
    Sample(sample::SampleArgs),
    /// Make a trace of a workload, and test it against what the workload claims
    Synth(synth::SynthArgs),
}

/// Does it.
///
/// # Errors
/// [`Failure`] of the command.
pub(crate) fn run(args: &TraceArgs) -> Result<(), Failure> {
    match &args.trace {
        TraceCommand::Stats(args) => stats::run(args),
        TraceCommand::Convert(args) => convert::run(args),
        TraceCommand::Sample(args) => sample::run(args),
        TraceCommand::Synth(args) => synth::run(args),
    }
}
