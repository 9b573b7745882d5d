//! How a gated network limits its middle.

use expertmesh_kernels::{Format, bf16_round, math};

use crate::Activation;
use crate::expert::round_to;

#[cfg(test)]
mod tests;

/// What a gated network does with gate `g` and up `u` on the way to their product. `R` rounds to
/// the network's format; limits are rounded to it too, as PyTorch does with the bounds of a clamp.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Clamp {
    /// `R(act(g)) · u`.
    #[default]
    None,
    /// `R(act(min(g, limit))) · clamp(u, ±limit)`: DeepSeek-V4.
    Before {
        /// The limit of both.
        limit: f32,
    },
    /// `min(R(act(g)), limit) · clamp(u, ±limit)`: Step-3.7.
    After {
        /// The limit of both.
        limit: f32,
    },
    /// `R(g · R(sigmoid(R(alpha · g)))) · R(u + 1)` of `g` at most `limit` and `u` within
    /// `±limit`: gpt-oss and MiniMax-M3. The activation is not used.
    Swish {
        /// The limit of both, above only for the gate.
        limit: f32,
        /// Steepness of the sigmoid.
        alpha: f32,
    },
}

// === impl Clamp ===

impl Clamp {
    /// The same with limits that the format has.
    pub(crate) fn rounded(self, dtype: Format) -> Self {
        let round = |limit: f32| match dtype {
            Format::F32 => limit,
            Format::Bf16 => bf16_round(limit),
        };
        match self {
            Self::None => Self::None,
            Self::Before { limit } => Self::Before {
                limit: round(limit),
            },
            Self::After { limit } => Self::After {
                limit: round(limit),
            },
            Self::Swish { limit, alpha } => Self::Swish {
                limit: round(limit),
                alpha,
            },
        }
    }

    /// Leaves in `gate` and `up` the two factors of the middle, both rounded.
    pub(crate) fn apply(
        self,
        activation: Activation,
        dtype: Format,
        gate: &mut [f32],
        up: &mut [f32],
    ) {
        match self {
            Self::None => {}
            Self::Before { limit } | Self::After { limit } | Self::Swish { limit, .. } => {
                // Written out, because `clamp` panics on a limit that is not a number.
                up.iter_mut()
                    .for_each(|u| *u = at_most(-at_most(-*u, limit), limit));
                if !matches!(self, Self::After { .. }) {
                    gate.iter_mut().for_each(|g| *g = at_most(*g, limit));
                }
            }
        }
        if let Self::Swish { alpha, .. } = self {
            let round = |value: f32| match dtype {
                Format::F32 => value,
                Format::Bf16 => bf16_round(value),
            };
            for (g, u) in gate.iter_mut().zip(up) {
                let share = round(math::sigmoid(round(alpha * *g)));
                *g = round(*g * share);
                *u = round(*u + 1.0);
            }
            return;
        }
        activation.apply(gate);
        round_to(dtype, gate);
        if let Self::After { limit } = self {
            gate.iter_mut().for_each(|g| *g = at_most(*g, limit));
        }
    }
}

/// The smaller of the two; NaN stays NaN.
fn at_most(value: f32, limit: f32) -> f32 {
    if value > limit { limit } else { value }
}
