//! What can go wrong in a coordinator.

use expertmesh_checkpoint::CheckpointError;
use expertmesh_exchange::StepError;
use expertmesh_experts::ExpertError;
use expertmesh_routing::RoutingError;
use expertmesh_transport::TransportError;
use expertmesh_wire::{ErrorCode, RemoteError};

/// An error of a coordinator.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// A listener, a call or a stream failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A worker could not be brought up.
    #[error("{name} at {address}: {source}")]
    Worker {
        /// Name of the endpoint.
        name: String,
        /// Its address.
        address: String,
        /// What it said.
        source: TransportError,
    },
    /// The layer could not be loaded.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The gate or the capacity rule refuses its input.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// The shared expert or the compute pool failed.
    #[error(transparent)]
    Expert(#[from] ExpertError),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A configuration or input field is wrong.
    #[error("`{field}` holds {held}, expected {expected}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What it held.
        held: String,
        /// What would have been right.
        expected: String,
    },
    /// One of several layers failed.
    #[error("layer {layer}: {source}")]
    Layer {
        /// Number of the layer in its model.
        layer: u32,
        /// What it said.
        source: Box<CoordinatorError>,
    },
    /// A hidden state is not a number.
    #[error(
        "hidden state of token {token}, element {element} is {value}, expected a finite number; \
         mask the token or mend the input"
    )]
    NotFinite {
        /// Index of the token.
        token: usize,
        /// Index in the row.
        element: usize,
        /// What it held.
        value: f32,
    },
    /// A defect of this program.
    #[error("internal error: {0}")]
    Internal(String),
}

// === impl CoordinatorError ===

impl CoordinatorError {
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

    /// Whether the caller's input is at fault: exit code 2.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Field { .. } | Self::NotFinite { .. } | Self::Checkpoint(_) => true,
            Self::Routing(_) => true,
            Self::Transport(error) | Self::Worker { source: error, .. } => error.is_input(),
            Self::Layer { source, .. } => source.is_input(),
            Self::Expert(_) | Self::Step(_) | Self::Internal(_) => false,
        }
    }

    /// The form that crosses the wire.
    pub fn to_remote(&self) -> RemoteError {
        match self {
            Self::Step(error) => error.to_remote(),
            Self::Layer { source, .. } => RemoteError {
                message: self.to_string(),
                ..source.to_remote()
            },
            Self::Transport(TransportError::Remote(remote)) => remote.clone(),
            _ if self.is_input() => RemoteError::invalid(self.to_string()),
            _ => RemoteError::new(ErrorCode::Internal, self.to_string()),
        }
    }
}
