//! The steps of a selection, each over one row.

use expertmesh_kernels::{Format, bf16_round, math, round_bf16};

use super::{
    given::group_rank,
    highest::{TopScratch, top_k},
};
use crate::{
    config::{Groups, Norm, RouterConfig, Score},
    error::RoutingError,
};

/// Buffers of one ranking of groups.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupScratch {
    ranks: Vec<f32>,
    kept: Vec<u32>,
    /// Whether a token may choose from the group; what [`keep_groups`] finds.
    pub(super) allowed: Vec<bool>,
}

// === impl GroupScratch ===

impl GroupScratch {
    /// As if no group had been ruled out.
    pub(super) fn allow_all(&mut self, config: &RouterConfig) {
        self.allowed.clear();
        let groups = config.groups.as_ref().map_or(0, |groups| groups.n);
        self.allowed.resize(groups, true);
    }
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

/// Refuses a row with a logit that is infinite or not a number.
pub(super) fn check_row(token: usize, row: &[f32]) -> Result<(), RoutingError> {
    // Without an early exit or a branch, so that it is a few vector instructions: adding one to
    // a full exponent, which only infinities and NaN have, carries into the sign.
    let carry = |logit: &f32| (logit.to_bits() & 0x7fff_ffff) + 0x0080_0000;
    if row.iter().fold(0, |any, logit| any | carry(logit)) >> 31 == 0 {
        return Ok(());
    }
    let expert = row
        .iter()
        .position(|logit| !logit.is_finite())
        .unwrap_or_default();
    Err(RoutingError::Logit {
        token,
        expert,
        found: row[expert],
    })
}

/// Turns a row of logits into scores in place.
pub(super) fn score(row: &mut [f32], score: Score, dtype: Format) {
    let in_f32 = match score {
        Score::None => return,
        Score::Softmax { f32 } => {
            math::softmax(row);
            f32
        }
        Score::Sigmoid { f32 } => {
            math::sigmoid_slice(row);
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
            row.iter_mut()
                .for_each(|value| *value = round(math::softplus(*value)).sqrt());
            false
        }
    };
    if !in_f32 && dtype == Format::Bf16 {
        round_bf16(row);
    }
}

/// Ranks the groups, and says in `scratch.allowed` which of them a token may choose from.
pub(super) fn keep_groups(
    groups: &Groups,
    keys: &[f32],
    scratch: &mut GroupScratch,
    top: &mut TopScratch,
) {
    let GroupScratch {
        ranks,
        kept,
        allowed,
    } = scratch;
    ranks.clear();
    let members = keys.chunks_exact(keys.len() / groups.n);
    ranks.extend(members.map(|members| group_rank(groups.by, members, kept, top)));
    kept.clear();
    kept.resize(groups.keep, 0);
    top_k(ranks, kept, top);
    allowed.clear();
    allowed.resize(groups.n, false);
    kept.iter()
        .for_each(|&group| allowed[group as usize] = true);
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
