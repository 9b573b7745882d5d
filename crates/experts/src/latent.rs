//! The projections around the routed experts of a layer that work on latent rows.

use expertmesh_kernels::{Format, PackedMatrix, matmul};
use rayon::prelude::*;

use crate::ExpertError;
use crate::expert::round_to;
use crate::pieces::GATE_TOKENS;
use crate::swiglu::check_shape;

#[cfg(test)]
mod tests;

/// `z = R(x Iᵀ)` with `I` `[latent, hidden]`, once for each token before its experts, and
/// `y = R(z Oᵀ)` with `O` `[hidden, latent]`, once for each token after the weighted sum of their
/// results (Nemotron-H with a latent size). `R` rounds to the model's format.
#[derive(Debug)]
pub struct LatentProjections {
    into: PackedMatrix,
    out_of: PackedMatrix,
    dtype: Format,
}

// === impl LatentProjections ===

impl LatentProjections {
    /// Joins the two.
    ///
    /// # Errors
    ///
    /// [`ExpertError::WeightShape`] if one does not fit the other.
    pub fn new(
        into: PackedMatrix,
        out_of: PackedMatrix,
        dtype: Format,
    ) -> Result<Self, ExpertError> {
        check_shape("latent_out", &out_of, [into.inner(), into.out()])?;
        Ok(Self {
            into,
            out_of,
            dtype,
        })
    }

    /// Values of a hidden state.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.into.inner()
    }

    /// Values of a latent row.
    #[must_use]
    pub fn latent(&self) -> usize {
        self.into.out()
    }

    /// Floating-point operations of one of the two products for one row.
    #[must_use]
    pub fn flops_per_row(&self) -> u64 {
        2 * self.latent() as u64 * self.hidden() as u64
    }

    /// Computes the latent rows `z`, `[m, latent]`, of `x`, `[m, hidden]`, each by itself to the
    /// bit: over the threads of a compute pool when called on one of them.
    ///
    /// # Errors
    ///
    /// [`ExpertError::Kernel`] if `x` and `z` do not hold the same whole number of rows.
    pub fn enter(&self, x: &[f32], z: &mut [f32]) -> Result<(), ExpertError> {
        self.project(&self.into, x, z)
    }

    /// Computes the hidden states `y`, `[m, hidden]`, of `z`, `[m, latent]`, likewise.
    ///
    /// # Errors
    ///
    /// [`ExpertError::Kernel`] if `z` and `y` do not hold the same whole number of rows.
    pub fn leave(&self, z: &[f32], y: &mut [f32]) -> Result<(), ExpertError> {
        self.project(&self.out_of, z, y)
    }

    fn project(&self, by: &PackedMatrix, x: &[f32], y: &mut [f32]) -> Result<(), ExpertError> {
        let work = |x: &[f32], y: &mut [f32]| {
            matmul(x, by, y)?;
            round_to(self.dtype, y);
            Ok(())
        };
        let (inner, out) = (by.inner().max(1), by.out().max(1));
        let rows = x.len() / inner;
        // Only whole rows are cut into blocks: of others the kernel says what is wrong.
        let whole = (rows * inner, rows * out) == (x.len(), y.len());
        if rayon::current_thread_index().is_none() || !whole {
            return work(x, y);
        }
        x.par_chunks(GATE_TOKENS * inner)
            .zip(y.par_chunks_mut(GATE_TOKENS * out))
            .try_for_each(|(x, y)| work(x, y))
    }
}
