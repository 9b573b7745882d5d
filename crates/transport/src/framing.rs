//! gRPC's message framing, taken apart: HTTP/2 DATA frames in, whole messages out.

use bytes::{Buf as _, Bytes, BytesMut};
use expertmesh_wire::{ErrorCode, GRPC_PREFIX, RemoteError};

/// Cuts the bytes of one direction of a stream into messages.
///
/// A message that lies within one chunk is handed on as a slice of it. A longer one is gathered
/// into a buffer that is used again as soon as the message's holders have let go of it.
#[derive(Debug)]
pub(crate) struct Deframer {
    /// Longest message that is taken, without its prefix.
    limit: usize,
    prefix: [u8; GRPC_PREFIX],
    /// Bytes of the prefix that have arrived; all of them while a message is being gathered.
    prefix_len: usize,
    /// Length of the current message, valid once its prefix is complete.
    expected: usize,
    gathered: BytesMut,
}

// === impl Deframer ===

impl Deframer {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            prefix: [0; GRPC_PREFIX],
            prefix_len: 0,
            expected: 0,
            gathered: BytesMut::new(),
        }
    }

    /// Takes the next chunk and delivers every message that it completes, without its prefix.
    ///
    /// # Errors
    /// `BadFrame` for a message beyond the limit, or a compressed one. What follows in the stream
    /// cannot be read any more.
    pub(crate) fn push(
        &mut self,
        mut chunk: Bytes,
        mut deliver: impl FnMut(Bytes),
    ) -> Result<(), RemoteError> {
        loop {
            if self.prefix_len < GRPC_PREFIX {
                let take = chunk.len().min(GRPC_PREFIX - self.prefix_len);
                self.prefix[self.prefix_len..self.prefix_len + take]
                    .copy_from_slice(&chunk[..take]);
                chunk.advance(take);
                self.prefix_len += take;
                if self.prefix_len < GRPC_PREFIX {
                    return Ok(());
                }
                self.expected = self.announced_len()?;
            }
            if self.gathered.is_empty() && chunk.len() >= self.expected {
                self.prefix_len = 0;
                deliver(chunk.split_to(self.expected));
                continue;
            }
            if chunk.is_empty() {
                return Ok(());
            }
            // Reclaims the allocation of the message before, if nobody holds that any more.
            self.gathered.reserve(self.expected - self.gathered.len());
            let take = chunk.len().min(self.expected - self.gathered.len());
            self.gathered.extend_from_slice(&chunk[..take]);
            chunk.advance(take);
            if self.gathered.len() == self.expected {
                self.prefix_len = 0;
                deliver(self.gathered.split().freeze());
            }
        }
    }

    /// Whether the stream would end inside a message if it ended now.
    pub(crate) fn is_midway(&self) -> bool {
        self.prefix_len > 0
    }

    fn announced_len(&self) -> Result<usize, RemoteError> {
        let [flag, length @ ..] = self.prefix;
        if flag != 0 {
            return Err(bad_frame(format!(
                "message has compression flag {flag}, expected 0: exchange streams carry \
                 uncompressed messages only"
            )));
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > self.limit {
            return Err(bad_frame(format!(
                "message of {length} bytes exceeds the limit of {} bytes (max_message_bytes); \
                 send smaller chunks, or raise the limit on the receiver",
                self.limit
            )));
        }
        Ok(length)
    }
}

pub(crate) fn bad_frame(message: String) -> RemoteError {
    RemoteError::new(ErrorCode::BadFrame, message)
}
