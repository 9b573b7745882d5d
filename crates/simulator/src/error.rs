//! What cannot be simulated.

use expertmesh_exchange::StepError;
use expertmesh_topology::TopologyError;

/// A simulation that cannot be done, or a step that failed in it as it would for real.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimError {
    /// An option that contradicts another, or that the exchange does not have.
    #[error("{field} is {held}, expected {expected}")]
    Field {
        /// The option.
        field: &'static str,
        /// What it held.
        held: String,
        /// What would work.
        expected: String,
    },
    /// Costs that cannot be read.
    #[error("costs: {0}")]
    Costs(String),
    /// A topology that cannot be used.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A step that ended without outputs.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Nothing more happens and the step is not over: a defect of this crate.
    #[error("step {step} waits for nothing at {now_ns} ns: report this as a defect")]
    Stuck {
        /// Position of the step in its run.
        step: usize,
        /// Simulated time, nanoseconds.
        now_ns: u64,
    },
}

// === impl SimError ===

impl SimError {
    pub(crate) fn field(
        field: &'static str,
        held: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Self {
        Self::Field {
            field,
            held: held.to_string(),
            expected: expected.to_string(),
        }
    }
}
