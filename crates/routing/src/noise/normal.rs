//! The inverse of the normal distribution function.

use expertmesh_kernels::math;

/// `Φ⁻¹(p)` for `p` from 2^-24 to 1 - 2^-24: the routine PPND7 of M. J. Wichura, "Algorithm AS 241:
/// the percentage points of the normal distribution", Applied Statistics 37 (1988).
///
/// Its rational functions are good to one part in 10⁷; with the rounding of the logarithm and of
/// the result it comes to 5e-7 relatively. The routine's third branch, for `p` below e^-25, is not
/// reached and left out. Evaluated in f64 by operations that IEEE 754 defines to the bit.
pub(crate) fn inverse_normal(p: f32) -> f32 {
    let q = f64::from(p) - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        let above = ((59.109_374_720 * r + 159.291_132_02) * r + 50.434_271_938) * r;
        let below = ((67.187_563_600 * r + 78.757_757_664) * r + 17.895_169_469) * r;
        return (q * (above + 3.387_132_717_9) / (below + 1.0)) as f32;
    }
    // Exact: p is a multiple of 2^-24.
    let tail = if q < 0.0 { p } else { 1.0 - p };
    let r = f64::from(-math::log(tail)).sqrt() - 1.6;
    let above = ((0.170_238_211_03 * r + 1.306_728_481_6) * r + 2.756_815_390_0) * r;
    let below = (0.120_211_329_75 * r + 0.737_001_642_50) * r;
    let z = (above + 1.423_437_277_7) / (below + 1.0);
    (if q < 0.0 { -z } else { z }) as f32
}
