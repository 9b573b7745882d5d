//! The steps of a selection, each over one row.

use expertmesh_kernels::rows::{self, MAX_HIGHEST, MAX_RUNS, MAX_WIDTH, Runs, highest_of_runs};
use expertmesh_kernels::{Format, bf16_round, math, round_bf16};

use super::given::group_rank;
use super::highest::{TopScratch, top_k, top_k_rows};
use crate::{
    config::{GroupScore, Groups, Norm, RouterConfig, Score},
    error::RoutingError,
};

/// Buffers of the ranking of groups.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupScratch {
    /// `[groups]`: ranks of one row.
    ranks: Vec<f32>,
    kept: Vec<u32>,
    /// `[rows, groups]`: whether a token may choose from the group; what [`top_k_in_groups`] finds.
    pub(super) allowed: Vec<bool>,
}

/// Refuses a bias that is not one finite number for each expert.
pub(crate) fn check_bias(
    field: &'static str,
    bias: &[f32],
    experts: usize,
) -> Result<(), RoutingError> {
    RoutingError::check_length(field, bias.len(), [experts, 1], "experts x 1")?;
    match bias.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(RoutingError::config(field, value, "finite numbers")),
        None => Ok(()),
    }
}

/// The first logit of a block of rows that is infinite or not a number; `magnitude` is that of the
/// block.
pub(super) fn first_not_finite(logits: &[f32], magnitude: f32) -> Option<usize> {
    if magnitude.is_finite() {
        return None;
    }
    logits.iter().position(|logit| !logit.is_finite())
}

/// The `scores` of rows of logits, `width` each, and the magnitude of the logits. `next` are the
/// logits that will be read after them.
pub(super) fn score(
    logits: &[f32],
    width: usize,
    config: &RouterConfig,
    scores: &mut [f32],
    next: &[f32],
) -> f32 {
    let dtype = config.dtype;
    let mut most = None;
    let in_f32 = match config.score {
        Score::None => {
            scores.copy_from_slice(logits);
            true
        }
        Score::Softmax { f32 } => {
            rows::softmax(logits, width, scores, next);
            f32
        }
        Score::Sigmoid { f32 } => {
            most = Some(rows::sigmoid(logits, scores, next));
            f32
        }
        Score::SqrtSoftplus => {
            let round = |value| {
                if dtype == Format::Bf16 {
                    bf16_round(value)
                } else {
                    value
                }
            };
            scores.copy_from_slice(logits);
            math::softplus_slice(scores);
            for score in scores.iter_mut() {
                *score = round(*score).sqrt();
            }
            false
        }
    };
    if !in_f32 && dtype == Format::Bf16 {
        round_bf16(scores);
    }
    most.unwrap_or_else(|| rows::magnitude(logits))
}

/// Fills `experts` `[rows, k]` with the highest keys of every row of `width`, as if those of groups
/// that a token may not choose from were the fill; says in `scratch.allowed` which groups it may.
pub(super) fn top_k_in_groups(
    groups: &Groups,
    keys: &mut [f32],
    width: usize,
    k: usize,
    experts: &mut [u32],
    scratch: &mut GroupScratch,
    top: &mut TopScratch,
) {
    let allowed = &mut scratch.allowed;
    allowed.clear();
    allowed.resize(keys.len() / width * groups.n, false);
    let by_few = matches!(groups.by, GroupScore::Max | GroupScore::Sum2);
    if by_few && groups.n <= MAX_RUNS && k <= MAX_HIGHEST && width <= MAX_WIDTH {
        let runs = Runs {
            n: groups.n,
            keep: groups.keep,
            by_two: groups.by == GroupScore::Sum2,
            fill: groups.fill,
        };
        return highest_of_runs(keys, width, k, &runs, allowed, experts);
    }
    keep_groups(groups, keys, width, scratch, top);
    top_k_rows(keys, width, k, experts, top);
}

/// Ranks the groups of every row, and overwrites the keys of those that a token may not choose from.
fn keep_groups(
    groups: &Groups,
    keys: &mut [f32],
    width: usize,
    scratch: &mut GroupScratch,
    top: &mut TopScratch,
) {
    let GroupScratch {
        ranks,
        kept,
        allowed,
    } = scratch;
    let size = width / groups.n;
    for (row, allowed) in keys
        .chunks_exact_mut(width)
        .zip(allowed.chunks_exact_mut(groups.n))
    {
        ranks.clear();
        let members = row.chunks_exact(size);
        ranks.extend(members.map(|members| group_rank(groups.by, members, kept, top)));
        kept.clear();
        kept.resize(groups.keep, 0);
        top_k(ranks, kept, top);
        kept.iter()
            .for_each(|&group| allowed[group as usize] = true);
        for (members, allowed) in row.chunks_exact_mut(size).zip(allowed) {
            if !*allowed {
                members.fill(groups.fill);
            }
        }
    }
}

/// Normalises the weights of one token; `rounded` rounds each result to bf16.
pub(super) fn normalise(weights: &mut [f32], norm: Norm, rounded: bool) {
    let round = |value: f32| if rounded { bf16_round(value) } else { value };
    let sum = |weights: &[f32]| round(weights.iter().fold(0.0, |sum, weight| sum + weight));
    let divisor = match norm {
        Norm::None => return,
        Norm::Sum { eps } => round(sum(weights) + eps),
        Norm::ClampSum { min } => sum(weights).max(min),
        Norm::PNorm { p } => round(p_norm(weights, p)),
    };
    for weight in weights {
        *weight = round(*weight / divisor);
    }
}

/// `p` is 1, 2 or infinity: the configuration was checked.
fn p_norm(weights: &[f32], p: f32) -> f32 {
    let sizes = weights.iter().map(|weight| weight.abs());
    if p == 1.0 {
        sizes.fold(0.0, |sum, size| sum + size)
    } else if p == 2.0 {
        sizes.fold(0.0, |sum, size| sum + size * size).sqrt()
    } else {
        sizes.fold(0.0, f32::max)
    }
}
