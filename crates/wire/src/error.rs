//! Errors: what is wrong with bytes that arrived, and what another endpoint said went wrong.

use crate::v1::{ErrorCode, ErrorDetail};

/// A frame that its own header, index or limits contradict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are not a `Frame` message.
    #[error("frame is not a protobuf message of expertmesh.v1.Frame: {0}")]
    Malformed(String),
    /// A header field that every frame carries is absent.
    #[error("frame header lacks `{field}`; every header field is always present")]
    Missing {
        /// Name of the field in the protocol file.
        field: &'static str,
    },
    /// A field holds a value that the protocol does not define or that other fields contradict.
    #[error("frame field `{field}` holds {held}, expected {expected}")]
    Field {
        /// Name of the field in the protocol file.
        field: &'static str,
        /// What arrived.
        held: String,
        /// What would have been right.
        expected: String,
    },
}

/// An error that another endpoint reported, with its kind preserved by the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    /// What kind of error: decides the exit code and whether a retry makes sense.
    pub code: ErrorCode,
    /// One clear sentence, lowercase, without a trailing period.
    pub message: String,
    /// Endpoint id that the error is about, where it is about one.
    pub endpoint: Option<u32>,
}

// === impl WireError ===

impl WireError {
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

// === impl RemoteError ===

impl RemoteError {
    /// An error about no endpoint in particular.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            endpoint: None,
        }
    }

    /// The same error, about endpoint `id`.
    #[must_use]
    pub fn about(mut self, id: u32) -> Self {
        self.endpoint = Some(id);
        self
    }

    /// Wrong input of the caller.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidInput, message)
    }

    /// The form in which it travels: gRPC status details, or `rows` of an error frame.
    pub fn to_detail(&self) -> ErrorDetail {
        ErrorDetail {
            code: self.code.into(),
            message: self.message.clone(),
            endpoint: self.endpoint,
        }
    }

    /// The bytes of [`RemoteError::to_detail`].
    pub fn encode(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&self.to_detail())
    }

    /// The error that [`RemoteError::encode`] wrote; bytes that are none become `Internal`.
    pub fn decode(bytes: &[u8]) -> Self {
        match <ErrorDetail as prost::Message>::decode(bytes) {
            Ok(detail) => Self::from_detail(&detail),
            Err(error) => Self::new(
                ErrorCode::Internal,
                format!("unreadable error detail: {error}"),
            ),
        }
    }

    /// The error that a detail describes; a code of a newer peer becomes `Internal`.
    pub fn from_detail(detail: &ErrorDetail) -> Self {
        let code = match ErrorCode::try_from(detail.code) {
            Ok(ErrorCode::Unspecified) | Err(_) => ErrorCode::Internal,
            Ok(code) => code,
        };
        Self {
            code,
            message: detail.message.clone(),
            endpoint: detail.endpoint,
        }
    }
}

impl From<WireError> for RemoteError {
    fn from(error: WireError) -> Self {
        Self::new(ErrorCode::BadFrame, error.to_string())
    }
}
