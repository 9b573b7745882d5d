//! The expert that every token passes, beside those that the gate chose.

use std::fmt;

use expertmesh_kernels::{Format, PackedMatrix, math, matmul};

use crate::expert::{round_to, rows};
use crate::swiglu::check_shape;
use crate::{Expert, ExpertError, Scratch};

#[cfg(test)]
mod tests;

/// A shared expert, with or without a gate of its own.
///
/// With a gate vector `g` `[1, hidden]` (Qwen2-MoE and its successors) a row is
/// `y = R(R(sigmoid(R(x · g))) · expert(x))`, with `R` for rounding to the model's format; without
/// one it is `expert(x)` (DeepSeek).
pub struct SharedExpert {
    expert: Box<dyn Expert>,
    gate: Option<PackedMatrix>,
    dtype: Format,
}

// === impl SharedExpert ===

impl SharedExpert {
    /// Joins the network and its gate.
    ///
    /// # Errors
    ///
    /// [`ExpertError::WeightShape`] if the gate's shape is not `[1, hidden]`.
    pub fn new(
        expert: Box<dyn Expert>,
        gate: Option<PackedMatrix>,
        dtype: Format,
    ) -> Result<Self, ExpertError> {
        if let Some(gate) = &gate {
            check_shape("shared_gate", gate, [1, expert.hidden()])?;
        }
        Ok(Self {
            expert,
            gate,
            dtype,
        })
    }

    /// Values of a row.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.expert.hidden()
    }

    /// Bytes of all weights, the gate's included.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.expert.weight_bytes() + self.gate.as_ref().map_or(0, PackedMatrix::bytes)
    }

    /// Floating-point operations of the products for one row, the gate's included.
    #[must_use]
    pub fn flops_per_row(&self) -> u64 {
        let gate = self.gate.as_ref().map_or(0, |gate| 2 * gate.inner() as u64);
        self.expert.flops_per_row() + gate
    }

    /// Computes `y`, `[m, hidden]`, from `x`, `[m, hidden]`, each row by itself to the bit.
    ///
    /// # Errors
    ///
    /// [`ExpertError::Rows`] if `x` and `y` do not hold the same whole number of rows.
    pub fn forward(
        &self,
        x: &[f32],
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), ExpertError> {
        let hidden = self.expert.hidden();
        let rows = rows(hidden, x, y)?;
        self.expert.forward(x, y, scratch)?;
        let Some(gate) = &self.gate else {
            return Ok(());
        };
        let shares = scratch.first.take(rows);
        matmul(x, gate, shares)?;
        round_to(self.dtype, shares);
        math::sigmoid_slice(shares);
        round_to(self.dtype, shares);
        for (row, share) in y.chunks_exact_mut(hidden).zip(shares) {
            for value in row {
                *value *= *share;
            }
        }
        round_to(self.dtype, y);
        Ok(())
    }
}

impl fmt::Debug for SharedExpert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedExpert")
            .field("hidden", &self.expert.hidden())
            .field("gate", &self.gate)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}
