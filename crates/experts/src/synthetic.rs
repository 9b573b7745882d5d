//! Seeded weights, for runs without a checkpoint.
//!
//! A weight is a function of (seed, layer, expert) and its position alone, so any worker makes the
//! same expert by itself. The generator is ChaCha8, whose stream is fixed by its definition.

use std::sync::Arc;

use expertmesh_kernels::PackedMatrix;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::{
    Expert, ExpertError, ExpertKind, ExpertSpec, IdentityExpert, MixedExpert, MlpExpert,
    SwigluExpert,
};

#[cfg(test)]
mod tests;

/// What of a layer is drawn besides its experts. Each has a stream of its own, above those of the
/// experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SyntheticHead {
    /// The projection of a cosine gate, a row for each element of its result.
    Projection = u32::MAX - 4,
    /// What a noisy gate scales its noise by, a row for each expert.
    GateNoise = u32::MAX - 3,
    /// The head of an early exit, a row for each class.
    Exit = u32::MAX - 2,
    /// The router of mixture-of-depths, one row.
    Depth = u32::MAX - 1,
    /// The gate, a row for each expert.
    Gate = u32::MAX,
}

/// A row whose part across the earlier ones is shorter than this (of a length of about 1) would
/// have its direction from rounding errors.
const SHORTEST: f64 = 1e-4;

/// An expert with uniform random weights in `(-a, a)`, `a = 1/√inner`, rounded to the spec's format.
///
/// The matrices are drawn in the order gate, up, down; an MLP has no biases.
///
/// # Errors
///
/// [`ExpertError::ZeroDimension`] if the spec has an empty dimension.
pub fn synthetic_expert(
    spec: &ExpertSpec,
    seed: u64,
    layer: u32,
    expert: u32,
) -> Result<Arc<dyn Expert>, ExpertError> {
    spec.validate()?;
    let &ExpertSpec {
        hidden,
        ffn,
        kind,
        activation,
        dtype,
    } = spec;
    let mut rng = stream(seed, layer, expert);
    let mut matrix = |out: usize, inner: usize| {
        let bound = 1.0 / (inner as f32).sqrt();
        let weights: Vec<f32> = (0..out * inner)
            .map(|_| bound * symmetric(&mut rng))
            .collect();
        PackedMatrix::from_f32_as(dtype, &weights, out, inner)
    };
    Ok(match kind {
        ExpertKind::Swiglu => {
            let gate = matrix(ffn, hidden)?;
            let up = matrix(ffn, hidden)?;
            let down = matrix(hidden, ffn)?;
            Arc::new(SwigluExpert::new(gate, up, down, activation, dtype)?)
        }
        ExpertKind::Mlp => {
            let up = matrix(ffn, hidden)?;
            let down = matrix(hidden, ffn)?;
            Arc::new(MlpExpert::new(up, None, down, None, activation, dtype)?)
        }
        ExpertKind::Identity => Arc::new(IdentityExpert::new(hidden)?),
    })
}

/// A constant expert with uniform random weights, as those of [`synthetic_expert`].
///
/// # Errors
///
/// [`ExpertError::ZeroDimension`] if the spec has an empty dimension.
pub fn synthetic_mixed(
    spec: &ExpertSpec,
    seed: u64,
    layer: u32,
    expert: u32,
) -> Result<Arc<dyn Expert>, ExpertError> {
    let (hidden, dtype) = (spec.hidden, spec.dtype);
    let mut rng = stream(seed, layer, expert);
    let bound = 1.0 / (hidden.max(1) as f32).sqrt();
    let mix: Vec<f32> = (0..2 * hidden)
        .map(|_| bound * symmetric(&mut rng))
        .collect();
    let mut vector: Vec<f32> = (0..hidden).map(|_| symmetric(&mut rng)).collect();
    crate::expert::round_to(dtype, &mut vector);
    let mix = PackedMatrix::from_f32_as(dtype, &mix, 2, hidden)?;
    Ok(Arc::new(MixedExpert::new(mix, vector, dtype)?))
}

/// Weights `[experts, hidden]` for a gate, rows of length 1.
///
/// With no more experts than hidden values the rows are orthonormal (modified Gram-Schmidt in f64):
/// inputs whose values are independent then choose every expert equally often. With more experts
/// the rows are random directions.
#[must_use]
pub fn synthetic_gate(experts: usize, hidden: usize, seed: u64, layer: u32) -> Vec<f32> {
    synthetic_head(SyntheticHead::Gate, experts, hidden, seed, layer)
}

/// Weights `[count, hidden]` of a head, rows of length 1: as [`synthetic_gate`], out of a stream of
/// its own.
#[must_use]
pub fn synthetic_head(
    head: SyntheticHead,
    count: usize,
    hidden: usize,
    seed: u64,
    layer: u32,
) -> Vec<f32> {
    let mut rng = stream(seed, layer, head as u32);
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(count);
    while rows.len() < count && hidden > 0 {
        let mut row: Vec<f64> = (0..hidden)
            .map(|_| f64::from(symmetric(&mut rng)))
            .collect();
        normalize(&mut row);
        if count <= hidden {
            // Twice: the first pass leaves errors where the row was nearly a sum of earlier ones.
            for _ in 0..2 {
                for earlier in &rows {
                    let along = dot(&row, earlier);
                    row.iter_mut()
                        .zip(earlier)
                        .for_each(|(value, unit)| *value -= along * unit);
                }
            }
            if normalize(&mut row) < SHORTEST {
                continue;
            }
        }
        rows.push(row);
    }
    rows.into_iter()
        .flatten()
        .map(|value| value as f32)
        .collect()
}

/// The generator of one expert or gate.
fn stream(seed: u64, layer: u32, stream: u32) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(layer) << 32 | u64::from(stream));
    rng
}

/// A uniform number in (-1, 1): the middle of one of 2²³ equal intervals, so never 0, and exact.
fn symmetric(rng: &mut ChaCha8Rng) -> f32 {
    ((rng.next_u32() >> 9) as f32 + 0.5) / 4_194_304.0 - 1.0
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter()
        .zip(right)
        .fold(0.0, |sum, (left, right)| sum + left * right)
}

/// Scales the row to length 1 and returns the length that it had.
fn normalize(row: &mut [f64]) -> f64 {
    let length = dot(row, row).sqrt();
    row.iter_mut().for_each(|value| *value /= length);
    length
}
