//! The commands and their flags. Flags that mean the same have one definition.
//!
//! Reading order: [`Cli`] and [`Command`] here; [`model`] (which layer), [`stack`] (how many, and which
//! tokens are in them), [`step`] (how a step runs), [`auto`] (what an exchange is chosen by), [`force`]
//! (whose routes they are), [`load`] (what is driven through it; [`memory`], whether it can be),
//! [`process`] (on which processes), [`network`] (with what between them), [`picture`] (what is drawn
//! of it); [`values`] (their spellings); [`gates`] (`--gate help`); [`config_file`]; [`files`] (no file
//! is written over another). What only one command has stands with it: `bench overflow` takes most of
//! these and adds the factors and the trace that it compares policies under.

pub(crate) mod auto;
pub(crate) mod capacity;
mod config_file;
mod files;
pub(crate) mod force;
mod gates;
pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod model;
pub(crate) mod network;
pub(crate) mod own_rule;
pub(crate) mod picture;
pub(crate) mod process;
pub(crate) mod stack;
pub(crate) mod step;
pub(crate) mod values;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::commands::{
    bench, calibrate, completions, coordinator, doctor, inspect, launch, report, run, simulate,
    topology, trace, validate, worker,
};
use crate::error::Failure;
use crate::logging::LogFormat;

/// Expert-parallel runtime for Mixture-of-Experts layers.
///
/// Launch a cluster on this machine, forward hidden states through a layer of a checkpoint, and
/// learn where the time and the bytes went.
#[derive(Debug, Parser)]
#[command(name = "expertmesh", version, arg_required_else_help = true)]
#[command(after_help = "Examples:
  expertmesh launch                            a cluster of 4 workers, driven and measured
  expertmesh launch --help                     what can be varied
  expertmesh doctor                            whether this machine can run it

Logs go to stderr when EXPERTMESH_LOG holds a filter such as info or expertmesh_exchange=debug.
Exit codes: 0 done, 1 the run failed, 2 wrong usage or input, 3 a stated gate was missed.")]
pub(crate) struct Cli {
    /// Form of the log lines on stderr: text or json [default: text]
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    #[arg(hide_default_value = true, value_parser = values::parsed::<LogFormat>)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a cluster on this machine, drive a workload through it and print the report
    Launch(Box<launch::LaunchArgs>),
    /// Forward hidden states from a file through one layer of a checkpoint
    Run(Box<run::RunArgs>),
    /// Serve experts to coordinators
    Worker(worker::WorkerArgs),
    /// Run the gate over a set of workers and serve Forward calls to clients
    Coordinator(Box<coordinator::CoordinatorArgs>),
    /// Measure parts of a step against what the machine can do
    Bench(bench::BenchArgs),
    /// Print saved reports side by side, draw them, and export them for other tools
    Report(report::ReportArgs),
    /// Tell what a routing trace says; convert, sample and make traces
    Trace(trace::TraceArgs),
    /// Tell what a layer or a model would cost on machines that are not there, and why
    Simulate(Box<simulate::SimulateArgs>),
    /// Measure this machine, so that simulations can predict it
    Calibrate(calibrate::CalibrateArgs),
    /// Hold predictions against measurements: those of others, or of this machine
    Validate(validate::ValidateArgs),
    /// Tell what a checkpoint directory holds, and what each worker would load
    Inspect(inspect::InspectArgs),
    /// Tell what a topology file says, and where workers would sit
    Topology(topology::TopologyArgs),
    /// Check that this machine can run a cluster, and that it computes the right bits
    Doctor(doctor::DoctorArgs),
    /// Print a script that completes commands and flags in a shell
    Completions(completions::CompletionsArgs),
}

/// Reads argv, and the file that its `--config` names.
///
/// # Errors
/// [`Failure::Usage`] for what clap refuses or answers itself, [`Failure::Page`] for `--gate help`,
/// [`Failure::Input`] for a configuration file that cannot be used.
pub(crate) fn parse(argv: impl Iterator<Item = OsString>) -> Result<Cli, Failure> {
    let argv: Vec<OsString> = argv.collect();
    let cli = parse_argv(&argv)?;
    let Command::Launch(launch) = &cli.command else {
        return Ok(cli);
    };
    match &launch.config {
        None => Ok(cli),
        Some(file) => parse_argv(&config_file::merge("launch", file, &argv)?),
    }
}

/// The whole command line as clap knows it.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

fn parse_argv(argv: &[OsString]) -> Result<Cli, Failure> {
    let command = command();
    let matches = command.clone().try_get_matches_from(argv);
    let matches = matches.map_err(gates::answered)?;
    files::check(&command, &matches)?;
    Ok(Cli::from_arg_matches(&matches)?)
}

#[cfg(test)]
mod tests;
