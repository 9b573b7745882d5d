//! Why a step ended without its outputs.

use expertmesh_wire::{ErrorCode, RemoteError};

/// Why an endpoint is counted as lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LossCause {
    /// Its connection ended.
    #[error("its connection ended ({0})")]
    Disconnected(String),
    /// It did not answer before the deadline.
    #[error("it did not answer within {waited_ms} ms")]
    Deadline {
        /// How long the step had waited, milliseconds.
        waited_ms: u64,
    },
    /// It answered with an error.
    #[error("{0}")]
    Reported(RemoteError),
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// An endpoint was lost and the policy is to fail.
    #[error("step {step}: {name} was lost: {cause}")]
    Lost {
        /// Number of the step.
        step: u64,
        /// Endpoint id.
        endpoint: u32,
        /// Name of the endpoint.
        name: String,
        /// What happened to it.
        cause: LossCause,
    },
    /// An endpoint sent a frame that contradicts the plan of the step.
    #[error("step {step}: {name} sent a frame that the plan contradicts: {reason}")]
    BadFrame {
        /// Number of the step.
        step: u64,
        /// Endpoint id.
        endpoint: u32,
        /// Name of the endpoint.
        name: String,
        /// What is wrong with the frame.
        reason: String,
    },
}

// === impl StepError ===

impl StepError {
    /// The endpoint that the error names.
    pub fn endpoint(&self) -> u32 {
        match self {
            Self::Lost { endpoint, .. } | Self::BadFrame { endpoint, .. } => *endpoint,
        }
    }

    /// The form that crosses the wire.
    pub fn to_remote(&self) -> RemoteError {
        let code = match self {
            Self::Lost {
                cause: LossCause::Deadline { .. },
                ..
            } => ErrorCode::Deadline,
            Self::Lost {
                cause: LossCause::Reported(remote),
                ..
            } => remote.code,
            Self::Lost { .. } => ErrorCode::WorkerLost,
            Self::BadFrame { .. } => ErrorCode::BadFrame,
        };
        RemoteError::new(code, self.to_string()).about(self.endpoint())
    }
}

/// The name of an endpoint, for errors.
pub(crate) fn name_of(names: &[String], endpoint: u32) -> String {
    names
        .get(endpoint as usize)
        .cloned()
        .unwrap_or_else(|| format!("endpoint {endpoint}"))
}
