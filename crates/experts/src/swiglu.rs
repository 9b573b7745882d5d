//! The gated network of Mixtral, Qwen, DeepSeek and most others.

use expertmesh_kernels::{Format, PackedMatrix, math, matmul};

use crate::expert::{blocks, not_zero, round_to, rows};
use crate::mlp::{add_bias, check_bias};
use crate::{Activation, Clamp, Expert, ExpertError, Scratch};

#[cfg(test)]
mod tests;

/// `y = (act(x Gᵀ) ⊙ (x Uᵀ)) Dᵀ` with `G`, `U` `[ffn, hidden]` and `D` `[hidden, ffn]`.
///
/// In bf16, with `R` for rounding: `g = R(x Gᵀ)`, `u = R(x Uᵀ)`, `h = R(R(act(g)) · u)`,
/// `y = R(h Dᵀ)`, as in the experts of Hugging Face transformers. With [biases](Self::biased)
/// each product is rounded before its bias is added and after: `g = R(R(x Gᵀ) + b)`. A
/// [`Clamp`](Self::clamped) changes what becomes of `g` and `u`.
#[derive(Debug)]
pub struct SwigluExpert {
    gate: PackedMatrix,
    up: PackedMatrix,
    down: PackedMatrix,
    biases: Option<SwigluBiases>,
    activation: Activation,
    clamp: Clamp,
    dtype: Format,
}

/// What a gated network adds to its products.
#[derive(Clone, Debug)]
pub struct SwigluBiases {
    /// `[ffn]`, added to the gate's product.
    pub gate: Vec<f32>,
    /// `[ffn]`, added to the up product.
    pub up: Vec<f32>,
    /// `[hidden]`, added to the down product.
    pub down: Vec<f32>,
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
            biases: None,
            activation,
            clamp: Clamp::None,
            dtype,
        })
    }

    /// The same network with biases, handed over exact in its format.
    ///
    /// # Errors
    ///
    /// [`ExpertError::BiasLength`] if one does not fit its matrix.
    pub fn biased(self, biases: SwigluBiases) -> Result<Self, ExpertError> {
        let (ffn, hidden) = (self.gate.out(), self.gate.inner());
        check_bias("gate_bias", Some(&biases.gate), ffn)?;
        check_bias("up_bias", Some(&biases.up), ffn)?;
        check_bias("down_bias", Some(&biases.down), hidden)?;
        Ok(Self {
            biases: Some(biases),
            ..self
        })
    }

    /// The same network with its middle limited. [`Clamp::Swish`] takes the place of the
    /// activation.
    #[must_use]
    pub fn clamped(self, clamp: Clamp) -> Self {
        Self {
            clamp: clamp.rounded(self.dtype),
            ..self
        }
    }

    /// Rounds a product, and adds its bias where there is one.
    fn finish(&self, bias: impl Fn(&SwigluBiases) -> &[f32], product: &mut [f32]) {
        round_to(self.dtype, product);
        if let Some(biases) = &self.biases {
            add_bias(Some(bias(biases)), product);
            round_to(self.dtype, product);
        }
    }

    /// `gate = act(gate) · up`, rounded as the type's documentation says.
    fn activate(&self, gate: &mut [f32], up: &mut [f32]) {
        let plain = self.clamp == Clamp::None && self.biases.is_none();
        if plain && self.dtype == Format::F32 && self.activation == Activation::Silu {
            return math::silu_mul(gate, up);
        }
        self.finish(|biases| &biases.gate, gate);
        self.finish(|biases| &biases.up, up);
        self.clamp.apply(self.activation, self.dtype, gate, up);
        math::mul_slice(gate, up);
        round_to(self.dtype, gate);
    }
}

impl Expert for SwigluExpert {
    fn hidden(&self) -> usize {
        self.gate.inner()
    }

    fn weight_bytes(&self) -> usize {
        let biases = self.biases.as_ref().map_or(0, |biases| {
            biases.gate.len() + biases.up.len() + biases.down.len()
        });
        let matrices = [&self.gate, &self.up, &self.down].map(PackedMatrix::bytes);
        matrices.iter().sum::<usize>() + biases * self.dtype.bytes()
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
            self.finish(|biases| &biases.down, y);
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
