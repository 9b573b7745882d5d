//! From logits to choices: score, group limits, the highest keys, gate weights.
//!
//! Rows are independent of each other, so a caller may split a batch over threads and get the
//! same bits. Nothing is allocated for a token: buffers of one row's size live in a
//! [`SelectScratch`] that the caller keeps.

mod given;
mod highest;
mod pairs;
mod steps;

use expertmesh_kernels::{Format, math, round_bf16};

use crate::{
    config::{Post, RouterConfig, Select, WeightDtype},
    error::RoutingError,
};

pub(crate) use given::group_rank;
pub(crate) use highest::{TopScratch, top_k};
pub(crate) use steps::check_bias;
use steps::{GroupScratch, check_row, keep_groups, normalise};

/// A router without its product: everything that happens to logits.
#[derive(Debug, Clone)]
pub struct Selector {
    config: RouterConfig,
    /// `[E]`, there exactly when the configuration selects by score plus bias.
    bias: Option<Vec<f32>>,
}

/// Buffers of one row, reusable for any router and any number of rows.
#[derive(Debug, Clone, Default)]
pub struct SelectScratch {
    /// `[E]`: score of each expert.
    scores: Vec<f32>,
    /// `[E]`: selection key of each expert.
    keys: Vec<f32>,
    groups: GroupScratch,
    top: TopScratch,
}

// === impl Selector ===

impl Selector {
    /// `selection_bias` is `[E]`, and is given exactly when `config.select` is
    /// [`Select::ScorePlusBias`].
    ///
    /// # Errors
    /// What [`RouterConfig::validate`] refuses, and a bias that is missing, not asked for, of
    /// another length or not finite.
    pub fn new(
        config: RouterConfig,
        selection_bias: Option<Vec<f32>>,
    ) -> Result<Self, RoutingError> {
        config.validate()?;
        let wanted = config.select == Select::ScorePlusBias;
        match &selection_bias {
            Some(_) if !wanted => {
                let expected = "none, because the router selects without it";
                return Err(RoutingError::config("selection_bias", "a bias", expected));
            }
            None if wanted => {
                let expected = "one number for each expert, because the router selects by it";
                return Err(RoutingError::config("selection_bias", "none", expected));
            }
            Some(bias) => check_bias("selection_bias", bias, config.experts)?,
            None => {}
        }
        Ok(Self {
            config,
            bias: selection_bias,
        })
    }

    /// The shape of this router.
    #[must_use]
    pub fn config(&self) -> &RouterConfig {
        &self.config
    }

    /// Chooses for `tokens` rows: `logits` `[tokens, E]` → `experts` and `weights`
    /// `[tokens, k]`, slots in descending order of the selection key, ties to the lower expert.
    ///
    /// # Errors
    /// A slice whose length does not fit, a logit that is not finite, a weight that comes to
    /// no finite number. Tokens are counted from the first row handed over; what was written
    /// before the error stays.
    pub fn select(
        &self,
        logits: &[f32],
        tokens: usize,
        experts: &mut [u32],
        weights: &mut [f32],
        scratch: &mut SelectScratch,
    ) -> Result<(), RoutingError> {
        let (e, k) = (self.config.experts, self.config.top_k);
        RoutingError::check_length("logits", logits.len(), [tokens, e], "tokens x experts")?;
        RoutingError::check_length("experts", experts.len(), [tokens, k], "tokens x top_k")?;
        RoutingError::check_length("weights", weights.len(), [tokens, k], "tokens x top_k")?;
        let rows = logits.chunks_exact(e);
        let slots = experts.chunks_exact_mut(k).zip(weights.chunks_exact_mut(k));
        for (token, (row, (experts, weights))) in rows.zip(slots).enumerate() {
            check_row(token, row)?;
            self.choose(row, experts, scratch);
            self.weigh(row, experts, weights, scratch);
            if let Some(slot) = weights.iter().position(|weight| !weight.is_finite()) {
                return Err(RoutingError::Weight {
                    token,
                    slot,
                    found: weights[slot],
                });
            }
        }
        Ok(())
    }

    /// Fills `experts` and leaves the scores in `scratch`.
    fn choose(&self, row: &[f32], experts: &mut [u32], scratch: &mut SelectScratch) {
        let SelectScratch {
            scores,
            keys,
            groups: limits,
            top,
        } = scratch;
        self.fill_keys(row, scores, keys);
        if self.config.select == Select::SecondByLogit {
            return pairs::second_by_logit(scores, row, experts);
        }
        if let Some(groups) = &self.config.groups {
            keep_groups(groups, keys, limits, top);
            let members = keys.chunks_exact_mut(self.config.experts / groups.n);
            for (members, _) in members
                .zip(&limits.allowed)
                .filter(|(_, allowed)| !**allowed)
            {
                members.fill(groups.fill);
            }
        }
        top_k(keys, experts, top);
    }

    /// Weights of the chosen `experts`, from the scores that [`choose`](Self::choose) left.
    fn weigh(&self, row: &[f32], experts: &[u32], weights: &mut [f32], scratch: &SelectScratch) {
        let config = &self.config;
        if let Post::SparseMixer { eps } = config.post {
            pairs::sparse_mixer(row, experts, eps, config.dtype, weights);
        }
        let rounded = config.weights_in_bf16();
        let masked = config
            .groups
            .as_ref()
            .filter(|groups| groups.weights_from_masked);
        for (weight, &expert) in weights.iter_mut().zip(experts) {
            let expert = expert as usize;
            *weight = match (config.post, masked) {
                (Post::SparseMixer { .. }, _) => *weight,
                (Post::Softmax { .. }, _) => row[expert],
                (Post::Sigmoid { .. }, _) => math::sigmoid(row[expert]),
                (Post::None, Some(groups))
                    if !scratch.groups.allowed[expert / (config.experts / groups.n)] =>
                {
                    groups.fill
                }
                (Post::None, _) => scratch.scores[expert],
            };
        }
        if let Post::Softmax { .. } = config.post {
            math::softmax(weights);
        }
        if rounded {
            round_bf16(weights);
        }
        normalise(weights, config.norm, rounded);
        if config.scale != 1.0 {
            for weight in weights.iter_mut() {
                *weight *= config.scale;
            }
            if rounded {
                round_bf16(weights);
            }
        }
        if config.weight_dtype == WeightDtype::Model && config.dtype == Format::Bf16 {
            round_bf16(weights);
        }
    }
}
