//! Two routers that make exactly two choices, each over one row.

use expertmesh_kernels::{Format, bf16_round, math};

/// Chooses NLLB-MoE's way: the highest of `scores`, then the highest of `logits` among the others.
/// Ties go to the lower expert. `experts` has two slots.
pub(super) fn second_by_logit(scores: &[f32], logits: &[f32], experts: &mut [u32]) {
    let [first, second] = experts else { return };
    *first = highest(scores, u32::MAX);
    *second = highest(logits, *first);
}

/// The first of the highest keys, `except` left out.
fn highest(keys: &[f32], except: u32) -> u32 {
    let mut best = (u32::MAX, f32::NEG_INFINITY);
    for (expert, &key) in (0_u32..).zip(keys) {
        if expert != except && (key > best.1 || best.0 == u32::MAX) {
            best = (expert, key);
        }
    }
    best.0
}

/// Weighs Phi-MoE's two choices, `experts`, the two highest of the logits `row`.
///
/// After SparseMixer (Liu et al., "Sparse Backpropagation for MoE Training", 2023) as
/// `transformers` evaluates it. A choice with logit m weighs `1 / Σ e^(sⱼ - m)` over the experts j
/// with `(m - sⱼ) / max(|sⱼ|, m) <= 2 eps`; for the second choice the first one is left out.
/// Logits are exact in `dtype`, and each step is rounded to it.
pub(super) fn sparse_mixer(
    row: &[f32],
    experts: &[u32],
    eps: f32,
    dtype: Format,
    weights: &mut [f32],
) {
    let round = |value: f32| {
        if dtype == Format::Bf16 {
            bf16_round(value)
        } else {
            value
        }
    };
    let farthest = round(2.0 * eps);
    let mut gone = u32::MAX;
    for (&expert, weight) in experts.iter().zip(weights) {
        let best = row[expert as usize];
        let mut sum = 0.0;
        for (other, &logit) in (0_u32..).zip(row) {
            // 0/0, where the best logit is 0, compares false: such an expert is near.
            let distance = round(round(best - logit) / logit.abs().max(best));
            let far = distance > farthest;
            if other != gone && !far {
                sum += math::exp(logit - best);
            }
        }
        *weight = round(1.0 / sum);
        gone = expert;
    }
}
