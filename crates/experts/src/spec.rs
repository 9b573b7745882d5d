//! Which network an expert is.

use std::fmt;
use std::str::FromStr;

use expertmesh_kernels::{Format, math};

use crate::ExpertError;
use crate::expert::not_zero;

#[cfg(test)]
mod tests;

/// The function between the layers of an expert. Names are those of `hidden_act` in Hugging Face
/// configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x · sigmoid(x)`: `"silu"`, also `"swish"`.
    Silu,
    /// `max(x, 0)`: `"relu"`.
    Relu,
    /// `x Φ(x)` with the normal distribution Φ: `"gelu"`.
    Gelu,
    /// GELU's tanh form: `"gelu_pytorch_tanh"`, also `"gelu_new"`.
    GeluTanh,
    /// `max(x, 0)²`: `"relu2"`.
    Relu2,
}

/// The shape of an expert's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExpertKind {
    /// Gate, up and down projection: [`crate::SwigluExpert`].
    Swiglu,
    /// Up and down projection: [`crate::MlpExpert`].
    Mlp,
    /// Nothing: [`crate::IdentityExpert`].
    Identity,
}

/// Everything about an expert except its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExpertSpec {
    /// Values of a token row.
    pub hidden: usize,
    /// Values between the layers. Not used by [`ExpertKind::Identity`].
    pub ffn: usize,
    /// Which network.
    pub kind: ExpertKind,
    /// The function between the layers.
    pub activation: Activation,
    /// Format of weights and intermediate rows.
    pub dtype: Format,
}

// === impl Activation ===

impl Activation {
    /// Applies the function to every value, in place and in f32.
    pub fn apply(self, values: &mut [f32]) {
        match self {
            Self::Silu => math::silu_slice(values),
            Self::Relu => math::relu_slice(values),
            Self::Gelu => math::gelu_slice(values),
            Self::GeluTanh => math::gelu_tanh_slice(values),
            Self::Relu2 => {
                math::relu_slice(values);
                values.iter_mut().for_each(|value| *value *= *value);
            }
        }
    }

    /// The first of its names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::Relu => "relu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_pytorch_tanh",
            Self::Relu2 => "relu2",
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Activation {
    type Err = ExpertError;

    fn from_str(name: &str) -> Result<Self, ExpertError> {
        match name {
            "silu" | "swish" => Ok(Self::Silu),
            "relu" => Ok(Self::Relu),
            "gelu" => Ok(Self::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" => Ok(Self::GeluTanh),
            "relu2" => Ok(Self::Relu2),
            _ => Err(ExpertError::UnknownName {
                field: "activation",
                name: name.to_owned(),
                expected: "silu, swish, relu, relu2, gelu, gelu_pytorch_tanh, gelu_new",
            }),
        }
    }
}

// === impl ExpertKind ===

impl ExpertKind {
    /// Its name in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Swiglu => "swiglu",
            Self::Mlp => "mlp",
            Self::Identity => "identity",
        }
    }

    /// Weight matrices of `hidden * ffn` values.
    #[must_use]
    pub const fn matrices(self) -> usize {
        match self {
            Self::Swiglu => 3,
            Self::Mlp => 2,
            Self::Identity => 0,
        }
    }
}

impl fmt::Display for ExpertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ExpertKind {
    type Err = ExpertError;

    fn from_str(name: &str) -> Result<Self, ExpertError> {
        match name {
            "swiglu" => Ok(Self::Swiglu),
            "mlp" => Ok(Self::Mlp),
            "identity" => Ok(Self::Identity),
            _ => Err(ExpertError::UnknownName {
                field: "expert kind",
                name: name.to_owned(),
                expected: "swiglu, mlp, identity",
            }),
        }
    }
}

// === impl ExpertSpec ===

impl ExpertSpec {
    /// Checks that the dimensions that the kind uses are at least 1.
    ///
    /// # Errors
    ///
    /// [`ExpertError::ZeroDimension`] naming the dimension.
    pub fn validate(&self) -> Result<(), ExpertError> {
        not_zero("hidden", self.hidden)?;
        if self.kind == ExpertKind::Identity {
            Ok(())
        } else {
            not_zero("ffn", self.ffn)
        }
    }

    /// Bytes of the weights of such an expert without biases; saturates at what `usize` can hold.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        (self.kind.matrices() * self.dtype.bytes())
            .saturating_mul(self.hidden)
            .saturating_mul(self.ffn)
    }

    /// Floating-point operations for one row, as in [`crate::Expert::flops_per_row`].
    #[must_use]
    pub fn flops_per_row(&self) -> u64 {
        (2 * self.kind.matrices() as u64)
            .saturating_mul(self.hidden as u64)
            .saturating_mul(self.ffn as u64)
    }
}
