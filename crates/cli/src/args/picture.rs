//! What is drawn of a run, beside its report.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::Args;

use crate::args::values::at_least_one;
use crate::error::Failure;
use crate::output::check_place;
use crate::pictures::Pictures;

/// Steps that have lanes, unless told otherwise.
const LANE_STEPS: NonZeroU64 = NonZeroU64::MIN.saturating_add(7);

/// The flags that ask for pictures; `None` for absent ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Pictures")]
pub(crate) struct PictureArgs {
    /// Also write the report as one HTML page to this file; it opens without a network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Also write when each endpoint did what to this file, for <https://ui.perfetto.dev>
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
    /// The same as JSON, for `expertmesh report --lanes`
    #[arg(long, value_name = "FILE")]
    lanes: Option<PathBuf>,
    /// Steps of which these tell, the last ones [default: 8]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroU64>)]
    lane_steps: Option<NonZeroU64>,
}

// === impl PictureArgs ===

impl PictureArgs {
    /// Checks that files can be put where the flags say; `runs` are those of the report.
    ///
    /// # Errors
    /// [`Failure::Input`] for a place that cannot hold a file, for `--perfetto` of several runs, for
    /// `--lane-steps` without a picture.
    pub(crate) fn check(&self, runs: usize) -> Result<Pictures, Failure> {
        let files = [&self.html, &self.perfetto, &self.lanes];
        for file in files.into_iter().flatten() {
            check_place(file)?;
        }
        if self.perfetto.is_some() && runs > 1 {
            return Err(Failure::input(format!(
                "--perfetto shows one run, expected 1 and not {runs}; write --lanes, and choose one \
                 with `expertmesh report --run`"
            )));
        }
        let is_any = files.into_iter().any(Option::is_some);
        match self.lane_steps {
            Some(_) if !is_any => Err(Failure::input(
                "--lane-steps says how many steps are drawn, and nothing is; add --html, --perfetto \
                 or --lanes",
            )),
            steps => Ok(Pictures {
                html: self.html.clone(),
                perfetto: self.perfetto.clone(),
                lanes: self.lanes.clone(),
                steps: match is_any {
                    true => steps.unwrap_or(LANE_STEPS).get(),
                    false => 0,
                },
            }),
        }
    }
}
