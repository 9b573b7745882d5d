//! `expertmesh completions`: a script that completes commands and flags.

use clap::Args;
use clap_complete::Shell;

use crate::args;
use crate::error::Failure;
use crate::output;

/// Flags of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  expertmesh completions bash > ~/.local/share/bash-completion/completions/expertmesh
  expertmesh completions fish > ~/.config/fish/completions/expertmesh.fish")]
pub(crate) struct CompletionsArgs {
    /// Shell to print the script for
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// [`Failure::Run`] if stdout cannot be written.
pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "expertmesh", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
