//! Reductions over the scores of one token, with sums in ascending order.

use super::elementary::{exp, exp_slice, log};

/// Replaces scores by their softmax, `e^(xᵢ - max) / Σ e^(xⱼ - max)`.
///
/// The sum runs in ascending order. A NaN, `+inf`, or nothing but `-inf` makes every value NaN, as
/// in PyTorch; an empty slice stays empty.
pub fn softmax(values: &mut [f32]) {
    let largest = max(values);
    for value in values.iter_mut() {
        *value -= largest;
    }
    exp_slice(values);
    let mut sum = 0.0;
    for value in values.iter() {
        sum += *value;
    }
    for value in values {
        *value /= sum;
    }
}

/// `ln Σ eˣⁱ`, with the sum in ascending order; `-inf` for an empty slice.
#[must_use]
pub fn logsumexp(values: &[f32]) -> f32 {
    let largest = max(values);
    if largest.is_infinite() {
        // Nothing but -inf, or a +inf: the difference below would be NaN where the answer is known.
        return largest;
    }
    let mut sum = 0.0;
    for value in values {
        sum += exp(*value - largest);
    }
    largest + log(sum)
}

/// The largest value; NaN if there is one, `-inf` if there is nothing.
fn max(values: &[f32]) -> f32 {
    values.iter().fold(f32::NEG_INFINITY, |largest, &value| {
        if value > largest || value.is_nan() {
            value
        } else {
            largest
        }
    })
}
