//! Activation functions of expert networks and the squashing functions of gates.

use super::elementary::{exp, exp_normal, log};
use crate::isa::for_every_isa;

/// `1 / (1 + e⁻ˣ)`, within 2.5 ulp. The exponential's argument is never positive, so that both tails
/// keep their precision.
#[inline(always)]
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// [`sigmoid`], to the bit, for `|x| <= NORMAL`.
#[inline(always)]
pub(crate) fn sigmoid_normal(x: f32) -> f32 {
    let e = exp_normal(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// `x · sigmoid(x)`, within 3 ulp for x > -85, below which `x · eˣ` underflows step by step (SiLU,
/// also called swish). `silu(-inf)` is NaN, as in PyTorch.
#[inline(always)]
#[must_use]
pub fn silu(x: f32) -> f32 {
    let e = exp(-x.abs());
    let numerator = if x < 0.0 { x * e } else { x };
    numerator / (1.0 + e)
}

/// `max(x, 0)`; NaN stays NaN.
#[inline(always)]
#[must_use]
pub fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

/// `x Φ(x)` with the normal distribution Φ, within 3 ulp (`"gelu"` in Hugging Face configurations).
///
/// Φ comes from the complementary error function of Numerical Recipes (`erfcc`, 2nd edition, §6.2:
/// relative error below 1.2e-7 everywhere), evaluated in f64.
#[inline(always)]
#[must_use]
pub fn gelu(x: f32) -> f32 {
    let wide = f64::from(x);
    (0.5 * wide * erfc(-wide * std::f64::consts::FRAC_1_SQRT_2)) as f32
}

/// GELU in its tanh form, `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))` (`"gelu_pytorch_tanh"`,
/// `"gelu_new"`).
///
/// Computed as `x · sigmoid(2 √(2/π) (x + 0.044715 x³))`, the same function without the
/// cancellation of `1 + tanh` for negative x: within 4 ulp for x > -1, and within a relative 1e-5
/// down to x = -8, where the result is -1e-20.
#[inline(always)]
#[must_use]
pub fn gelu_tanh(x: f32) -> f32 {
    const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
    let argument = TWICE_SQRT_2_OVER_PI * (x + 0.044_715 * (x * x * x));
    x * sigmoid(argument)
}

/// `ln(1 + eˣ)`, within 3 ulp.
#[inline(always)]
#[must_use]
pub fn softplus(x: f32) -> f32 {
    // ln(1 + t) for 0 <= t <= 1 by the correction of W. Kahan: log sees 1 + t rounded, and the
    // quotient undoes the rounding's effect.
    let t = exp(-x.abs());
    let u = 1.0 + t;
    let log1p = if u == 1.0 {
        t
    } else {
        log(u) * (t / (u - 1.0))
    };
    let positive = if x < 0.0 { 0.0 } else { x };
    positive + log1p
}

/// The complementary error function with a relative error below 1.2e-7.
#[inline(always)]
fn erfc(x: f64) -> f64 {
    let z = x.abs();
    let t = 1.0 / (1.0 + 0.5 * z);
    let mut p = 0.170_872_77;
    p = p * t - 0.822_152_23;
    p = p * t + 1.488_515_87;
    p = p * t - 1.135_203_98;
    p = p * t + 0.278_868_07;
    p = p * t - 0.186_288_06;
    p = p * t + 0.096_784_18;
    p = p * t + 0.374_091_96;
    p = p * t + 1.000_023_68;
    p = p * t - 1.265_512_23;
    let tail = t * exp_f64(p - z * z);
    if x < 0.0 { 2.0 - tail } else { tail }
}

/// `eˣ` for x <= 1 with a relative error below 1e-10; arguments below -600 count as -600.
#[inline(always)]
fn exp_f64(x: f64) -> f64 {
    // 1.5 · 2⁵², and ln 2 in two parts, the first of 33 bits (fdlibm's `e_exp.c`).
    const TO_INTEGER: f64 = 6_755_399_441_055_744.0;
    const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

    let x = if x < -600.0 { -600.0 } else { x };
    let shifted = x * std::f64::consts::LOG2_E + TO_INTEGER;
    let n = shifted - TO_INTEGER;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    // Taylor's series to r⁹: the next term is below 8e-12 for |r| <= ln 2 / 2.
    let mut p = 1.0 / 362_880.0;
    p = p * r + 1.0 / 40_320.0;
    p = p * r + 1.0 / 5_040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    let n = shifted.to_bits().wrapping_sub(TO_INTEGER.to_bits());
    p * f64::from_bits(n.wrapping_add(1023) << 52)
}

for_every_isa! {
    /// Replaces every value by its [`sigmoid`].
    pub fn sigmoid_slice(values: &mut [f32]) {
        for value in values {
            *value = sigmoid(*value);
        }
    }
}

for_every_isa! {
    /// Replaces every value by its [`softplus`].
    pub fn softplus_slice(values: &mut [f32]) {
        for value in values {
            *value = softplus(*value);
        }
    }
}

for_every_isa! {
    /// Replaces every value by its [`silu`].
    pub fn silu_slice(values: &mut [f32]) {
        for value in values {
            *value = silu(*value);
        }
    }
}

for_every_isa! {
    /// Replaces every value by its [`relu`].
    pub fn relu_slice(values: &mut [f32]) {
        for value in values {
            *value = relu(*value);
        }
    }
}

for_every_isa! {
    /// Replaces every value by its [`gelu`].
    pub fn gelu_slice(values: &mut [f32]) {
        for value in values {
            *value = gelu(*value);
        }
    }
}

for_every_isa! {
    /// Replaces every value by its [`gelu_tanh`].
    pub fn gelu_tanh_slice(values: &mut [f32]) {
        for value in values {
            *value = gelu_tanh(*value);
        }
    }
}

for_every_isa! {
    /// Multiplies `values` by `factors`, element by element.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn mul_slice(values: &mut [f32], factors: &[f32]) {
        assert_eq!(values.len(), factors.len(), "lengths of values and factors");
        for (value, factor) in values.iter_mut().zip(factors) {
            *value *= factor;
        }
    }
}

for_every_isa! {
    /// `gate = silu(gate) · up`, element by element: the middle of a SwiGLU network.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn silu_mul(gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "lengths of gate and up");
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = silu(*gate) * up;
        }
    }
}

#[cfg(test)]
pub(super) use self::{
    gelu_slice::on as gelu_on, gelu_tanh_slice::on as gelu_tanh_on, mul_slice::on as mul_on,
    relu_slice::on as relu_on, sigmoid_slice::on as sigmoid_on, silu_mul::on as silu_mul_on,
    silu_slice::on as silu_on, softplus_slice::on as softplus_on,
};
