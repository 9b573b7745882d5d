//! The rows that make the gate choose as drawn.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::trace::NO_CHOICE;
use crate::workload::WorkloadShape;

/// Logit of the last slot; experts that are not chosen have about 0.
const LAST_LOGIT: f32 = 4.0;
/// What the first slot's logit is above the last one's.
const SPREAD: f32 = 1.0;
/// Slots that the spread parts well: with more it grows, so that noise does not swap neighbours.
const SLOTS: f32 = 8.0;
/// Noise of a row is uniform within this. It moves a logit by 0.03 (standard deviation, for gate
/// rows of length 1), far less than what separates chosen experts from the others.
pub(super) const NOISE: f32 = 0.05;

/// Appends `[T, H]` rows: sums of the chosen experts' gate rows, and noise.
pub(super) fn add_gate_rows(
    random: &mut ChaCha8Rng,
    chosen: &[u32],
    shape: WorkloadShape,
    gate: &[f32],
    rows: &mut Vec<f32>,
) {
    let WorkloadShape { hidden, top_k, .. } = shape;
    let heights = heights(top_k);
    for experts in chosen.chunks_exact(top_k) {
        let start = rows.len();
        rows.extend((0..hidden).map(|_| NOISE * symmetric(random)));
        // A row of padding has no experts, and is noise.
        let experts = experts.iter().filter(|&&expert| expert != NO_CHOICE);
        for (expert, height) in experts.zip(&heights) {
            let direction = &gate[*expert as usize * hidden..][..hidden];
            for (value, along) in rows[start..].iter_mut().zip(direction) {
                *value += height * along;
            }
        }
    }
}

/// `[k]`: the logit of each slot, falling.
pub(super) fn heights(top_k: usize) -> Vec<f32> {
    let spread = SPREAD * (top_k as f32 / SLOTS).max(1.0);
    let height = |slot| LAST_LOGIT + spread * (top_k - 1 - slot) as f32 / top_k as f32;
    (0..top_k).map(height).collect()
}

/// Appends `count` values of mean 0 and variance 1: twelve uniform ones added up, which is a
/// Gaussian to the eye of a gate and needs no logarithm that differs between machines.
pub(super) fn fill_normal(random: &mut ChaCha8Rng, count: usize, rows: &mut Vec<f32>) {
    rows.extend((0..count).map(|_| {
        let sum: u32 = (0..3).map(|_| four(random.next_u64())).sum();
        // Each of the twelve is uniform on 0..65536: take off their mean, scale to variance 1.
        (sum as f32 + 6.0) / 65_536.0 - 6.0
    }));
}

/// The sum of the four 16-bit numbers of a word.
fn four(word: u64) -> u32 {
    (0..4).map(|at| (word >> (16 * at)) as u32 & 0xffff).sum()
}

/// Uniform in (-1, 1).
fn symmetric(random: &mut ChaCha8Rng) -> f32 {
    ((random.next_u32() >> 9) as f32 + 0.5) / 4_194_304.0 - 1.0
}
