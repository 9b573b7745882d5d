//! What a stream was handed, and what its sockets carried.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one stream, shared by everyone who holds its outbox.
///
/// Messages are counted when they are handed over and when they are delivered; wire bytes when
/// the socket takes or gives them. A message that was handed over to a stream that then dies is
/// counted although it never reached the wire.
#[derive(Debug)]
pub struct LinkCounters {
    messages_out: AtomicU64,
    message_bytes_out: AtomicU64,
    messages_in: AtomicU64,
    message_bytes_in: AtomicU64,
    wire: Arc<WireCounters>,
}

/// Bytes written to and read from one socket: payload, HTTP/2 frames, headers and pings; what
/// TCP and IP add is not counted.
#[derive(Debug, Default)]
pub(crate) struct WireCounters {
    bytes_out: AtomicU64,
    bytes_in: AtomicU64,
}

/// All counters of a stream at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkTotals {
    /// Messages handed to the outbox.
    pub messages_out: u64,
    /// Bytes of those messages, their 5-byte prefixes included.
    pub message_bytes_out: u64,
    /// Messages delivered to the sink.
    pub messages_in: u64,
    /// Bytes of those messages, their 5-byte prefixes included.
    pub message_bytes_in: u64,
    /// Bytes written to the socket that carries the stream.
    pub wire_bytes_out: u64,
    /// Bytes read from that socket.
    pub wire_bytes_in: u64,
}

// === impl LinkCounters ===

impl LinkCounters {
    pub(crate) fn new(wire: Arc<WireCounters>) -> Self {
        Self {
            messages_out: AtomicU64::new(0),
            message_bytes_out: AtomicU64::new(0),
            messages_in: AtomicU64::new(0),
            message_bytes_in: AtomicU64::new(0),
            wire,
        }
    }

    /// Messages handed to the outbox.
    pub fn messages_out(&self) -> u64 {
        self.messages_out.load(Ordering::Relaxed)
    }

    /// Bytes handed to the outbox, the 5-byte prefixes included.
    pub fn message_bytes_out(&self) -> u64 {
        self.message_bytes_out.load(Ordering::Relaxed)
    }

    /// Messages delivered to the sink.
    pub fn messages_in(&self) -> u64 {
        self.messages_in.load(Ordering::Relaxed)
    }

    /// Bytes delivered to the sink, the 5-byte prefixes included.
    pub fn message_bytes_in(&self) -> u64 {
        self.message_bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes written to the socket of this stream. Streams that `open_stream` opens have a
    /// connection each; a foreign client may run several over one, which then share this figure.
    pub fn wire_bytes_out(&self) -> u64 {
        self.wire.bytes_out.load(Ordering::Relaxed)
    }

    /// Bytes read from the socket of this stream, shared like [`Self::wire_bytes_out`].
    pub fn wire_bytes_in(&self) -> u64 {
        self.wire.bytes_in.load(Ordering::Relaxed)
    }

    /// Every counter at once. Each is read on its own: while traffic flows they may be a message
    /// apart.
    pub fn totals(&self) -> LinkTotals {
        LinkTotals {
            messages_out: self.messages_out(),
            message_bytes_out: self.message_bytes_out(),
            messages_in: self.messages_in(),
            message_bytes_in: self.message_bytes_in(),
            wire_bytes_out: self.wire_bytes_out(),
            wire_bytes_in: self.wire_bytes_in(),
        }
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.messages_out.fetch_add(1, Ordering::Relaxed);
        self.message_bytes_out
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Takes back a message that the queue refused after it was counted.
    pub(crate) fn unsent(&self, bytes: usize) {
        self.messages_out.fetch_sub(1, Ordering::Relaxed);
        self.message_bytes_out
            .fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.messages_in.fetch_add(1, Ordering::Relaxed);
        self.message_bytes_in
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

// === impl WireCounters ===

impl WireCounters {
    pub(crate) fn wrote(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
