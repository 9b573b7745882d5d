//! The exchange stream as its users see it: an outbox to send with, a sink that is told.

mod outbox;
mod reader;

use bytes::Bytes;
use expertmesh_wire::RemoteError;

pub use crate::stream::outbox::Outbox;
pub(crate) use crate::stream::outbox::{OutgoingBody, Side};
pub(crate) use crate::stream::reader::Reader;

use crate::error::CloseReason;
use crate::protocol::StreamHello;

/// Decides, on the serving side, about every exchange stream that a peer opens.
pub trait StreamAcceptor: Send + Sync {
    /// Takes the stream: `outbox` sends to the caller, the returned sink receives from it.
    ///
    /// Called on the IO runtime; the caller waits. `hello` has passed the check of the protocol
    /// major.
    ///
    /// # Errors
    /// Whatever is returned reaches the caller's `open_stream` with code and endpoint intact.
    fn accept(
        &self,
        hello: StreamHello,
        outbox: Outbox,
    ) -> Result<Box<dyn StreamSink>, RemoteError>;
}

/// Receives what arrives on one stream, in order.
///
/// Called inline by the task that reads the stream, on the IO runtime: work beyond some 50 µs
/// belongs on another thread.
pub trait StreamSink: Send {
    /// One message without its 5-byte prefix, contiguous.
    ///
    /// A slice of what the socket gave if the message lay in one DATA frame: keeping it keeps the
    /// memory of its neighbours too.
    fn on_message(&mut self, message: Bytes);

    /// The stream is over; the last call, made exactly once.
    fn on_close(&mut self, reason: CloseReason);
}
