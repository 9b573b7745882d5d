//! The network of two layers: Switch Transformers, NLLB-MoE and other non-gated experts.

use expertmesh_kernels::{Format, PackedMatrix, matmul};

use crate::expert::{blocks, not_zero, round_to, rows};
use crate::swiglu::check_shape;
use crate::{Activation, Expert, ExpertError, Scratch};

#[cfg(test)]
mod tests;

/// `y = act(x Uᵀ + b) Dᵀ + c` with `U` `[ffn, hidden]` and `D` `[hidden, ffn]`; the biases are
/// optional.
///
/// In bf16, with `R` for rounding: `u = R(x Uᵀ + b)`, `h = R(act(u))`, `y = R(h Dᵀ + c)`. A
/// [scale](Self::scaled) other than 1 gives `R(scale · y)`.
#[derive(Debug)]
pub struct MlpExpert {
    up: PackedMatrix,
    up_bias: Option<Vec<f32>>,
    down: PackedMatrix,
    down_bias: Option<Vec<f32>>,
    activation: Activation,
    scale: f32,
    dtype: Format,
}

// === impl MlpExpert ===

impl MlpExpert {
    /// Joins matrices and biases. `dtype` is the format of the intermediate rows; that of the
    /// weights is in the matrices, and biases are handed over exact in it.
    ///
    /// # Errors
    ///
    /// [`ExpertError::WeightShape`] if `down` does not fit `up`, [`ExpertError::BiasLength`] if a
    /// bias does not fit its matrix, [`ExpertError::ZeroDimension`] if `up` is empty.
    pub fn new(
        up: PackedMatrix,
        up_bias: Option<Vec<f32>>,
        down: PackedMatrix,
        down_bias: Option<Vec<f32>>,
        activation: Activation,
        dtype: Format,
    ) -> Result<Self, ExpertError> {
        let (ffn, hidden) = (up.out(), up.inner());
        not_zero("hidden", hidden)?;
        not_zero("ffn", ffn)?;
        check_shape("down", &down, [hidden, ffn])?;
        check_bias("up_bias", up_bias.as_deref(), ffn)?;
        check_bias("down_bias", down_bias.as_deref(), hidden)?;
        Ok(Self {
            up,
            up_bias,
            down,
            down_bias,
            activation,
            scale: 1.0,
            dtype,
        })
    }

    /// The same network with its output multiplied by `scale`: 1 less the dropout of whole tokens
    /// that it was trained with, say (NLLB-MoE).
    #[must_use]
    pub fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }
}

impl Expert for MlpExpert {
    fn hidden(&self) -> usize {
        self.up.inner()
    }

    fn weight_bytes(&self) -> usize {
        let biases = [&self.up_bias, &self.down_bias]
            .into_iter()
            .flatten()
            .map(Vec::len);
        self.up.bytes() + self.down.bytes() + biases.sum::<usize>() * self.dtype.bytes()
    }

    fn flops_per_row(&self) -> u64 {
        4 * self.up.out() as u64 * self.up.inner() as u64
    }

    fn forward(&self, x: &[f32], y: &mut [f32], scratch: &mut Scratch) -> Result<(), ExpertError> {
        let (ffn, hidden) = (self.up.out(), self.up.inner());
        for block in blocks(rows(hidden, x, y)?, hidden) {
            let (x, y) = (&x[block.clone()], &mut y[block]);
            let between = scratch.first.take(x.len() / hidden * ffn);
            matmul(x, &self.up, between)?;
            add_bias(self.up_bias.as_deref(), between);
            round_to(self.dtype, between);
            self.activation.apply(between);
            round_to(self.dtype, between);
            matmul(between, &self.down, y)?;
            add_bias(self.down_bias.as_deref(), y);
            round_to(self.dtype, y);
            if self.scale != 1.0 {
                y.iter_mut().for_each(|value| *value *= self.scale);
                round_to(self.dtype, y);
            }
        }
        Ok(())
    }
}

pub(crate) fn check_bias(
    field: &'static str,
    bias: Option<&[f32]>,
    expected: usize,
) -> Result<(), ExpertError> {
    match bias {
        Some(bias) if bias.len() != expected => Err(ExpertError::BiasLength {
            field,
            actual: bias.len(),
            expected,
        }),
        _ => Ok(()),
    }
}

/// Adds the bias to every row.
pub(crate) fn add_bias(bias: Option<&[f32]>, rows: &mut [f32]) {
    let Some(bias) = bias else { return };
    for row in rows.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}
