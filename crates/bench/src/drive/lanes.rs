//! When endpoints did what in the answers of a coordinator.

use expertmesh_coordinator::to_lanes;
use expertmesh_telemetry::{Lane, TelemetryError, Trace};
use expertmesh_wire::v1;

use crate::drive::DriveError;

/// Lanes of a few steps of a run.
#[derive(Debug, Clone)]
pub struct LaneLog {
    trace: Trace,
}

// === impl LaneLog ===

impl LaneLog {
    /// A log for answers of `cluster` to requests with `want_lanes`.
    pub fn new(cluster: &v1::ClusterReply) -> Self {
        let names = cluster.endpoints.iter();
        let names: Vec<String> = names.map(|endpoint| endpoint.name.clone()).collect();
        Self {
            trace: Trace::new(&names),
        }
    }

    /// Keeps the lanes of one answer.
    ///
    /// # Errors
    /// [`DriveError::Answer`] for an answer without a report, [`DriveError::Telemetry`] for a lane
    /// of an endpoint that the cluster does not have, or that ends before it begins.
    pub fn record(&mut self, reply: &v1::ForwardReply) -> Result<(), DriveError> {
        let report = reply.report.as_ref();
        let report = report.ok_or_else(|| DriveError::Answer("`report` is missing".to_owned()))?;
        self.keep(&to_lanes(report))?;
        Ok(())
    }

    /// Keeps the lanes of a step.
    ///
    /// # Errors
    /// As [`Trace::check`].
    pub fn keep(&mut self, lanes: &[Lane]) -> Result<(), TelemetryError> {
        let one = Trace {
            endpoints: self.trace.endpoints.clone(),
            lanes: lanes.to_vec(),
        };
        one.check()?;
        self.trace.lanes.extend(one.lanes);
        Ok(())
    }

    /// The lanes that were kept.
    pub fn finish(self) -> Trace {
        self.trace
    }
}
