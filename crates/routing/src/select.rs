//! From logits to choices: score, group limits, the highest keys, gate weights.
//!
//! Rows are independent of each other, so a caller may split a batch over threads and get the
//! same bits. A few rows go through each step together, as many as fit the first cache. Nothing is
//! allocated for a token: buffers of these rows live in a [`SelectScratch`] that the caller keeps.

mod buffer;
mod given;
mod highest;
mod pairs;
mod steps;

use expertmesh_kernels::{
    Format, math, round_bf16,
    rows::{Shares, add_bias, magnitude, shares, sigmoid_and_sum},
};

use crate::{
    bias::BiasUpdate,
    config::{Groups, Norm, Post, RouterConfig, Score, Select, WeightDtype},
    error::RoutingError,
};

pub(crate) use buffer::Buffer;
pub(crate) use given::group_rank;
use highest::top_k_rows;
pub(crate) use highest::{TopScratch, top_k};
pub(crate) use steps::check_bias;
use steps::{GroupScratch, first_not_finite, normalise, score, top_k_in_groups};

/// Logits of the rows that go through the steps together, if a row is not longer: with their scores
/// and keys, and the logits after them, 32 KiB: a first cache.
const BLOCK: usize = 2048;

/// A router without its product: everything that happens to logits.
#[derive(Debug, Clone)]
pub struct Selector {
    config: RouterConfig,
    /// `[E]`, there exactly when the configuration selects by score plus bias.
    bias: Option<Vec<f32>>,
}

/// Buffers of a few rows, reusable for any router and any number of rows.
#[derive(Debug, Clone, Default)]
pub struct SelectScratch {
    /// `[rows, E]`: score of each expert.
    scores: Buffer,
    /// `[rows, E]`: selection key of each expert.
    keys: Buffer,
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

    /// The same tensors under another configuration.
    ///
    /// # Errors
    /// As [`Selector::new`].
    pub(crate) fn reconfigured(self, config: RouterConfig) -> Result<Self, RoutingError> {
        Self::new(config, self.bias)
    }

    /// The same selector after `update` has moved its bias by `loads`.
    pub(crate) fn with_moved_bias(
        &self,
        update: &BiasUpdate,
        loads: &[u64],
    ) -> Result<Self, RoutingError> {
        let mut moved = self.clone();
        let Some(bias) = &mut moved.bias else {
            let expected = "score plus bias, which is what the update moves";
            let held = format!("{:?}", self.config.select);
            return Err(RoutingError::config("select", held, expected));
        };
        update.apply(bias, loads)?;
        Ok(moved)
    }

    pub(crate) fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
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
        let rows = (BLOCK / e).max(1);
        let blocks = logits.chunks(rows * e);
        let mut following = blocks.clone().skip(1);
        let slots = experts
            .chunks_mut(rows * k)
            .zip(weights.chunks_mut(rows * k));
        for (block, (logits, (experts, weights))) in blocks.zip(slots).enumerate() {
            let next = following.next().unwrap_or_default();
            let most = self.score(logits, scratch, next);
            let bad = first_not_finite(logits, most);
            // Rows before a bad one have their answers, or their errors, as if they were alone.
            let good = bad.map_or(logits.len(), |at| at - at % e) / e;
            let (experts, weights) = (&mut experts[..good * k], &mut weights[..good * k]);
            scratch.scores.truncate(good * e);
            scratch.keys.truncate(good * e);
            self.choose(&logits[..good * e], experts, scratch);
            self.weigh(&logits[..good * e], experts, weights, scratch);
            let token = block * rows;
            if let Some(choice) = first_not_finite(weights, magnitude(weights)) {
                return Err(RoutingError::Weight {
                    token: token + choice / k,
                    slot: choice % k,
                    found: weights[choice],
                });
            }
            if let Some(at) = bad {
                return Err(RoutingError::Logit {
                    token: token + at / e,
                    expert: at % e,
                    found: logits[at],
                });
            }
        }
        Ok(())
    }

    /// Leaves the scores of a few rows in `scratch`, with their keys if there is a bias, and returns
    /// the magnitude of the logits. `next` are the logits after them.
    fn score(&self, logits: &[f32], scratch: &mut SelectScratch, next: &[f32]) -> f32 {
        let SelectScratch { scores, keys, .. } = scratch;
        let scores = scores.place(logits.len(), logits);
        let Some(bias) = &self.bias else {
            return score(logits, self.config.experts, &self.config, scores, next);
        };
        let keys = keys.place(logits.len(), logits);
        if self.config.score == (Score::Sigmoid { f32: true }) {
            return sigmoid_and_sum(logits, bias, scores, keys, next);
        }
        let most = score(logits, self.config.experts, &self.config, scores, next);
        // In the finite range, because two infinite keys of a group would add up to NaN.
        add_bias(scores, bias, keys);
        most
    }

    /// Fills the `experts` of a few rows, whose scores are in `scratch`, with their keys if there is
    /// a bias.
    fn choose(&self, logits: &[f32], experts: &mut [u32], scratch: &mut SelectScratch) {
        let SelectScratch {
            scores,
            keys,
            groups: limits,
            top,
        } = scratch;
        let (e, k) = (self.config.experts, self.config.top_k);
        let unlimited = match self.config.select {
            Select::Logit => logits,
            Select::Score | Select::ScorePlusBias => scores,
            Select::SecondByLogit => {
                let rows = scores.chunks_exact(e).zip(logits.chunks_exact(e));
                for ((scores, logits), experts) in rows.zip(experts.chunks_exact_mut(k)) {
                    pairs::second_by_logit(scores, logits, experts);
                }
                return;
            }
        };
        if self.bias.is_none() && self.config.groups.is_none() {
            return top_k_rows(unlimited, e, k, experts, top);
        }
        if self.bias.is_none() {
            keys.place(unlimited.len(), unlimited)
                .copy_from_slice(unlimited);
        }
        match &self.config.groups {
            Some(groups) => top_k_in_groups(groups, keys, e, k, experts, limits, top),
            None => top_k_rows(keys, e, k, experts, top),
        }
    }

    /// Weights of the chosen `experts` of a few rows, whose scores are in `scratch`.
    fn weigh(&self, logits: &[f32], experts: &[u32], weights: &mut [f32], scratch: &SelectScratch) {
        let (e, k) = (self.config.experts, self.config.top_k);
        if let Some(of) = self.shares() {
            return shares(&scratch.scores, e, experts, k, &of, weights);
        }
        let scores = scratch.scores.chunks_exact(e);
        let rows = logits.chunks_exact(e).zip(scores).enumerate();
        let slots = experts.chunks_exact(k).zip(weights.chunks_exact_mut(k));
        for ((row, (logits, scores)), (experts, weights)) in rows.zip(slots) {
            let allowed = |groups: &Groups, expert: usize| {
                scratch.groups.allowed[row * groups.n + expert / (e / groups.n)]
            };
            self.weigh_row(logits, scores, allowed, experts, weights);
        }
    }

    /// How weights are shares of the scores, where nothing else is done to them.
    fn shares(&self) -> Option<Shares> {
        let config = &self.config;
        let masked = config.groups.as_ref().map(|by| by.weights_from_masked);
        let rounded = config.weights_in_bf16()
            || config.weight_dtype == WeightDtype::Model && config.dtype == Format::Bf16;
        let scale = config.scale;
        match (config.post, config.norm) {
            (Post::None, Norm::Sum { eps }) if !rounded && masked != Some(true) => {
                Some(Shares { eps, scale })
            }
            _ => None,
        }
    }

    /// Weights of one row; `allowed` says whether an expert is in a group that was kept.
    fn weigh_row(
        &self,
        row: &[f32],
        scores: &[f32],
        allowed: impl Fn(&Groups, usize) -> bool,
        experts: &[u32],
        weights: &mut [f32],
    ) {
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
                (Post::None, Some(groups)) if !allowed(groups, expert) => groups.fill,
                (Post::None, _) => scores[expert],
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
