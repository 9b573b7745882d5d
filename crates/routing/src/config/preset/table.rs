//! What each preset's name stands for.

use super::{PresetInfo, Shape, counts, preset, real, whole};
use crate::{
    admit::FreeExpert,
    config::{
        GateNoise, GroupScore, HashBy, HashWeights, Kind, LogitNoise, Logits, Norm, RouterConfig,
        Score, SecondRule, Select,
    },
};

/// A count among arguments, which were checked to be whole and not negative.
#[expect(clippy::cast_sign_loss, reason = "arguments are not negative")]
fn count(arg: f64) -> usize {
    arg as usize
}

fn with_kind(s: &Shape, kind: Kind) -> RouterConfig {
    RouterConfig {
        kind,
        ..RouterConfig::mixtral(s.e, s.k, s.dtype)
    }
}

fn with_free(s: &Shape, free: Vec<FreeExpert>) -> RouterConfig {
    let experts = s.e + free.len();
    RouterConfig {
        free,
        ..RouterConfig::softmax_topk(experts, s.k, s.dtype)
    }
}

/// Every preset.
pub(super) static PRESETS: &[PresetInfo] = &[
    preset(
        "topk",
        &[],
        "softmax, the k highest, normalised (Mixtral)",
        |s, _| RouterConfig::mixtral(s.e, s.k, s.dtype),
    ),
    preset(
        "softmax-topk",
        &[],
        "softmax before the selection, not normalised",
        |s, _| RouterConfig::softmax_topk(s.e, s.k, s.dtype),
    ),
    preset(
        "topk-softmax",
        &[],
        "softmax over the chosen logits",
        |s, _| RouterConfig::topk_softmax(s.e, s.k, s.dtype),
    ),
    preset("switch", &[], "top-1 by softmax (k = 1)", |s, _| {
        RouterConfig::switch(s.e, s.dtype)
    }),
    preset("gshard", &[], "top-2, normalised (k = 2)", |s, _| {
        RouterConfig::gshard(s.e, s.dtype)
    }),
    preset(
        "gshard-random",
        &[],
        "top-2 whose second is kept at random (k = 2)",
        |s, _| RouterConfig::gshard_random(s.e, SecondRule::Gshard, s.dtype),
    ),
    preset(
        "fastmoe-gshard",
        &[],
        "the same by FastMoE's rule (k = 2)",
        |s, _| RouterConfig::gshard_random(s.e, SecondRule::FastMoe, s.dtype),
    ),
    preset("sigmoid", &[], "sigmoid scores, normalised", |s, _| {
        RouterConfig::sigmoid(s.e, s.k, s.dtype)
    }),
    preset(
        "sqrt-softplus",
        &[],
        "sqrt(softplus) scores, normalised, no bias",
        |s, _| RouterConfig {
            score: Score::SqrtSoftplus,
            norm: Norm::Sum { eps: 1e-20 },
            ..RouterConfig::mixtral(s.e, s.k, s.dtype)
        },
    ),
    preset(
        "sigmoid-bias",
        &[],
        "sigmoid scores with a selection bias",
        |s, _| RouterConfig {
            scale: 1.0,
            ..RouterConfig::deepseek_v3(s.e, s.k, 1, 1, s.dtype)
        },
    ),
    preset(
        "deepseek-v2",
        &[counts("groups", 8.0), counts("kept groups", 3.0)],
        "softmax within the best groups, by their highest",
        |s, a| RouterConfig::deepseek_v2(s.e, s.k, count(a[0]), count(a[1]), s.dtype),
    ),
    preset(
        "deepseek-v3",
        &[counts("groups", 8.0), counts("kept groups", 4.0)],
        "sigmoid and a selection bias within the best groups, by their two highest",
        |s, a| RouterConfig::deepseek_v3(s.e, s.k, count(a[0]), count(a[1]), s.dtype),
    ),
    preset(
        "deepseek-v4",
        &[],
        "sqrt(softplus) scores with a selection bias",
        |s, _| RouterConfig::deepseek_v4(s.e, s.k, s.dtype),
    ),
    preset(
        "group-limited",
        &[counts("groups", 8.0), counts("kept groups", 4.0)],
        "softmax within the best groups, by their k / kept highest (Megatron-LM)",
        |s, a| RouterConfig::group_limited(s.e, s.k, count(a[0]), count(a[1]), s.dtype),
    ),
    preset(
        "node-limited",
        &[counts("kept domains", 2.0)],
        "softmax within the best domains, by their k / kept highest",
        |s, a| {
            let keep = count(a[0]);
            let n = (s.k / keep.max(1)).max(1);
            let by = GroupScore::SumTop { n };
            with_kind(s, Kind::NodeLimited { keep, by })
        },
    ),
    preset(
        "noisy",
        &[real("eps", 0.01)],
        "learned noise on the logits (Shazeer, FastMoE)",
        |s, a| RouterConfig::noisy_topk(s.e, s.k, a[0] as f32, s.dtype),
    ),
    preset(
        "tutel-noise",
        &[real("scale", 1.0)],
        "noise of deviation scale / E",
        |s, a| {
            let logits = LogitNoise::Normal { scale: a[0] as f32 };
            RouterConfig {
                noise: GateNoise {
                    jitter: None,
                    logits,
                },
                logits: Logits::F32,
                ..RouterConfig::mixtral(s.e, s.k, s.dtype)
            }
        },
    ),
    preset(
        "switch-jitter",
        &[real("eps", 0.01)],
        "switch with jitter on its input (k = 1)",
        |s, a| RouterConfig::switch_jitter(s.e, a[0] as f32, s.dtype),
    ),
    preset(
        "rsample",
        &[],
        "a sample of the softmax (DeepSpeed's RSample)",
        |s, _| RouterConfig {
            norm: Norm::None,
            ..with_kind(s, Kind::Sampled)
        },
    ),
    preset(
        "sampled-second",
        &[],
        "top-2 whose second is sampled (k = 2)",
        |s, _| RouterConfig {
            kind: Kind::SampledSecond,
            ..RouterConfig::gshard(s.e, s.dtype)
        },
    ),
    preset(
        "sinkhorn",
        &[],
        "balanced over the batch, in training and after",
        |s, _| RouterConfig::sinkhorn(s.e, s.k, true, s.dtype),
    ),
    preset(
        "cosine",
        &[],
        "cosine of projected row and expert (Tutel)",
        |s, _| RouterConfig::cosine(s.e, s.k, s.dtype),
    ),
    preset(
        "hash",
        &[whole("seed", 0.0)],
        "by a hash of the token id, uniform weights",
        |s, a| {
            let seed = count(a[0]) as u64;
            RouterConfig::hash(s.e, s.k, HashBy::Function { seed }, s.dtype)
        },
    ),
    preset(
        "hash-table",
        &[],
        "by a table of token ids, weighed by score (DeepSeek-V4)",
        |s, _| {
            let (by, weights) = (HashBy::Table, HashWeights::Scores);
            RouterConfig {
                kind: Kind::Hash { by, weights },
                select: Select::Score,
                ..RouterConfig::deepseek_v4(s.e, s.k, s.dtype)
            }
        },
    ),
    preset(
        "hash-balanced",
        &[],
        "by a table that balances token ids, uniform weights",
        |s, _| RouterConfig::hash(s.e, s.k, HashBy::Table, s.dtype),
    ),
    preset(
        "expert-choice",
        &[real("factor", 2.0)],
        "experts choose tokens",
        |s, a| RouterConfig::expert_choice(s.e, a[0] as f32, s.dtype),
    ),
    preset(
        "soft",
        &[counts("slots", 1.0)],
        "slots are mixtures of all tokens",
        |s, a| RouterConfig::soft(s.e, count(a[0]), None, s.dtype),
    ),
    preset(
        "topology",
        &[real("outgoing", 0.14)],
        "few tokens leave their domain (FasterMoE)",
        |s, a| {
            let outgoing = a[0] as f32;
            with_kind(s, Kind::Topology { outgoing })
        },
    ),
    preset(
        "forced-balance",
        &[],
        "experts in turn, for benchmarks",
        |s, _| with_kind(s, Kind::ForcedBalance),
    ),
    preset(
        "forced-skew",
        &[real("std", 1.0)],
        "one random bias for all tokens, for benchmarks",
        |s, a| with_kind(s, Kind::ForcedSkew { std: a[0] as f32 }),
    ),
    preset("replay", &[], "the choices of an earlier run", |s, _| {
        with_kind(s, Kind::Replay)
    }),
    preset(
        "top-p",
        &[real("p", 0.4)],
        "as many experts as reach a score mass",
        |s, a| RouterConfig {
            norm: Norm::None,
            ..with_kind(s, Kind::TopP { p: a[0] as f32 })
        },
    ),
    preset(
        "threshold",
        &[real("least", 0.1)],
        "every expert that scores enough",
        |s, a| RouterConfig {
            norm: Norm::None,
            ..with_kind(s, Kind::Threshold { least: a[0] as f32 })
        },
    ),
    preset(
        "null",
        &[counts("null experts", 1.0)],
        "null experts after those of --experts",
        |s, a| with_free(s, vec![FreeExpert::Null; count(a[0])]),
    ),
    preset(
        "longcat",
        &[counts("identity experts", 1.0)],
        "identity experts after those of --experts, a selection bias",
        |s, a| RouterConfig {
            logits: Logits::F32,
            select: Select::ScorePlusBias,
            scale: 6.0,
            ..with_free(s, vec![FreeExpert::Identity; count(a[0])])
        },
    ),
    preset(
        "moe++",
        &[counts("constant experts", 2.0)],
        "a null, an identity and constant experts after those of --experts",
        |s, a| {
            let mut free = vec![FreeExpert::Null, FreeExpert::Identity];
            free.resize(2 + count(a[0]), FreeExpert::Constant);
            with_free(s, free)
        },
    ),
];
