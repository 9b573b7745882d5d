//! One row of any router, step by step in f64.

use expertmesh_kernels::Format;

use crate::{GroupScore, Norm, Post, RouterConfig, Score, Select, WeightDtype};

/// The nearest bf16, ties to even, by arithmetic on the value and not on its bits.
pub(super) fn to_bf16(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    // Eight bits of significand, fewer below the smallest normal number.
    let exponent = value.abs().log2().floor().max(-126.0);
    let unit = 2_f64.powf(exponent - 7.0);
    (value / unit).round_ties_even() * unit
}

fn softmax(values: &[f64]) -> Vec<f64> {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = values.iter().map(|value| (value - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|exp| exp / sum).collect()
}

fn sigmoid(value: f64) -> f64 {
    1.0 / (1.0 + (-value).exp())
}

/// Scores, selection keys (group limits applied) and which experts are in a kept group.
pub(super) struct Keys {
    pub(super) scores: Vec<f64>,
    pub(super) keys: Vec<f64>,
    pub(super) allowed: Vec<bool>,
}

pub(super) fn keys(config: &RouterConfig, logits: &[f32], bias: Option<&[f32]>) -> Keys {
    let bf16 = config.dtype == Format::Bf16;
    let round = |value: f64, f32: bool| if bf16 && !f32 { to_bf16(value) } else { value };
    let logits: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    let scores: Vec<f64> = match config.score {
        Score::None => logits.clone(),
        Score::Softmax { f32 } => softmax(&logits)
            .into_iter()
            .map(|p| round(p, f32))
            .collect(),
        Score::Sigmoid { f32 } => logits.iter().map(|&x| round(sigmoid(x), f32)).collect(),
        Score::SqrtSoftplus => logits
            .iter()
            .map(|&x| round(round(x.exp().ln_1p(), false).sqrt(), false))
            .collect(),
    };
    let mut keys = match config.select {
        Select::Score => scores.clone(),
        Select::Logit | Select::SecondByLogit => logits,
        Select::ScorePlusBias => {
            let bias = bias.expect("a router that selects by a bias has one");
            scores
                .iter()
                .zip(bias)
                .map(|(score, &bias)| score + f64::from(bias))
                .collect()
        }
    };
    let mut allowed = vec![true; config.experts];
    if let Some(groups) = config.groups {
        let size = config.experts / groups.n;
        let mut ranked: Vec<(f64, usize)> = (0..groups.n)
            .map(|group| {
                let mut members = keys[group * size..(group + 1) * size].to_vec();
                members.sort_by(|a, b| b.total_cmp(a));
                let rank = match groups.by {
                    GroupScore::Max => members[0],
                    GroupScore::Sum2 => members[0] + members[1],
                    GroupScore::SumTop { n } => members.iter().take(n).sum(),
                };
                (rank, group)
            })
            .collect();
        // A stable sort: equal ranks stay in the order of the groups.
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        for &(_, group) in &ranked[groups.keep..] {
            for expert in group * size..(group + 1) * size {
                keys[expert] = f64::from(groups.fill);
                allowed[expert] = false;
            }
        }
    }
    Keys {
        scores,
        keys,
        allowed,
    }
}

/// The weights of `experts`, in their order.
pub(super) fn weights(
    config: &RouterConfig,
    logits: &[f32],
    found: &Keys,
    experts: &[u32],
) -> Vec<f64> {
    let bf16 = config.dtype == Format::Bf16;
    let chosen: Vec<f64> = experts
        .iter()
        .map(|&e| f64::from(logits[e as usize]))
        .collect();
    let (mut weights, in_f32) = match config.post {
        Post::Softmax { f32 } => (softmax(&chosen), f32),
        Post::Sigmoid { f32 } => (chosen.iter().map(|&x| sigmoid(x)).collect(), f32),
        Post::SparseMixer { .. } => unreachable!("tests/pairs.rs has its reference"),
        Post::None => {
            let fill = config.groups.filter(|groups| groups.weights_from_masked);
            let weigh = |&expert: &u32| match fill {
                Some(groups) if !found.allowed[expert as usize] => f64::from(groups.fill),
                _ => found.scores[expert as usize],
            };
            let in_f32 = match config.score {
                Score::None => config.logits != crate::Logits::Model,
                Score::Softmax { f32 } | Score::Sigmoid { f32 } => f32,
                Score::SqrtSoftplus => false,
            };
            (experts.iter().map(weigh).collect(), in_f32)
        }
    };
    let round = |value: f64| {
        if bf16 && !in_f32 {
            to_bf16(value)
        } else {
            value
        }
    };
    weights
        .iter_mut()
        .for_each(|weight| *weight = round(*weight));
    let sum: f64 = weights.iter().sum();
    let divisor = match config.norm {
        Norm::None => 1.0,
        Norm::Sum { eps } => round(round(sum) + f64::from(eps)),
        Norm::ClampSum { min } => round(sum).max(f64::from(min)),
        Norm::PNorm { p: 1.0 } => round(weights.iter().map(|w| w.abs()).sum()),
        Norm::PNorm { p: 2.0 } => round(weights.iter().map(|w| w * w).sum::<f64>().sqrt()),
        Norm::PNorm { .. } => weights.iter().map(|w| w.abs()).fold(0.0, f64::max),
    };
    for weight in &mut weights {
        *weight = round(round(*weight / divisor) * f64::from(config.scale));
        if bf16 && config.weight_dtype == WeightDtype::Model {
            *weight = to_bf16(*weight);
        }
    }
    weights
}
