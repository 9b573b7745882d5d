//! A frame in one contiguous buffer, written and read without a copy of its rows.
//!
//! ```text
//! gRPC prefix | key 1, length, header | key 2, length, index | key 3, length, rows
//!  5 bytes    |                       | u32 words            | row_count × hidden elements
//! ```

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::error::WireError;
use crate::header::{HEADER_LEN, Header};
use crate::pool::{Buffer, BufferPool};
use crate::v1;

/// Bytes in front of every gRPC message: a compression flag and a big-endian length.
pub const GRPC_PREFIX: usize = 5;

const KEY_HEADER: u8 = 0x0a;
const KEY_INDEX: u8 = 0x12;
const KEY_ROWS: u8 = 0x1a;

/// A frame whose buffer is laid out and whose index and rows are still to be filled.
#[derive(Debug)]
pub struct FrameWriter {
    buffer: Buffer,
    index_at: usize,
    index_len: usize,
    rows_at: usize,
}

/// A frame that arrived, checked against itself.
#[derive(Debug, Clone)]
pub struct FrameView {
    /// What the frame says about itself.
    pub header: Header,
    /// Little-endian 32-bit words; see [`words`].
    pub index: Bytes,
    /// `row_count` rows of `hidden` elements.
    pub rows: Bytes,
}

/// Length of an encoded frame, its gRPC prefix included: a function of its sizes alone.
pub fn encoded_len(index_words: usize, rows_len: usize) -> usize {
    GRPC_PREFIX + header_field_len() + field_len(index_words * 4) + field_len(rows_len)
}

/// Length of `rows` for which a frame with `index_words` words of index is `total` bytes long, or
/// the nearest that a frame can have: 0 for a `total` shorter than any frame.
pub fn rows_len_for(total: usize, index_words: usize) -> usize {
    let empty = encoded_len(index_words, 0);
    let mut rows_len = total.saturating_sub(empty);
    // The length of the length grows with the rows.
    while rows_len > 0 && encoded_len(index_words, rows_len) > total {
        rows_len -= 1;
    }
    rows_len
}

/// The 32-bit words of an index.
pub fn words(index: &[u8]) -> impl ExactSizeIterator<Item = u32> + '_ {
    index
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

fn header_field_len() -> usize {
    1 + encoded_len_varint(HEADER_LEN as u64) + HEADER_LEN
}

fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

// === impl FrameWriter ===

impl FrameWriter {
    /// Lays out a frame with `index_words` words of index and `rows_len` bytes of rows.
    pub fn new(pool: &BufferPool, header: &Header, index_words: usize, rows_len: usize) -> Self {
        let total = encoded_len(index_words, rows_len);
        let mut buffer = pool.take(total);
        let bytes = buffer.as_mut();
        bytes[0] = 0;
        // Frames are cut to chunks far below 4 GiB; a longer one would be refused by its receiver.
        let message_len = u32::try_from(total - GRPC_PREFIX).unwrap_or(u32::MAX);
        bytes[1..GRPC_PREFIX].copy_from_slice(&message_len.to_be_bytes());
        let mut at = GRPC_PREFIX;
        put_key(bytes, &mut at, KEY_HEADER, HEADER_LEN);
        let mut slot = &mut bytes[at..at + HEADER_LEN];
        // The slice has exactly the room of a header with all its fields, so this cannot fail.
        let written = header.to_wire().encode(&mut slot);
        debug_assert!(
            written.is_ok() && slot.is_empty(),
            "header length is not constant"
        );
        at += HEADER_LEN;
        put_key(bytes, &mut at, KEY_INDEX, index_words * 4);
        let index_at = at;
        at += index_words * 4;
        put_key(bytes, &mut at, KEY_ROWS, rows_len);
        let rows_at = at;
        Self {
            buffer,
            index_at,
            index_len: index_words * 4,
            rows_at,
        }
    }

    /// The index and the rows, to be filled.
    pub fn parts(&mut self) -> (&mut [u8], &mut [u8]) {
        let (front, rows) = self.buffer.as_mut().split_at_mut(self.rows_at);
        (
            &mut front[self.index_at..self.index_at + self.index_len],
            rows,
        )
    }

    /// The rows, to be filled.
    pub fn rows(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[self.rows_at..]
    }

    /// Writes the header anew, for moments that are known only when the rows are there.
    pub fn set_header(&mut self, header: &Header) {
        let start = GRPC_PREFIX + header_field_len() - HEADER_LEN;
        let mut slot = &mut self.buffer.as_mut()[start..start + HEADER_LEN];
        let written = header.to_wire().encode(&mut slot);
        debug_assert!(
            written.is_ok() && slot.is_empty(),
            "header length is not constant"
        );
    }

    /// The finished message, gRPC prefix included.
    pub fn finish(self) -> Bytes {
        self.buffer.freeze()
    }
}

fn put_key(bytes: &mut [u8], at: &mut usize, key: u8, len: usize) {
    bytes[*at] = key;
    let width = encoded_len_varint(len as u64);
    let mut slot = &mut bytes[*at + 1..*at + 1 + width];
    encode_varint(len as u64, &mut slot);
    *at += 1 + width;
}

// === impl FrameView ===

impl FrameView {
    /// Reads a message (without its gRPC prefix) and checks that its sizes agree with its header.
    ///
    /// Index and rows share the message's memory.
    ///
    /// # Errors
    /// [`WireError`] if the bytes are no frame, a header field is missing or unknown, the index is
    /// not whole words, or the rows are not `row_count × hidden` elements of `format`.
    pub fn read(message: Bytes) -> Result<Self, WireError> {
        let frame =
            v1::Frame::decode(message).map_err(|error| WireError::Malformed(error.to_string()))?;
        let wire = frame
            .header
            .as_ref()
            .ok_or(WireError::Missing { field: "header" })?;
        let header = Header::from_wire(wire)?;
        if frame.index.len() % 4 != 0 {
            return Err(WireError::field(
                "index",
                format!("{} bytes", frame.index.len()),
                "whole 32-bit words",
            ));
        }
        let rows_are_counted = !matches!(
            header.kind,
            v1::FrameKind::Error | v1::FrameKind::Floor | v1::FrameKind::FloorReply
        );
        let expected = (header.row_count as usize)
            .checked_mul(header.row_bytes())
            .ok_or_else(|| WireError::field("row_count", header.row_count, "rows that fit"))?;
        if rows_are_counted && frame.rows.len() != expected {
            return Err(WireError::field(
                "rows",
                format!("{} bytes", frame.rows.len()),
                format!(
                    "{expected} bytes ({} rows of {} {} elements)",
                    header.row_count, header.hidden, header.format
                ),
            ));
        }
        Ok(Self {
            header,
            index: frame.index,
            rows: frame.rows,
        })
    }

    /// The same frame from a message that still has its gRPC prefix, as [`FrameWriter::finish`]
    /// gives it.
    ///
    /// # Errors
    /// As [`FrameView::read`], and for a message shorter than the prefix.
    pub fn read_prefixed(mut message: Bytes) -> Result<Self, WireError> {
        if message.len() < GRPC_PREFIX {
            return Err(WireError::Malformed(format!(
                "{} bytes, no prefix",
                message.len()
            )));
        }
        let _ = message.split_to(GRPC_PREFIX);
        Self::read(message)
    }

    /// One row.
    pub fn row(&self, at: usize) -> &[u8] {
        let len = self.header.row_bytes();
        &self.rows[at * len..(at + 1) * len]
    }
}
