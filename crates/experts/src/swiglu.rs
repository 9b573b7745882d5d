//! The gated network of Mixtral, Qwen, DeepSeek and most others.

use expertmesh_kernels::{Format, PackedMatrix, math, matmul};

use crate::expert::{blocks, not_zero, round_to, rows};
use crate::{Activation, Expert, ExpertError, Scratch};

#[cfg(test)]
mod tests;

/// `y = (act(x Gᵀ) ⊙ (x Uᵀ)) Dᵀ` with `G`, `U` `[ffn, hidden]` and `D` `[hidden, ffn]`.
///
/// In bf16, with `R` for rounding: `g = R(x Gᵀ)`, `u = R(x Uᵀ)`, `h = R(R(act(g)) · u)`,
/// `y = R(h Dᵀ)`, as in the experts of Hugging Face transformers.
#[derive(Debug)]
pub struct SwigluExpert {
    gate: PackedMatrix,
    up: PackedMatrix,
    down: PackedMatrix,
    activation: Activation,
    dtype: Format,
}

// === impl SwigluExpert ===

impl SwigluExpert {
    /// Joins the three matrices. `dtype` is the format of the intermediate rows; that of the
    /// weights is in the matrices.
    ///
    /// # Errors
    ///
    /// [`ExpertError::WeightShape`] if `up` or `down` do not fit `gate`,
    /// [`ExpertError::ZeroDimension`] if `gate` is empty.
    pub fn new(
        gate: PackedMatrix,
        up: PackedMatrix,
        down: PackedMatrix,
        activation: Activation,
        dtype: Format,
    ) -> Result<Self, ExpertError> {
        let (ffn, hidden) = (gate.out(), gate.inner());
        not_zero("hidden", hidden)?;
        not_zero("ffn", ffn)?;
        check_shape("up", &up, [ffn, hidden])?;
        check_shape("down", &down, [hidden, ffn])?;
        Ok(Self {
            gate,
            up,
            down,
            activation,
            dtype,
        })
    }

    /// `gate = act(gate) · up`, rounded as the type's documentation says.
    fn activate(&self, gate: &mut [f32], up: &mut [f32]) {
        if self.dtype == Format::F32 && self.activation == Activation::Silu {
            return math::silu_mul(gate, up);
        }
        round_to(self.dtype, gate);
        round_to(self.dtype, up);
        self.activation.apply(gate);
        round_to(self.dtype, gate);
        math::mul_slice(gate, up);
        round_to(self.dtype, gate);
    }
}

impl Expert for SwigluExpert {
    fn hidden(&self) -> usize {
        self.gate.inner()
    }

    fn weight_bytes(&self) -> usize {
        self.gate.bytes() + self.up.bytes() + self.down.bytes()
    }

    fn flops_per_row(&self) -> u64 {
        6 * self.gate.out() as u64 * self.gate.inner() as u64
    }

    fn forward(&self, x: &[f32], y: &mut [f32], scratch: &mut Scratch) -> Result<(), ExpertError> {
        let (ffn, hidden) = (self.gate.out(), self.gate.inner());
        for block in blocks(rows(hidden, x, y)?, hidden) {
            let (x, y) = (&x[block.clone()], &mut y[block]);
            let between = x.len() / hidden * ffn;
            let gate = scratch.first.take(between);
            let up = scratch.second.take(between);
            matmul(x, &self.gate, gate)?;
            matmul(x, &self.up, up)?;
            self.activate(gate, up);
            matmul(gate, &self.down, y)?;
            round_to(self.dtype, y);
        }
        Ok(())
    }
}

/// Compares a matrix's shape with the one that fits.
pub(crate) fn check_shape(
    field: &'static str,
    matrix: &PackedMatrix,
    expected: [usize; 2],
) -> Result<(), ExpertError> {
    let actual = [matrix.out(), matrix.inner()];
    if actual == expected {
        Ok(())
    } else {
        Err(ExpertError::WeightShape {
            field,
            actual,
            expected,
        })
    }
}
