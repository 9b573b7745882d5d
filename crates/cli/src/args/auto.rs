//! What an exchange is chosen by, where a command that starts a cluster is told `--exchange auto`.

use std::path::PathBuf;

use clap::Args;

use crate::args::step::StepArgs;
use crate::error::Failure;

/// The flag that says which machine steps are predicted on; `None` if absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Step")]
pub(crate) struct AutoArgs {
    /// Profile that `calibrate` wrote on this machine, for --exchange auto to predict steps by
    /// [default: preset costs and the cores of this machine]
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
}

// === impl AutoArgs ===

impl AutoArgs {
    /// Checks that there is something to choose.
    ///
    /// # Errors
    /// [`Failure::Input`] for a profile that nothing is predicted by.
    pub(crate) fn check(&self, step: &StepArgs) -> Result<(), Failure> {
        match &self.profile {
            Some(file) if !step.is_auto() => Err(Failure::input(format!(
                "--profile is {}, which only --exchange auto predicts by; add it, or drop --profile",
                file.display()
            ))),
            _ => Ok(()),
        }
    }
}
