//! The parts of a selection for rules that choose by something else than the keys.

use super::{
    Buffer, SelectScratch, Selector,
    highest::{TopScratch, top_k},
    steps::{first_not_finite, score},
};
use expertmesh_kernels::rows::{magnitude, two_highest};

use crate::{
    config::{GroupScore, Select},
    error::RoutingError,
};

// === impl Selector ===

impl Selector {
    /// Refuses logits that are not finite.
    pub(crate) fn check_logits(&self, logits: &[f32]) -> Result<(), RoutingError> {
        let experts = self.config.experts;
        match first_not_finite(logits, magnitude(logits)) {
            None => Ok(()),
            Some(at) => Err(RoutingError::Logit {
                token: at / experts,
                expert: at % experts,
                found: logits[at],
            }),
        }
    }

    /// Selection keys of a row, before group limits; the scores stay in `scratch`.
    pub(crate) fn keys<'s>(&self, row: &[f32], scratch: &'s mut SelectScratch) -> &'s mut [f32] {
        let SelectScratch { scores, keys, .. } = scratch;
        self.fill_keys(row, scores, keys)
    }

    fn fill_keys<'k>(
        &self,
        row: &[f32],
        scores: &mut Buffer,
        keys: &'k mut Buffer,
    ) -> &'k mut [f32] {
        self.fill_scores(row, scores);
        let keys = keys.place(row.len(), row);
        match (self.config.select, &self.bias) {
            (Select::Logit, _) => keys.copy_from_slice(row),
            (Select::ScorePlusBias, Some(bias)) => {
                // Clamped, because two infinite keys of a group would add up to NaN.
                for ((key, score), bias) in keys.iter_mut().zip(scores.iter()).zip(bias) {
                    *key = (score + bias).clamp(f32::MIN, f32::MAX);
                }
            }
            (Select::Score | Select::SecondByLogit, _) | (Select::ScorePlusBias, None) => {
                keys.copy_from_slice(scores);
            }
        }
        keys
    }

    /// Scores of a row, in place of what `scores` held.
    pub(crate) fn fill_scores(&self, row: &[f32], scores: &mut Buffer) {
        let scores = scores.place(row.len(), row);
        score(row, row.len(), &self.config, scores, &[]);
    }

    /// Weights of any `experts` of a row, as if the keys had chosen them.
    ///
    /// # Errors
    /// A weight that comes to no finite number; its token is 0, the row itself.
    pub(crate) fn weigh_given(
        &self,
        row: &[f32],
        experts: &[u32],
        weights: &mut [f32],
        scratch: &mut SelectScratch,
    ) -> Result<(), RoutingError> {
        self.fill_scores(row, &mut scratch.scores);
        // As if no group had been ruled out.
        self.weigh_row(row, &scratch.scores, |_, _| true, experts, weights);
        match weights.iter().position(|weight| !weight.is_finite()) {
            Some(slot) => Err(RoutingError::Weight {
                token: 0,
                slot,
                found: weights[slot],
            }),
            None => Ok(()),
        }
    }
}

/// The rank of a group by its members' keys; `chosen` and `top` are buffers.
pub(crate) fn group_rank(
    by: GroupScore,
    members: &[f32],
    chosen: &mut Vec<u32>,
    top: &mut TopScratch,
) -> f32 {
    if let GroupScore::SumTop { n } = by {
        chosen.clear();
        chosen.resize(n.min(members.len()), 0);
        top_k(members, chosen, top);
        let keys = chosen.iter().map(|&member| members[member as usize]);
        return keys.fold(0.0, |sum, key| sum + key);
    }
    let (first, second) = two_highest(members);
    match by {
        GroupScore::Sum2 if members.len() > 1 => first + second,
        _ => first,
    }
}
