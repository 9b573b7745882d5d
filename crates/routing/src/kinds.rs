//! The rules by which gates choose, one file for each family of them.
//!
//! All of them read logits `[T, E]` and, unless a row below says otherwise, weigh their choices as
//! [`Selector`] does: the steps of [`RouterConfig`](crate::RouterConfig) after the selection, over
//! the chosen experts. A choice's slot is its rank under the rule's key, ties to the lower expert.
//!
//! | kind | paper, and the system that is followed | by rows | choices |
//! |---|---|---|---|
//! | `topk` | Shazeer et al. 2017; every system | yes | `k` |
//! | `node-limited` | DeepSeek-V3 §2.1.2; Megatron-LM's `group_limited_topk` with nodes as groups | yes | `k` |
//! | `rsample` | Gumbel-top-k, Kool et al. 2019; DeepSpeed's `RSample` | yes | `k` |
//! | `sampled-second` | DeepSpeed's `top2_2nd_expert_sampling` | yes | 2 |
//! | `gshard-random`, `fastmoe-gshard` | GShard, Lepikhin et al. 2020; FastMoE's `gshard_gate.py` | yes | 1 or 2 |
//! | `sinkhorn` | Clark et al. 2022 (S-BASE); Megatron-LM's `sinkhorn` | no | `k` |
//! | `hash` | Roller et al. 2021; DeepSeek-V4's `tid2eid` | yes | `k` |
//! | `expert-choice` | Zhou et al. 2022 | no | 0 to E |
//! | `soft` | Puigcerver et al. 2023 | no | none |
//! | `topology` | FasterMoE, He et al. 2022; FastMoE's `faster_gate.py` | no | `k` |
//! | `forced-balance` | MegaBlocks' `uniform_expert_assignment` | yes | `k` |
//! | `forced-skew` | Megatron-LM's `moe_router_force_biased` | yes | `k` |
//! | `replay` | Megatron-LM's `router_replay.py` | yes | `k` |
//! | `top-p` | Huang et al. 2024 | yes | 1 to `k` |
//! | `threshold` | the top-any gate of DynMoE, Guo et al. 2024, with one threshold | yes | 1 to `k` |
//!
//! What each promises when a batch is taken apart or its tokens change places:
//!
//! * **Split.** Rules by rows give a batch the same bits in one call and in several, each with its
//!   [`GateContext::rows`]: noise and turns count tokens from the batch's first.
//! * **Permutation.** Rules by rows permute with their tokens, bit for bit, as far as nothing asks
//!   which token it is: noise, `forced-balance` and `replay` do. `expert-choice` permutes where no
//!   two tokens have the same score for an expert, `topology` where homes are given and permute
//!   too, and no two keys are equal. `sinkhorn` and `soft` add over tokens in order, so a
//!   permutation changes last bits.
//! * **Padding.** Row-wise rules route it like any token. `sinkhorn` and `topology` leave it out of
//!   the balance and choose for it by keys; `expert-choice` never takes it; in `soft` it has weight
//!   zero in every mixture.
//! * **Capacity.** `expert-choice` and `soft` never overflow: an expert's load is fixed beforehand.

mod choice;
mod domains;
mod forced;
mod hash;
mod ragged;
mod sampled;
mod sinkhorn;
mod soft;

use crate::{
    error::RoutingError,
    gate::{Choices, GateContext},
    noise::NoiseKey,
    select::{SelectScratch, Selector, TopScratch},
};

pub(crate) use choice::expert_choice;
pub use domains::home_of;
pub(crate) use domains::{node_limited, topology};
pub(crate) use forced::{forced_balance, forced_bias, replay};
pub use hash::{balanced_table, hash_expert};
pub(crate) use hash::{by_table, check_row, check_table, hash};
pub(crate) use ragged::{threshold, top_p};
pub(crate) use sampled::{random_second, sampled, sampled_second};
pub(crate) use sinkhorn::sinkhorn;
pub use soft::SlotMix;
pub(crate) use soft::soft_divisor;

/// Rows of logits to choose for.
pub(crate) struct Rows<'a> {
    pub(crate) selector: &'a Selector,
    /// `[tokens, E]`, all finite.
    pub(crate) logits: &'a [f32],
    pub(crate) tokens: usize,
    pub(crate) context: &'a GateContext<'a>,
}

/// Buffers of one row.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    select: SelectScratch,
    /// Keys of a rule's own.
    keys: Vec<f32>,
    top: TopScratch,
}

/// Where weights come from.
#[derive(Debug, Clone, Copy)]
enum Weigh {
    /// The router's steps after the selection.
    Scores,
    /// `1 / k`.
    Uniform,
}

// === impl Rows ===

impl<'a> Rows<'a> {
    fn experts(&self) -> usize {
        self.selector.config().experts
    }

    fn top_k(&self) -> usize {
        self.selector.config().top_k
    }

    fn row(&self, token: usize) -> &'a [f32] {
        &self.logits[token * self.experts()..(token + 1) * self.experts()]
    }

    /// The number of a row's token in the whole batch.
    fn number(&self, token: usize) -> u64 {
        self.context.first_token + token as u64
    }

    fn noise_key(&self) -> NoiseKey {
        NoiseKey {
            seed: self.context.seed,
            step: self.context.step,
            layer: self.context.layer,
        }
    }

    /// Something of the context that the kind cannot do without.
    fn missing(&self, field: &'static str, what: &str) -> RoutingError {
        let kind = self.selector.config().kind;
        let expected = format!("{what}, because {kind} asks for it");
        RoutingError::config(field, "none", expected)
    }

    /// `k` choices for each token, which `pick` makes: `(token, logits, experts, buffers)`.
    fn fixed(
        &self,
        weigh: Weigh,
        mut pick: impl FnMut(usize, &[f32], &mut [u32], &mut Buffers) -> Result<(), RoutingError>,
    ) -> Result<Choices, RoutingError> {
        let k = self.top_k();
        let mut experts = vec![0; self.tokens * k];
        let mut weights = vec![1.0 / k as f32; self.tokens * k];
        let mut buffers = Buffers::default();
        let slots = experts.chunks_exact_mut(k).zip(weights.chunks_exact_mut(k));
        for (token, (experts, weights)) in slots.enumerate() {
            let row = self.row(token);
            pick(token, row, experts, &mut buffers)?;
            if let Weigh::Scores = weigh {
                self.selector
                    .weigh_given(row, experts, weights, &mut buffers.select)
                    .map_err(|error| error.offset_token(token))?;
            }
        }
        Ok(Choices {
            tokens: self.tokens,
            experts,
            weights,
            offsets: None,
        })
    }

    /// Any number of choices for each token: `pick` lists them in slot order, and of these, once
    /// they are weighed, the first `keep(token, weights)` stay.
    fn ragged(
        &self,
        mut pick: impl FnMut(usize, &[f32], &mut Vec<u32>, &mut Buffers),
        keep: impl Fn(usize, &[f32]) -> usize,
    ) -> Result<Choices, RoutingError> {
        let mut choices = Choices {
            tokens: self.tokens,
            offsets: None,
            ..Choices::default()
        };
        let mut offsets = vec![0];
        let (mut chosen, mut weights) = (vec![], vec![]);
        let mut buffers = Buffers::default();
        for token in 0..self.tokens {
            let row = self.row(token);
            chosen.clear();
            pick(token, row, &mut chosen, &mut buffers);
            weights.clear();
            weights.resize(chosen.len(), 0.0);
            if !chosen.is_empty() {
                self.selector
                    .weigh_given(row, &chosen, &mut weights, &mut buffers.select)
                    .map_err(|error| error.offset_token(token))?;
            }
            let kept = keep(token, &weights);
            choices.experts.extend_from_slice(&chosen[..kept]);
            choices.weights.extend_from_slice(&weights[..kept]);
            let end = u32::try_from(choices.experts.len()).map_err(|_| {
                let expected = format!("at most {} in a batch", u32::MAX);
                RoutingError::config("choices", choices.experts.len(), expected)
            })?;
            offsets.push(end);
        }
        choices.offsets = Some(offsets);
        Ok(choices)
    }
}
