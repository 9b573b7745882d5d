//! `exp`, `log` and `tanh`. The polynomials are those of Cephes (S. Moshier, `expf.c`, `logf.c`,
//! `tanhf.c`); that of `exp`, which every gate waits for, is in fused multiply-adds. The handling of
//! the ends of the range is branch-free here, for vector registers.

use crate::isa::for_every_isa;

/// `ln 2` in two parts: 10 bits, so that its product with an exponent is exact, and the rest.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// 1.5 · 2²³ + 127: adding it to a number below 2²² leaves the nearest integer in the lowest bits, as
/// the exponent of a float.
const TO_EXPONENT: f32 = 12_582_912.0 + 127.0;

/// `eˣ`, within 1 ulp. Underflow is gradual, down to zero; overflow gives infinity; NaN stays NaN.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    // Beyond these ends the result is infinite or below half the smallest subnormal. A NaN passes
    // both comparisons and reaches the polynomial.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let (t, shifted) = reduced(x);
    let p = t + 1.0;
    let n = shifted.to_bits().wrapping_sub(TO_EXPONENT.to_bits());
    let n = n.cast_signed();
    // 2ⁿ in two factors: n reaches from -150 to 128, past the exponents of normal numbers. The first
    // multiplication is exact, so a subnormal result is rounded once.
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// Up to this magnitude [`exp_normal`] is `exp`.
pub(crate) const NORMAL: f32 = 86.0;

/// [`exp`], to the bit, for `-NORMAL <= x <= NORMAL`: the result is a normal number, so it needs no
/// ends and no multiplication.
#[inline(always)]
pub(crate) fn exp_normal(x: f32) -> f32 {
    let (t, shifted) = reduced(x);
    // Scaled by a power of two, the sum is rounded as it would be unscaled.
    let power = f32::from_bits(shifted.to_bits() << 23);
    t.mul_add(power, power)
}

/// `t` and `n + `[`TO_EXPONENT`] with `eˣ = (1 + t) · 2ⁿ` and `√½ <= 1 + t <= √2`, but for rounding.
#[inline(always)]
fn reduced(x: f32) -> (f32, f32) {
    // x = n ln 2 + r with |r| <= ln 2 / 2. (No float below 2²² is half-way between two n.)
    let shifted = x.mul_add(std::f32::consts::LOG2_E, TO_EXPONENT);
    let n = shifted - TO_EXPONENT;
    let r = (-n).mul_add(LN_2_LOW, (-n).mul_add(LN_2_HIGH, x));

    let p = 1.987_569_1e-4_f32
        .mul_add(r, 1.398_199_9e-3)
        .mul_add(r, 8.333_452e-3)
        .mul_add(r, 4.166_579_6e-2)
        .mul_add(r, 1.666_666_5e-1)
        .mul_add(r, 0.5);
    (p.mul_add(r * r, r), shifted)
}

/// `2ⁿ` for -126 <= n <= 127; any bits otherwise (reached with NaN only).
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(n.wrapping_add(127).cast_unsigned() << 23)
}

for_every_isa! {
    /// Replaces every value by its [`exp`].
    pub fn exp_slice(values: &mut [f32]) {
        for value in values {
            *value = exp(*value);
        }
    }
}

/// The natural logarithm, within 1 ulp. `log(0)` is `-inf`; a negative number gives NaN.
#[inline(always)]
#[must_use]
pub fn log(x: f32) -> f32 {
    // Subnormals are scaled into the normal range by 2²³.
    let is_small = x < f32::MIN_POSITIVE;
    let scaled = if is_small { x * 8_388_608.0 } else { x };

    // x = m 2ᵉ with m in [√½, √2): counted from the bits of √½, the exponent field holds e.
    let sqrt_half = std::f32::consts::FRAC_1_SQRT_2.to_bits();
    let above = scaled.to_bits().wrapping_sub(sqrt_half);
    let exponent = (above.cast_signed() >> 23) as f32;
    let exponent = if is_small { exponent - 23.0 } else { exponent };
    let m = f32::from_bits((above & 0x007f_ffff).wrapping_add(sqrt_half));

    let z = m - 1.0;
    let mut p = 7.037_683_6e-2;
    p = p * z - 1.151_461e-1;
    p = p * z + 1.167_699_9e-1;
    p = p * z - 1.242_014_1e-1;
    p = p * z + 1.424_932_3e-1;
    p = p * z - 1.666_805_8e-1;
    p = p * z + 2.000_071_5e-1;
    p = p * z - 2.499_999_4e-1;
    p = p * z + 3.333_333e-1;
    let square = z * z;
    let tail = (p * (z * square) + exponent * LN_2_LOW) - 0.5 * square;
    let result = (z + tail) + exponent * LN_2_HIGH;

    let result = if x == f32::INFINITY {
        f32::INFINITY
    } else {
        result
    };
    let result = if x == 0.0 { f32::NEG_INFINITY } else { result };
    let is_number = x >= 0.0;
    if is_number { result } else { f32::NAN }
}

/// The hyperbolic tangent, within 2 ulp.
#[inline(always)]
#[must_use]
pub fn tanh(x: f32) -> f32 {
    let magnitude = x.abs();
    let square = x * x;
    let mut p = -5.704_988_7e-3;
    p = p * square + 2.063_909e-2;
    p = p * square - 5.373_971_6e-2;
    p = p * square + 1.333_144_2e-1;
    p = p * square - 3.333_328e-1;
    let near_zero = p * square * x + x;
    let far = 1.0 - 2.0 / (exp(magnitude + magnitude) + 1.0);
    // The sign of a zero would be lost in the polynomial.
    (if magnitude < 0.625 { near_zero } else { far }).copysign(x)
}

for_every_isa! {
    /// Replaces every value by its [`tanh`].
    pub fn tanh_slice(values: &mut [f32]) {
        for value in values {
            *value = tanh(*value);
        }
    }
}

#[cfg(test)]
pub(super) use self::{exp_slice::on as exp_on, tanh_slice::on as tanh_on};
