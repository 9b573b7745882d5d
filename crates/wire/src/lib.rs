//! The protocol between expertmesh endpoints: messages, frames, row encodings, typed errors.
//!
//! Reading order:
//!
//! 1. [`v1`]: the messages that `proto/expertmesh/v1/expertmesh.proto` defines, generated and
//!    committed; a test generates them again and compares.
//! 2. [`Header`], [`Tag`]: what every frame of an exchange stream says about itself.
//! 3. [`FrameWriter`], [`FrameView`]: a frame written into, and read from, one contiguous buffer.
//!    The bytes are those of the protobuf message `Frame`, so any gRPC client can speak to us;
//!    writing them by hand lets rows be gathered straight into the buffer that the socket sends.
//! 4. [`BufferPool`]: the buffers, reused, because fresh pages cost more than copies.
//! 5. [`RemoteError`]: an error that keeps its kind across the network.
//!
//! **This crate does not know** why a frame is sent, to whom, or when: no policy, no clock, no
//! socket, no gRPC library.
#![forbid(unsafe_code)]

mod error;
mod frame;
mod header;
mod pool;
#[cfg(test)]
mod tests;

/// Messages of protocol major 1, generated from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
pub mod v1 {
    include!("generated/expertmesh.v1.rs");
}

pub use error::{RemoteError, WireError};
pub use frame::{FrameView, FrameWriter, GRPC_PREFIX, encoded_len, rows_len_for, words};
pub use header::{Header, Tag, Times};
pub use pool::{Buffer, BufferPool};
pub use v1::{ErrorCode, FrameKind};

use expertmesh_kernels::Format;

/// Peers whose major differs refuse each other.
pub const PROTOCOL_MAJOR: u32 = 1;
/// A minor version only adds fields.
pub const PROTOCOL_MINOR: u32 = 0;

/// The version that this build speaks.
pub fn protocol_version() -> v1::ProtocolVersion {
    v1::ProtocolVersion {
        major: PROTOCOL_MAJOR,
        minor: PROTOCOL_MINOR,
    }
}

/// Refuses a peer that speaks another major version, or does not say which it speaks.
///
/// # Errors
/// [`ErrorCode::ProtocolMismatch`] with both versions in the message.
pub fn check_protocol(peer: Option<&v1::ProtocolVersion>, who: &str) -> Result<(), RemoteError> {
    match peer {
        Some(version) if version.major == PROTOCOL_MAJOR => Ok(()),
        Some(version) => Err(RemoteError::new(
            ErrorCode::ProtocolMismatch,
            format!(
                "{who} speaks protocol {}.{}, this build speaks {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}; \
                 run the same release on every endpoint",
                version.major, version.minor
            ),
        )),
        None => Err(RemoteError::new(
            ErrorCode::ProtocolMismatch,
            format!(
                "{who} did not say which protocol it speaks, this build speaks \
                 {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}"
            ),
        )),
    }
}

/// A number format as the protocol names it.
pub fn format_to_wire(format: Format) -> v1::NumberFormat {
    match format {
        Format::F32 => v1::NumberFormat::F32,
        Format::Bf16 => v1::NumberFormat::Bf16,
    }
}

/// The number format that the protocol's value names, `None` for a value this build does not know.
pub fn format_from_wire(value: i32) -> Option<Format> {
    match v1::NumberFormat::try_from(value) {
        Ok(v1::NumberFormat::F32) => Some(Format::F32),
        Ok(v1::NumberFormat::Bf16) => Some(Format::Bf16),
        _ => None,
    }
}
