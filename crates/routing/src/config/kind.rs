//! Which rule chooses, from which logits, and under which noise.

use std::fmt;

use super::GroupScore;

/// The rule by which choices are made. Each has its formula, its source and its promises in
/// [`kinds`](crate::kinds).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Kind {
    /// The `top_k` highest selection keys: [`Selector`](crate::Selector).
    #[default]
    TopK,
    /// The `top_k` highest keys among the experts of the token's `keep` best domains.
    NodeLimited {
        /// Domains that a token may choose from.
        keep: usize,
        /// How domains are ranked.
        by: GroupScore,
    },
    /// The `top_k` highest of logit + Gumbel noise: a sample of the softmax without replacement.
    Sampled,
    /// The first expert by key, the second by logit + Gumbel noise; `top_k` is 2.
    SampledSecond,
    /// The two highest keys, the second kept by a lottery of its weight; `top_k` is 2.
    RandomSecond(SecondRule),
    /// The `top_k` highest entries of the batch's logits after Sinkhorn's normalisation.
    Sinkhorn {
        /// Ends the iteration: the mean change of the column factors.
        tolerance: f32,
        /// Whether the batch is balanced outside training too; if not, keys choose there.
        in_eval: bool,
    },
    /// Experts follow from the token's id alone.
    Hash {
        /// How they follow.
        by: HashBy,
        /// What they weigh.
        weights: HashWeights,
    },
    /// Each expert takes the `ceil(T · factor / E)` tokens that score highest.
    ExpertChoice {
        /// The mean number of experts of a token.
        factor: f32,
    },
    /// No choices: every slot of every expert is a mixture of all tokens.
    Soft {
        /// Slots of each expert, `p`.
        slots_per_expert: usize,
        /// Normalises rows and slot vectors, and scales their product.
        scale: Option<f32>,
    },
    /// Keys choose, but only a share of a domain's tokens may choose outside it.
    Topology {
        /// That share, 0 to 1.
        outgoing: f32,
    },
    /// Experts in turn, whatever the logits say.
    ForcedBalance,
    /// One random bias for each expert on the logits of all tokens.
    ForcedSkew {
        /// Its standard deviation. Drawn for each step, or once for the layer when negative.
        std: f32,
    },
    /// The choices of an earlier run.
    Replay,
    /// The fewest experts whose scores reach `p` together, `top_k` at most.
    TopP {
        /// Score mass that is enough.
        p: f32,
    },
    /// The experts that score above `least`, `top_k` at most and one at least.
    Threshold {
        /// Score that must be exceeded.
        least: f32,
    },
}

/// When the second expert of [`Kind::RandomSecond`] is kept, with `w₂` its share of the two
/// weights and `u` uniform in `[0, 1)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecondRule {
    /// If `2 w₂ > u` (GShard, algorithm 1).
    Gshard,
    /// If `2 w₂ >= u` (FastMoE's `gshard_gate.py`).
    FastMoe,
}

/// How [`Kind::Hash`] finds experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashBy {
    /// By [`hash_expert`](crate::kinds::hash_expert).
    Function {
        /// Another seed gives another assignment.
        seed: u64,
    },
    /// By the gate's table: [`Gate::with_token_table`](crate::Gate::with_token_table).
    Table,
}

/// What the experts of [`Kind::Hash`] weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashWeights {
    /// `1 / k` each.
    Uniform,
    /// What the router makes of their logits.
    Scores,
}

/// What gives logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Product {
    /// `x Wᵀ`.
    #[default]
    Linear,
    /// The scaled cosine of projected row and expert vector:
    /// [`Gate::with_cosine`](crate::Gate::with_cosine).
    Cosine,
}

/// What is random about a gate's logits, in training only.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GateNoise {
    /// Factors on the gate's input.
    pub jitter: Option<Jitter>,
    /// Noise on the logits.
    pub logits: LogitNoise,
}

/// Every element of a token row times its own `U(1 - eps, 1 + eps)` (Switch, Fedus et al. 2021;
/// DeepSpeed's `multiplicative_jitter`, Megatron's `moe_input_jitter_eps`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter {
    /// How far factors are from 1 at most; below 1.
    pub eps: f32,
    /// Whether experts compute the jittered rows as well:
    /// [`Gate::expert_rows`](crate::Gate::expert_rows).
    pub experts_see: bool,
}

/// Noise that is added to logits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum LogitNoise {
    /// None.
    #[default]
    None,
    /// `N(0, 1) · (softplus(x W_noiseᵀ) + eps)`: Shazeer et al. 2017, equation 4, where `eps` is
    /// 0; FastMoE's `noisy_gate.py` adds 1e-2.
    Learned {
        /// The least standard deviation.
        eps: f32,
    },
    /// `N(0, 1) · scale / E` (Tutel's `gate_noise`).
    Normal {
        /// The standard deviation, times the number of experts.
        scale: f32,
    },
}

// === impl Kind ===

impl Kind {
    /// Its name in messages, and in [`RouterPreset`](crate::RouterPreset) where there is one.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::TopK => "topk",
            Self::NodeLimited { .. } => "node-limited",
            Self::Sampled => "rsample",
            Self::SampledSecond => "sampled-second",
            Self::RandomSecond(SecondRule::Gshard) => "gshard-random",
            Self::RandomSecond(SecondRule::FastMoe) => "fastmoe-gshard",
            Self::Sinkhorn { .. } => "sinkhorn",
            Self::Hash { .. } => "hash",
            Self::ExpertChoice { .. } => "expert-choice",
            Self::Soft { .. } => "soft",
            Self::Topology { .. } => "topology",
            Self::ForcedBalance => "forced-balance",
            Self::ForcedSkew { .. } => "forced-skew",
            Self::Replay => "replay",
            Self::TopP { .. } => "top-p",
            Self::Threshold { .. } => "threshold",
        }
    }

    /// Whether a token's choices do not depend on the other tokens of its batch, so that blocks
    /// of the batch may be routed apart.
    #[must_use]
    pub fn is_row_wise(&self) -> bool {
        !matches!(
            self,
            Self::Sinkhorn { .. }
                | Self::ExpertChoice { .. }
                | Self::Soft { .. }
                | Self::Topology { .. }
        )
    }

    /// Whether [`Selector::select`](crate::Selector::select) makes the choices.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::TopK | Self::ForcedSkew { .. })
    }

    /// Whether tokens differ in how many choices they have.
    #[must_use]
    pub fn is_ragged(&self) -> bool {
        matches!(
            self,
            Self::RandomSecond(_)
                | Self::ExpertChoice { .. }
                | Self::TopP { .. }
                | Self::Threshold { .. }
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
