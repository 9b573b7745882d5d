//! Buffers that are used again.
//!
//! The first touch of a fresh page costs more than copying it: a message buffer of 1 MiB that is
//! allocated anew for every step spends longer in page faults than in the copy. A buffer handed to
//! the transport comes back to its pool when the last reference to its bytes is dropped.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers kept for the next message. Cheap to clone; clones share the buffers.
#[derive(Debug, Clone, Default)]
pub struct BufferPool {
    shelf: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A buffer of a fixed length, returned to its pool on drop.
#[derive(Debug)]
pub struct Buffer {
    /// Always as long as its capacity was when it was made, so that reuse needs no zeroing.
    bytes: Vec<u8>,
    used: usize,
    shelf: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// More idle buffers than this are freed; enough for the chunks under way at one endpoint.
const MOST_IDLE: usize = 64;

// === impl BufferPool ===

impl BufferPool {
    /// A buffer of `len` bytes with unspecified content (zeros or an earlier message of this
    /// process).
    pub fn take(&self, len: usize) -> Buffer {
        let reused = {
            let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
            // The smallest that fits, so that a large buffer is there when a large message comes.
            let best = shelf
                .iter()
                .enumerate()
                .filter(|(_, bytes)| bytes.len() >= len)
                .min_by_key(|(_, bytes)| bytes.len())
                .map(|(at, _)| at);
            best.map(|at| shelf.swap_remove(at))
        };
        let bytes = reused.unwrap_or_else(|| vec![0; len.next_power_of_two().max(4096)]);
        Buffer {
            bytes,
            used: len,
            shelf: Arc::clone(&self.shelf),
        }
    }
}

// === impl Buffer ===

impl Buffer {
    /// The buffer as shareable bytes; it returns to its pool when the last of them is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.used]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.len() < MOST_IDLE {
            shelf.push(bytes);
        }
    }
}
