//! The expert that answers every token with the same row.

use crate::expert::{not_zero, rows};
use crate::{Expert, ExpertError, Scratch};

#[cfg(test)]
mod tests;

/// Hands back one row for every row: a bias on a block's output, as a shared expert that is added
/// like any other (JetMoE).
#[derive(Debug)]
pub struct ConstantExpert {
    row: Vec<f32>,
    bytes: usize,
}

// === impl ConstantExpert ===

impl ConstantExpert {
    /// `row` is `[hidden]`, exact in the network's format, which has `width` bytes a value.
    ///
    /// # Errors
    ///
    /// [`ExpertError::ZeroDimension`] if `row` is empty.
    pub fn new(row: Vec<f32>, width: usize) -> Result<Self, ExpertError> {
        not_zero("hidden", row.len())?;
        let bytes = row.len() * width;
        Ok(Self { row, bytes })
    }
}

impl Expert for ConstantExpert {
    fn hidden(&self) -> usize {
        self.row.len()
    }

    fn weight_bytes(&self) -> usize {
        self.bytes
    }

    fn flops_per_row(&self) -> u64 {
        0
    }

    fn forward(&self, x: &[f32], y: &mut [f32], _scratch: &mut Scratch) -> Result<(), ExpertError> {
        rows(self.row.len(), x, y)?;
        for y in y.chunks_exact_mut(self.row.len()) {
            y.copy_from_slice(&self.row);
        }
        Ok(())
    }
}
