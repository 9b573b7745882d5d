//! The event log: what happened, as fixed records that are hashed and, if asked for, written out.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A message of `c` bytes from `a` is at `b`.
    Message = 1,
    /// A batch of `b` chunks begins at worker `a`; `c` choices.
    Batch = 2,
    /// It is done after `c` nanoseconds.
    Batched = 3,
    /// Home `a` of step `b` has its results in; `c` choices are lost.
    Results = 4,
    /// Step `a` is planned; `c` messages.
    Planned = 5,
    /// Step `a` is over; `c` nanoseconds.
    Over = 6,
    /// Endpoint `a` finds that `b` is gone.
    Lost = 7,
}

/// A log under way.
///
/// Record: time (u64), entry (u32), `a` (u32), `b` (u32), `c` (u64), little-endian, 28 bytes. The
/// digest is SHA-256 over all records; the text has a line for each.
pub(crate) struct Log {
    hash: Sha256,
    buffer: Vec<u8>,
    text: Option<String>,
}

const BUFFERED: usize = 8192;

// === impl Log ===

impl Log {
    pub(crate) fn new(with_text: bool) -> Self {
        Self {
            hash: Sha256::new(),
            buffer: Vec::with_capacity(BUFFERED + 28),
            text: with_text.then(String::new),
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, at_ns: u64, entry: Entry, a: u32, b: u32, c: u64) {
        self.buffer.extend_from_slice(&at_ns.to_le_bytes());
        self.buffer.extend_from_slice(&(entry as u32).to_le_bytes());
        self.buffer.extend_from_slice(&a.to_le_bytes());
        self.buffer.extend_from_slice(&b.to_le_bytes());
        self.buffer.extend_from_slice(&c.to_le_bytes());
        if let Some(text) = &mut self.text {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{at_ns} {} {a} {b} {c}", entry.name());
        }
        if self.buffer.len() >= BUFFERED {
            self.hash.update(&self.buffer);
            self.buffer.clear();
        }
    }

    /// The digest in lower-case hex, and the text if it was asked for.
    pub(crate) fn finish(mut self) -> (String, Option<String>) {
        self.hash.update(&self.buffer);
        let hex = self
            .hash
            .finalize()
            .iter()
            .fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
        (hex, self.text)
    }
}

// === impl Entry ===

impl Entry {
    fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Batch => "batch",
            Self::Batched => "batched",
            Self::Results => "results",
            Self::Planned => "planned",
            Self::Over => "over",
            Self::Lost => "lost",
        }
    }
}
