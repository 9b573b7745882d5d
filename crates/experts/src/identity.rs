//! The expert that computes nothing: what a run costs without any arithmetic.

use crate::expert::{not_zero, rows};
use crate::{Expert, ExpertError, Scratch};

/// Hands every row back as it came. It measures the exchange alone, and some models have it as a
/// zero-computation expert.
#[derive(Debug)]
pub struct IdentityExpert {
    hidden: usize,
}

// === impl IdentityExpert ===

impl IdentityExpert {
    /// An identity for rows of `hidden` values.
    ///
    /// # Errors
    ///
    /// [`ExpertError::ZeroDimension`] if `hidden` is 0.
    pub fn new(hidden: usize) -> Result<Self, ExpertError> {
        not_zero("hidden", hidden)?;
        Ok(Self { hidden })
    }
}

impl Expert for IdentityExpert {
    fn hidden(&self) -> usize {
        self.hidden
    }

    fn weight_bytes(&self) -> usize {
        0
    }

    fn flops_per_row(&self) -> u64 {
        0
    }

    fn passes_through(&self) -> bool {
        true
    }

    fn forward(&self, x: &[f32], y: &mut [f32], _scratch: &mut Scratch) -> Result<(), ExpertError> {
        rows(self.hidden, x, y)?;
        y.copy_from_slice(x);
        Ok(())
    }
}
