//! Memory of a few rows that lies well beside the logits they are made from.

use std::ops::{Deref, DerefMut};

/// Bytes of a line of memory.
const LINE: usize = 64;

/// Bytes that addresses are compared by: a load waits for an earlier store whose address differs
/// from its own by a multiple of this alone, as if it were to the same place.
const PAGE: usize = 4096;

/// Numbers that begin at a line, half a page away from others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffer {
    numbers: Vec<f32>,
    start: usize,
    len: usize,
}

// === impl Buffer ===

impl Buffer {
    /// Makes room for `len` numbers that are written while `beside` is read. They hold anything.
    pub(crate) fn place(&mut self, len: usize, beside: &[f32]) -> &mut [f32] {
        let slack = PAGE / size_of::<f32>();
        if self.numbers.len() < len + slack {
            self.numbers.resize(len + slack, 0.0);
        }
        let goal = (beside.as_ptr().addr() & !(LINE - 1)).wrapping_add(PAGE / 2);
        let bytes = goal.wrapping_sub(self.numbers.as_ptr().addr()) % PAGE;
        self.start = bytes / size_of::<f32>();
        self.len = len;
        self
    }

    /// Leaves the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[self.start..self.start + self.len]
    }
}
