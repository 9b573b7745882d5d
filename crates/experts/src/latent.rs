//! An expert between two projections that all experts of a layer share.

use std::sync::Arc;

use expertmesh_kernels::{Format, PackedMatrix, matmul};

use crate::expert::{blocks, round_to, rows};
use crate::swiglu::check_shape;
use crate::{Expert, ExpertError, Scratch};

#[cfg(test)]
mod tests;

/// `y = R(expert(R(x Iᵀ)) Oᵀ)` with `I` `[latent, hidden]` into the expert's rows and `O`
/// `[hidden, latent]` out of them (Nemotron-H with a latent size).
///
/// The model multiplies by `O` once, after the weighted sum over its experts. That is linear, so
/// each expert may do it for itself: in f32 the result differs by rounding errors alone. In bf16
/// the sum over experts is rounded behind `O` here, before and behind it there.
pub struct LatentExpert {
    into: Arc<PackedMatrix>,
    out_of: Arc<PackedMatrix>,
    expert: Box<dyn Expert>,
    dtype: Format,
}

// === impl LatentExpert ===

impl LatentExpert {
    /// Puts `expert`, whose rows are latent ones, between the projections.
    ///
    /// # Errors
    ///
    /// [`ExpertError::WeightShape`] if a projection does not fit the expert or the other one.
    pub fn new(
        into: Arc<PackedMatrix>,
        expert: Box<dyn Expert>,
        out_of: Arc<PackedMatrix>,
        dtype: Format,
    ) -> Result<Self, ExpertError> {
        let (latent, hidden) = (expert.hidden(), into.inner());
        check_shape("latent_in", &into, [latent, hidden])?;
        check_shape("latent_out", &out_of, [hidden, latent])?;
        Ok(Self {
            into,
            out_of,
            expert,
            dtype,
        })
    }
}

impl Expert for LatentExpert {
    fn hidden(&self) -> usize {
        self.into.inner()
    }

    /// The expert's alone: the projections belong to the layer.
    fn weight_bytes(&self) -> usize {
        self.expert.weight_bytes()
    }

    fn flops_per_row(&self) -> u64 {
        let projections = 4 * self.into.out() as u64 * self.into.inner() as u64;
        projections + self.expert.flops_per_row()
    }

    fn forward(&self, x: &[f32], y: &mut [f32], scratch: &mut Scratch) -> Result<(), ExpertError> {
        let (latent, hidden) = (self.into.out(), self.into.inner());
        let mut outer = std::mem::take(&mut scratch.outer);
        let result = blocks(rows(hidden, x, y)?, hidden).try_for_each(|block| {
            let (x, y) = (&x[block.clone()], &mut y[block]);
            let len = x.len() / hidden * latent;
            let (inner, answer) = outer.take(2 * len).split_at_mut(len);
            matmul(x, &self.into, inner)?;
            round_to(self.dtype, inner);
            self.expert.forward(inner, answer, scratch)?;
            matmul(answer, &self.out_of, y)?;
            round_to(self.dtype, y);
            Ok(())
        });
        scratch.outer = outer;
        result
    }
}
