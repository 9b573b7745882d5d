//! Routers of published systems, by name. Each is a combination of settings; what a reader of
//! the paper may choose is an argument.

use expertmesh_kernels::Format;

use super::{
    GateNoise, GroupScore, Groups, HashBy, HashWeights, Jitter, Kind, LogitNoise, Logits, Norm,
    Post, Product, RouterConfig, Score, Select, WeightDtype,
};

// === impl RouterConfig ===

impl RouterConfig {
    /// Mixtral's router: softmax in f32, the `top_k` highest, divided by their sum, kept in f32.
    #[must_use]
    pub fn mixtral(experts: usize, top_k: usize, dtype: Format) -> Self {
        Self {
            experts,
            top_k,
            logits: Logits::Model,
            softcap: None,
            score: Score::Softmax { f32: true },
            select: Select::Score,
            groups: None,
            post: Post::None,
            norm: Norm::Sum { eps: 0.0 },
            scale: 1.0,
            weight_dtype: WeightDtype::F32,
            dtype,
            kind: Kind::TopK,
            product: Product::Linear,
            noise: GateNoise::default(),
            free: vec![],
        }
    }

    /// The router of OLMoE, Qwen2-MoE and Qwen3-MoE: as [`mixtral`](Self::mixtral), but divided
    /// by the sum only if `norm` (their `norm_topk_prob`), then rounded to the model's format.
    #[must_use]
    pub fn olmoe(experts: usize, top_k: usize, norm: bool, dtype: Format) -> Self {
        Self {
            norm: if norm {
                Norm::Sum { eps: 0.0 }
            } else {
                Norm::None
            },
            weight_dtype: WeightDtype::Model,
            ..Self::mixtral(experts, top_k, dtype)
        }
    }

    /// Softmax over the chosen logits alone, which is Mixtral's router in another order (Shazeer
    /// et al. 2017, equation 3; Megatron-LM without `moe_router_pre_softmax`; gpt-oss).
    #[must_use]
    pub fn topk_softmax(experts: usize, top_k: usize, dtype: Format) -> Self {
        Self {
            score: Score::None,
            select: Select::Logit,
            post: Post::Softmax { f32: true },
            norm: Norm::None,
            ..Self::mixtral(experts, top_k, dtype)
        }
    }

    /// Softmax first, and the probabilities of the chosen as they are (Megatron-LM's
    /// `moe_router_pre_softmax`).
    #[must_use]
    pub fn softmax_topk(experts: usize, top_k: usize, dtype: Format) -> Self {
        Self {
            norm: Norm::None,
            ..Self::mixtral(experts, top_k, dtype)
        }
    }

    /// Top-1: the expert of the highest probability, weighed by it (Switch, Fedus et al. 2021,
    /// equation 2).
    #[must_use]
    pub fn switch(experts: usize, dtype: Format) -> Self {
        Self {
            logits: Logits::F32,
            ..Self::softmax_topk(experts, 1, dtype)
        }
    }

    /// Top-2 with weights that sum to 1 (GShard, Lepikhin et al. 2020, algorithm 1, without its
    /// lottery: [`gshard_random`](Self::gshard_random)).
    #[must_use]
    pub fn gshard(experts: usize, dtype: Format) -> Self {
        Self {
            logits: Logits::F32,
            ..Self::mixtral(experts, 2, dtype)
        }
    }

    /// GShard with its lottery for the second expert.
    #[must_use]
    pub fn gshard_random(experts: usize, rule: super::SecondRule, dtype: Format) -> Self {
        Self {
            kind: Kind::RandomSecond(rule),
            ..Self::gshard(experts, dtype)
        }
    }

    /// Sigmoid scores, normalised over the chosen (Megatron-LM's
    /// `moe_router_score_function=sigmoid`).
    #[must_use]
    pub fn sigmoid(experts: usize, top_k: usize, dtype: Format) -> Self {
        Self {
            logits: Logits::F32,
            score: Score::Sigmoid { f32: true },
            norm: Norm::Sum { eps: 1e-20 },
            ..Self::mixtral(experts, top_k, dtype)
        }
    }

    /// Scores `sqrt(softplus(logit))`, normalised over the chosen and times 1.5, chosen with a
    /// selection bias (DeepSeek-V4).
    #[must_use]
    pub fn deepseek_v4(experts: usize, top_k: usize, dtype: Format) -> Self {
        Self {
            score: Score::SqrtSoftplus,
            select: Select::ScorePlusBias,
            norm: Norm::Sum { eps: 1e-20 },
            scale: 1.5,
            ..Self::mixtral(experts, top_k, dtype)
        }
    }

    /// DeepSeek-V2's router (`group_limited_greedy`): the `keep` best of `n` groups by their
    /// highest probability, weights times 16.
    #[must_use]
    pub fn deepseek_v2(experts: usize, top_k: usize, n: usize, keep: usize, dtype: Format) -> Self {
        Self {
            logits: Logits::F32,
            groups: Some(Groups {
                n,
                keep,
                by: GroupScore::Max,
                fill: 0.0,
                weights_from_masked: true,
            }),
            norm: Norm::None,
            scale: 16.0,
            ..Self::mixtral(experts, top_k, dtype)
        }
    }

    /// DeepSeek-V3's router: sigmoid, a selection bias, the `keep` best of `n` groups by their two
    /// highest keys (one group: no limit), weights normalised and times 2.5.
    #[must_use]
    pub fn deepseek_v3(experts: usize, top_k: usize, n: usize, keep: usize, dtype: Format) -> Self {
        let groups = Groups {
            n,
            keep,
            by: GroupScore::Sum2,
            fill: f32::NEG_INFINITY,
            weights_from_masked: false,
        };
        Self {
            select: Select::ScorePlusBias,
            groups: (n > 1).then_some(groups),
            scale: 2.5,
            ..Self::sigmoid(experts, top_k, dtype)
        }
    }

    /// Megatron-LM's group-limited router (`group_limited_topk`): groups ranked by the sum of
    /// their `top_k / keep` highest probabilities.
    #[must_use]
    pub fn group_limited(
        experts: usize,
        top_k: usize,
        n: usize,
        keep: usize,
        dtype: Format,
    ) -> Self {
        let by = GroupScore::SumTop {
            n: (top_k / keep.max(1)).max(1),
        };
        Self {
            groups: Some(Groups {
                n,
                keep,
                by,
                fill: f32::NEG_INFINITY,
                weights_from_masked: false,
            }),
            ..Self::softmax_topk(experts, top_k, dtype)
        }
    }

    /// Noisy top-k (Shazeer et al. 2017): learned noise, then softmax over the chosen logits.
    #[must_use]
    pub fn noisy_topk(experts: usize, top_k: usize, eps: f32, dtype: Format) -> Self {
        Self {
            noise: GateNoise {
                jitter: None,
                logits: LogitNoise::Learned { eps },
            },
            ..Self::topk_softmax(experts, top_k, dtype)
        }
    }

    /// Switch with jitter on its input, which the experts do not see.
    #[must_use]
    pub fn switch_jitter(experts: usize, eps: f32, dtype: Format) -> Self {
        Self {
            noise: GateNoise {
                jitter: Some(Jitter {
                    eps,
                    experts_see: false,
                }),
                logits: LogitNoise::None,
            },
            ..Self::switch(experts, dtype)
        }
    }

    /// Megatron-LM's Sinkhorn router: sigmoid scores for one choice, softmax for more, not
    /// normalised.
    #[must_use]
    pub fn sinkhorn(experts: usize, top_k: usize, in_eval: bool, dtype: Format) -> Self {
        let score = if top_k == 1 {
            Score::Sigmoid { f32: true }
        } else {
            Score::Softmax { f32: true }
        };
        Self {
            score,
            kind: Kind::Sinkhorn {
                tolerance: 1e-4,
                in_eval,
            },
            ..Self::softmax_topk(experts, top_k, dtype)
        }
    }

    /// Tutel's cosine router (`cosine_top.py`), whose softmax is over all experts and normalised
    /// over the chosen.
    #[must_use]
    pub fn cosine(experts: usize, top_k: usize, dtype: Format) -> Self {
        Self {
            logits: Logits::F32,
            product: Product::Cosine,
            ..Self::mixtral(experts, top_k, dtype)
        }
    }

    /// Experts by token id, with uniform weights.
    #[must_use]
    pub fn hash(experts: usize, top_k: usize, by: HashBy, dtype: Format) -> Self {
        Self {
            kind: Kind::Hash {
                by,
                weights: HashWeights::Uniform,
            },
            ..Self::mixtral(experts, top_k, dtype)
        }
    }

    /// Expert choice (Zhou et al. 2022): weights are the probabilities themselves.
    #[must_use]
    pub fn expert_choice(experts: usize, factor: f32, dtype: Format) -> Self {
        Self {
            kind: Kind::ExpertChoice { factor },
            ..Self::softmax_topk(experts, 1, dtype)
        }
    }

    /// Soft MoE (Puigcerver et al. 2023).
    #[must_use]
    pub fn soft(experts: usize, slots: usize, scale: Option<f32>, dtype: Format) -> Self {
        Self {
            logits: Logits::F32,
            kind: Kind::Soft {
                slots_per_expert: slots,
                scale,
            },
            ..Self::softmax_topk(experts, 1, dtype)
        }
    }
}
