//! Pages and traces of a report, as files.

use std::path::PathBuf;

use expertmesh_report::{html, lanes_json, perfetto, side_by_side};
use expertmesh_telemetry::{Report, Trace};

use crate::error::Failure;
use crate::output::write;

/// Places for pictures, checked before the run that would fill them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pictures {
    pub(crate) html: Option<PathBuf>,
    pub(crate) perfetto: Option<PathBuf>,
    pub(crate) lanes: Option<PathBuf>,
    /// Steps that are to come with their lanes; 0 if there is no picture.
    pub(crate) steps: u64,
}

// === impl Pictures ===

impl Pictures {
    /// Writes what was asked for; `traces` are the lanes of the report's runs, in their order.
    ///
    /// # Errors
    /// [`Failure::Run`] for a file that cannot be written.
    pub(crate) fn write(&self, report: &Report, traces: &[Trace]) -> Result<(), Failure> {
        if let Some(file) = &self.lanes {
            write(file, lanes_json(traces)?)?;
        }
        if self.html.is_none() && self.perfetto.is_none() {
            return Ok(());
        }
        let traces = side_by_side(report, traces);
        if let Some(file) = &self.html {
            write(file, html(report, &traces)?)?;
        }
        if let (Some(file), Some(trace)) = (&self.perfetto, traces.first()) {
            write(file, perfetto(trace))?;
        }
        Ok(())
    }
}
