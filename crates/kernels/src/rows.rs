//! Steps over rows of scores: the highest of a row, the best runs of neighbours, sums with a bias.
//!
//! Keys of a random row are as good as unpredictable to a CPU, so a textbook insertion spends its
//! time on mispredicted branches, and a sort on order that nobody asked for. What is here finds its
//! answers by comparisons alone: a threshold that enough keys reach, and for the few that do the
//! number of those that beat each. Equal keys stay in the order of their indices, and -0 equals 0.

mod highest;
mod lanes;
mod runs;
#[cfg(test)]
mod tests;

pub use highest::{MAX_HIGHEST, MAX_WIDTH, highest, rank};
pub use runs::{MAX_RUNS, Runs, highest_of_runs, two_highest};

use crate::isa::for_every_isa;
use crate::math;
use crate::prefetch::prefetch_to_read;

for_every_isa! {
    /// The largest magnitude: `inf` or NaN where not every value is finite, 0 for no values.
    pub fn magnitude(values: &[f32]) -> f32 {
        magnitude_of(values)
    }
}

for_every_isa! {
    /// `sums` = `rows` + `bias`, row by row; sums that overflow are moved to the end of the finite
    /// range.
    ///
    /// # Panics
    ///
    /// If `bias` is empty, `rows` are not whole rows of its length, or `sums` are not as many.
    pub fn add_bias(rows: &[f32], bias: &[f32], sums: &mut [f32]) {
        assert!(rows.len().is_multiple_of(bias.len()), "whole rows of {}", bias.len());
        assert_eq!(rows.len(), sums.len(), "values and sums");
        let rows = rows.chunks_exact(bias.len());
        for (row, sums) in rows.zip(sums.chunks_exact_mut(bias.len())) {
            for ((value, bias), sum) in row.iter().zip(bias).zip(sums) {
                *sum = (value + bias).clamp(f32::MIN, f32::MAX);
            }
        }
    }
}

for_every_isa! {
    /// `scores` = [`sigmoid`](math::sigmoid) of `values`. Asks memory for `next`, which will be read
    /// soon, on the way. Returns the [`magnitude`] of `values`.
    ///
    /// # Panics
    ///
    /// If there are not as many `scores` as `values`.
    pub fn sigmoid(values: &[f32], scores: &mut [f32], next: &[f32]) -> f32 {
        assert_eq!(values.len(), scores.len(), "values and scores");
        f32::from_bits(sigmoid_of(values, scores, next))
    }
}

for_every_isa! {
    /// [`sigmoid`], and `sums` = `scores` + `bias`, row by row, in one go. A sum with a score of at
    /// most 1 does not overflow.
    ///
    /// # Panics
    ///
    /// If `bias` is empty, `values` are not whole rows of its length, or `scores` or `sums` are not
    /// as many.
    pub fn sigmoid_and_sum(
        values: &[f32],
        bias: &[f32],
        scores: &mut [f32],
        sums: &mut [f32],
        next: &[f32],
    ) -> f32 {
        assert!(values.len().is_multiple_of(bias.len()), "whole rows of {}", bias.len());
        assert_eq!((values.len(), values.len()), (scores.len(), sums.len()), "scores and sums");
        let (width, mut most) = (bias.len(), 0);
        let mut next = next.chunks(width);
        let rows = values.chunks_exact(width).zip(scores.chunks_exact_mut(width));
        for ((values, scores), sums) in rows.zip(sums.chunks_exact_mut(width)) {
            let next = next.next().unwrap_or_default();
            let found = with_sums(values, bias, scores, sums, next, math::sigmoid_normal);
            if found > math::NORMAL.to_bits() {
                with_sums(values, bias, scores, sums, &[], math::sigmoid);
            }
            most = most.max(found);
        }
        f32::from_bits(most)
    }
}

for_every_isa! {
    /// `scores` = [`softmax`](math::softmax) of every row of `width` values. Asks memory for `next`,
    /// which will be read soon, on the way.
    ///
    /// # Panics
    ///
    /// If `width` is 0, or there are not as many `scores` as `values`.
    pub fn softmax(values: &[f32], width: usize, scores: &mut [f32], next: &[f32]) {
        assert_eq!(values.len(), scores.len(), "values and scores");
        let mut next = next.chunks(width);
        for (row, scores) in values.chunks_exact(width).zip(scores.chunks_exact_mut(width)) {
            next.next().unwrap_or_default().chunks(LINE).for_each(prefetch_to_read);
            scores.copy_from_slice(row);
            math::softmax_row(scores);
        }
    }
}

/// How [`shares`] makes weights of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// What is added to the sum before it divides.
    pub eps: f32,
    /// What every share is multiplied by.
    pub scale: f32,
}

for_every_isa! {
    /// `weights` `[rows, k]` = the `scores` of the chosen `indices` of every row of `width`, as shares
    /// of their sum, which is added up in the order of the choices.
    ///
    /// # Panics
    ///
    /// If `width` or `k` is 0, the slices do not hold the same number of whole rows, or an index is
    /// not below `width`.
    pub fn shares(
        scores: &[f32],
        width: usize,
        indices: &[u32],
        k: usize,
        of: &Shares,
        weights: &mut [f32],
    ) {
        let Shares { eps, scale } = *of;
        let rows = scores.len() / width;
        assert_eq!((rows * k, rows * k), (indices.len(), weights.len()), "rows");
        let rows = scores.chunks_exact(width).zip(indices.chunks_exact(k));
        for ((scores, indices), weights) in rows.zip(weights.chunks_exact_mut(k)) {
            for (weight, index) in weights.iter_mut().zip(indices) {
                *weight = scores[*index as usize];
            }
        }
        // Not in the same turn: a vector waits for the numbers that it is loaded from to be stored.
        for row in weights.chunks_exact_mut(k) {
            let divisor = row.iter().fold(0.0, |sum, score| sum + score) + eps;
            let share = |score: &mut f32| *score = *score / divisor * scale;
            // The usual number is a constant, so that a row is a register.
            match row.as_chunks_mut::<8>() {
                ([row], []) => row.iter_mut().for_each(share),
                _ => row.iter_mut().for_each(share),
            }
        }
    }
}

/// Values of a line of memory.
const LINE: usize = 16;

/// `scores` of `values`; returns the bits of their magnitude.
#[inline(always)]
fn sigmoid_of(values: &[f32], scores: &mut [f32], next: &[f32]) -> u32 {
    let most = line_by_line(values, scores, next, math::sigmoid_normal);
    if most <= math::NORMAL.to_bits() {
        return most;
    }
    line_by_line(values, scores, &[], math::sigmoid)
}

/// `to` = `function` of `values`; returns the bits of their magnitude.
#[inline(always)]
fn line_by_line(
    values: &[f32],
    to: &mut [f32],
    next: &[f32],
    function: impl Fn(f32) -> f32,
) -> u32 {
    let (lines, rest) = values.as_chunks::<LINE>();
    let (to_lines, to_rest) = to.as_chunks_mut::<LINE>();
    let mut next = next.chunks(LINE);
    let mut most = [0; LINE];
    for (line, to) in lines.iter().zip(to_lines) {
        prefetch_to_read(next.next().unwrap_or_default());
        for ((value, to), most) in line.iter().zip(to).zip(&mut most) {
            *to = function(*value);
            *most = magnitude_bits(*value).max(*most);
        }
    }
    for ((value, to), most) in rest.iter().zip(to_rest).zip(&mut most) {
        *to = function(*value);
        *most = magnitude_bits(*value).max(*most);
    }
    most.into_iter().fold(0, u32::max)
}

/// [`line_by_line`], and `sums` = `to` + `bias`. Two lines go together, so that one has work for the
/// CPU while the other waits for a result.
#[inline(always)]
fn with_sums(
    values: &[f32],
    bias: &[f32],
    to: &mut [f32],
    sums: &mut [f32],
    next: &[f32],
    function: impl Fn(f32) -> f32,
) -> u32 {
    let mut next = next.chunks(LINE);
    let mut most = [0; 2 * LINE];
    let mut each = |values: &[f32], bias: &[f32], to: &mut [f32], sums: &mut [f32]| {
        prefetch_to_read(next.next().unwrap_or_default());
        prefetch_to_read(next.next().unwrap_or_default());
        let from = values.iter().zip(bias).zip(&mut most);
        for (((value, bias), most), (to, sum)) in from.zip(to.iter_mut().zip(sums)) {
            let result = function(*value);
            (*to, *sum) = (result, result + bias);
            *most = magnitude_bits(*value).max(*most);
        }
    };
    let (values, values_rest) = values.as_chunks::<{ 2 * LINE }>();
    let (bias, bias_rest) = bias.as_chunks::<{ 2 * LINE }>();
    let (to, to_rest) = to.as_chunks_mut::<{ 2 * LINE }>();
    let (sums, sums_rest) = sums.as_chunks_mut::<{ 2 * LINE }>();
    for ((values, bias), (to, sums)) in values.iter().zip(bias).zip(to.iter_mut().zip(sums)) {
        each(values, bias, to, sums);
    }
    each(values_rest, bias_rest, to_rest, sums_rest);
    most.into_iter().fold(0, u32::max)
}

#[inline(always)]
fn magnitude_of(values: &[f32]) -> f32 {
    let bits = values.iter().map(|value| magnitude_bits(*value));
    f32::from_bits(bits.fold(0, u32::max))
}

/// Without its sign a float is ordered like its bits, and NaN is above infinity.
#[inline(always)]
fn magnitude_bits(value: f32) -> u32 {
    value.to_bits() & 0x7fff_ffff
}

/// The greater of two numbers that are not NaN, as one instruction.
#[inline(always)]
fn higher(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The lesser, likewise.
#[inline(always)]
fn lower(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}
