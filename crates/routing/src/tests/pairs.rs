//! The two routers that make exactly two choices.

use expertmesh_kernels::{Format, bf16_round};

use super::{reference::to_bf16, rng, uniform};
use crate::{
    GroupScore, Groups, Logits, Norm, Post, RouterConfig, Score, Select, SelectScratch, Selector,
    WeightDtype,
};

fn nllb(experts: usize, dtype: Format) -> RouterConfig {
    RouterConfig {
        logits: Logits::F32,
        score: Score::Softmax { f32: false },
        select: Select::SecondByLogit,
        norm: Norm::None,
        weight_dtype: WeightDtype::Model,
        ..RouterConfig::mixtral(experts, 2, dtype)
    }
}

fn phimoe(experts: usize, eps: f32, dtype: Format) -> RouterConfig {
    RouterConfig {
        score: Score::None,
        select: Select::Logit,
        post: Post::SparseMixer { eps },
        norm: Norm::None,
        weight_dtype: WeightDtype::Model,
        ..RouterConfig::mixtral(experts, 2, dtype)
    }
}

fn select(config: &RouterConfig, logits: &[f32]) -> (Vec<u32>, Vec<f32>) {
    let tokens = logits.len() / config.experts;
    let selector = Selector::new(config.clone(), None).unwrap();
    let (mut experts, mut weights) = (vec![u32::MAX; 2 * tokens], vec![f32::NAN; 2 * tokens]);
    let mut scratch = SelectScratch::default();
    selector
        .select(logits, tokens, &mut experts, &mut weights, &mut scratch)
        .unwrap();
    (experts, weights)
}

#[test]
fn the_first_choice_is_by_score_and_the_second_by_logit() {
    // In bf16 the two scores are both 1/2, a tie for expert 0; the logits still tell them apart.
    let logits = [0.0, 0.001, -9.0];
    assert_eq!(select(&nllb(3, Format::Bf16), &logits).0, [0, 1]);
    assert_eq!(select(&nllb(3, Format::F32), &logits).0, [1, 0]);
    // A tie among logits goes to the lower expert, the first choice left out.
    assert_eq!(select(&nllb(3, Format::F32), &[2.0, 2.0, 2.0]).0, [0, 1]);
    assert_eq!(select(&nllb(2, Format::F32), &[-3.0, -4.0]).0, [0, 1]);
    let (_, weights) = select(&nllb(2, Format::F32), &[0.0, 0.0]);
    assert_eq!(weights, [0.5, 0.5]);
}

#[test]
fn a_sparse_mixer_by_hand() {
    // Near the best (10): 9.9 at a distance of 0.01, not 9.7 at 0.03. Near the second (9.9): 9.7
    // at 0.0202, which is too far for eps = 0.01 and near enough for 0.011.
    let logits = [9.7, 10.0, 9.9, -20.0];
    let near = |distance: f64| 1.0 / (1.0 + (-distance).exp());
    let close = |got: f32, expected: f64| (f64::from(got) - expected).abs() < 1e-6;
    let (experts, weights) = select(&phimoe(4, 0.01, Format::F32), &logits);
    assert_eq!(experts, [1, 2]);
    assert!(
        close(weights[0], near(0.1)) && close(weights[1], 1.0),
        "{weights:?}"
    );
    let (_, weights) = select(&phimoe(4, 0.011, Format::F32), &logits);
    assert!(close(weights[1], near(0.2)), "{weights:?}");
    // The distance is relative to the larger of the best and an expert's own size: -20 makes
    // 30/20 of it.
    let (_, weights) = select(&phimoe(4, 0.75, Format::F32), &logits);
    let all = [0.0, 0.1, 0.3, 30.0_f64];
    let sum: f64 = all.iter().map(|distance| (-distance).exp()).sum();
    assert!(close(weights[0], 1.0 / sum), "{weights:?}");
    // All zero: 0/0 is no distance, every expert is near.
    let (_, weights) = select(&phimoe(4, 0.01, Format::F32), &[0.0; 4]);
    assert!(
        close(weights[0], 0.25) && close(weights[1], 1.0 / 3.0),
        "{weights:?}"
    );
}

/// The two masked softmaxes as they are written in the reference, whole rows at a time.
fn masked_softmaxes(logits: &[f32], eps: f32, bf16: bool) -> [f64; 2] {
    let round = |value: f64| {
        if bf16 {
            to_bf16(value)
        } else {
            f64::from(value as f32)
        }
    };
    let original: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    let mut scores = original.clone();
    [(); 2].map(|()| {
        let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let at = scores.iter().position(|&score| score == best).unwrap();
        let masked: Vec<f64> = (0..scores.len())
            .map(|j| {
                let factor = original[j].abs().max(best);
                let distance = round(round(best - original[j]) / factor);
                let far = distance > round(2.0 * f64::from(eps));
                if far { f64::NEG_INFINITY } else { scores[j] }
            })
            .collect();
        let sum: f64 = masked.iter().map(|score| (score - best).exp()).sum();
        scores[at] = f64::NEG_INFINITY;
        round(1.0 / sum)
    })
}

#[test]
fn a_sparse_mixer_agrees_with_two_masked_softmaxes() {
    let mut rng = rng(5);
    for case in 0..2000 {
        let dtype = [Format::F32, Format::Bf16][case % 2];
        let eps = [0.01, 0.1, 0.5][case % 3];
        let logits: Vec<f32> = (0..2 + case % 15)
            .map(|_| {
                let logit = uniform(&mut rng, 1.0);
                if dtype == Format::Bf16 {
                    bf16_round(logit)
                } else {
                    logit
                }
            })
            .collect();
        let (_, weights) = select(&phimoe(logits.len(), eps, dtype), &logits);
        let expected = masked_softmaxes(&logits, eps, dtype == Format::Bf16);
        for (weight, expected) in weights.iter().zip(expected) {
            // A bf16 rounding may fall on the other side of a tie that f32 sums make.
            let within = if dtype == Format::Bf16 { 0.004 } else { 1e-5 };
            let error = (f64::from(*weight) - expected).abs();
            assert!(error <= within, "case {case}: {weight} {expected}");
        }
    }
}

#[test]
fn routers_of_two_choices_make_two() {
    let said = |config: RouterConfig| config.validate().unwrap_err().to_string();
    let three = |config: RouterConfig| RouterConfig { top_k: 3, ..config };
    assert_eq!(
        said(three(nllb(4, Format::F32))),
        "top_k: 3, expected 2, the choices of a second-by-logit router"
    );
    assert!(said(three(phimoe(4, 0.1, Format::F32))).starts_with("top_k: 3"));
    assert!(said(phimoe(4, f32::NAN, Format::F32)).starts_with("sparse mixer eps: NaN"));
    let by_score = RouterConfig {
        select: Select::Score,
        ..phimoe(4, 0.1, Format::F32)
    };
    assert!(said(by_score).starts_with("select: Score"));
    let grouped = RouterConfig {
        groups: Some(Groups {
            n: 2,
            keep: 1,
            by: GroupScore::Max,
            fill: 0.0,
            weights_from_masked: false,
        }),
        ..nllb(4, Format::F32)
    };
    assert!(said(grouped).starts_with("groups: some"));
}
