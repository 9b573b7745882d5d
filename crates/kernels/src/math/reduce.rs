//! Reductions over the scores of one token, each with a stated order of additions.

use super::elementary::{exp, log};
use crate::isa::for_every_isa;

/// Partial sums of [`softmax`], and of its search for the highest value.
const LANES: usize = 16;

for_every_isa! {
    /// Replaces scores by their softmax, `e^(xᵢ - max) / Σ e^(xⱼ - max)`.
    ///
    /// Value `i` is added to partial sum `i % 16`, in ascending order; then the upper half of the
    /// partial sums is added to the lower one until one is left: an order of additions that is the
    /// same on every CPU. A NaN, `+inf`, or nothing but `-inf` makes every value NaN, as in PyTorch;
    /// an empty slice stays empty.
    pub fn softmax(values: &mut [f32]) {
        softmax_row(values);
    }
}

/// The body of [`softmax`].
#[inline(always)]
pub(crate) fn softmax_row(row: &mut [f32]) {
    let largest = highest(row);
    let mut sums = [0.0; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (value, sum) in chunk.iter_mut().zip(&mut sums) {
            *value = exp(*value - largest);
            *sum += *value;
        }
    }
    for (value, sum) in rest.iter_mut().zip(&mut sums) {
        *value = exp(*value - largest);
        *sum += *value;
    }
    let mut left = LANES / 2;
    while left > 0 {
        for lane in 0..left {
            sums[lane] += sums[lane + left];
        }
        left /= 2;
    }
    for value in row {
        *value /= sums[0];
    }
}

for_every_isa! {
    /// `ln Σ eˣⁱ`, with the sum in ascending order; `-inf` for an empty slice.
    pub fn logsumexp(values: &[f32]) -> f32 {
        let largest = max(values);
        if largest.is_infinite() {
            // Nothing but -inf, or a +inf: the difference below would be NaN where the answer is
            // known.
            return largest;
        }
        let mut sum = 0.0;
        for value in values {
            sum += exp(*value - largest);
        }
        largest + log(sum)
    }
}

/// The largest value; NaN if there is one, `-inf` if there is nothing.
fn max(values: &[f32]) -> f32 {
    values.iter().fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
}

/// As [`max`], in lanes. (Which of several NaNs it is shows nowhere.)
#[inline(always)]
fn highest(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, value);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, larger)
}

/// The greater of two values, NaN if one of them is.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

#[cfg(test)]
pub(super) use self::softmax::on as softmax_on;
