//! `expertmesh`: the command line, and the one place where everything is put together.
//!
//! `main` reads argv and the environment, runs one command, and turns its end into an exit code:
//! 0 done, 1 the run failed, 2 wrong usage or input, 3 a stated gate was missed.
//!
//! Reading order:
//!
//! 1. [`args`]: the commands and their flags; `args::config_file` reads the same flags from TOML.
//! 2. [`commands`]: one file for each command.
//! 3. [`cluster`]: the processes of a cluster on this machine, and why none of them outlives us.
//! 4. [`tensors`]: hidden states from files. [`report`]: where a report was taken. [`traces`]: where
//!    a trace goes. [`pictures`]: pages and lanes.
//! 5. [`error`], [`output`], [`logging`], [`progress`], [`signals`]: what every command needs.
#![forbid(unsafe_code)]

mod args;
mod cluster;
mod commands;
mod error;
mod logging;
mod output;
mod pictures;
mod progress;
mod report;
mod signals;
mod tensors;
mod traces;

use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run() -> Result<(), error::Failure> {
    let cli = args::parse(std::env::args_os())?;
    logging::init(cli.log_format)?;
    commands::run(cli)
}
