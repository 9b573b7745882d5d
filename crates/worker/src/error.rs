//! What can go wrong in a worker.

use expertmesh_checkpoint::CheckpointError;
use expertmesh_experts::ExpertError;
use expertmesh_transport::TransportError;
use expertmesh_wire::{ErrorCode, RemoteError};

/// An error of a worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A listener, a call or a stream failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The layer could not be loaded.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An expert or the compute pool failed.
    #[error(transparent)]
    Expert(#[from] ExpertError),
    /// A configuration field is wrong.
    #[error("`{field}` holds {held}, expected {expected}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What it held.
        held: String,
        /// What would have been right.
        expected: String,
    },
}

// === impl WorkerError ===

impl WorkerError {
    pub(crate) fn field(
        field: &'static str,
        held: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self::Field {
            field,
            held: held.to_string(),
            expected: expected.into(),
        }
    }

    /// The form that crosses the wire.
    pub(crate) fn to_remote(&self) -> RemoteError {
        match self {
            Self::Transport(TransportError::Remote(remote)) => remote.clone(),
            Self::Transport(error) => RemoteError::new(ErrorCode::WorkerLost, error.to_string()),
            Self::Checkpoint(_) | Self::Expert(_) | Self::Field { .. } => {
                RemoteError::invalid(self.to_string())
            }
        }
    }
}
