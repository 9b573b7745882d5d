use expertmesh_kernels::{Format, bf16_round};
use proptest::prelude::*;

use super::{cases, reference, rng, uniform};
use crate::{
    GroupScore, Groups, Logits, Norm, Post, RouterConfig, RoutingError, Score, Select,
    SelectScratch, Selector, WeightDtype,
    select::{TopScratch, top_k},
};

/// The routers of published families, beside the two that have a constructor.
fn family(name: &str, e: usize, k: usize, groups: (usize, usize), dtype: Format) -> RouterConfig {
    let base = RouterConfig::mixtral(e, k, dtype);
    let (n, keep) = groups;
    let limit = |by, fill, weights_from_masked| {
        Some(Groups {
            n,
            keep,
            by,
            fill,
            weights_from_masked,
        })
    };
    let (sum, sum_eps) = (Norm::Sum { eps: 0.0 }, Norm::Sum { eps: 1e-20 });
    let raw = RouterConfig {
        score: Score::None,
        select: Select::Logit,
        norm: Norm::None,
        weight_dtype: WeightDtype::Model,
        ..base.clone()
    };
    match name {
        "mixtral" => base,
        "olmoe" => RouterConfig::olmoe(e, k, false, dtype),
        "qwen3_moe" => RouterConfig::olmoe(e, k, true, dtype),
        "deepseek_v2" => RouterConfig {
            logits: Logits::F32,
            groups: limit(GroupScore::Max, 0.0, true),
            norm: Norm::None,
            scale: 16.0,
            ..base
        },
        "deepseek_v3" => RouterConfig {
            logits: Logits::F32,
            score: Score::Sigmoid { f32: true },
            select: Select::ScorePlusBias,
            groups: limit(GroupScore::Sum2, f32::NEG_INFINITY, false),
            norm: sum_eps,
            scale: 2.5,
            ..base
        },
        // The same router before its mask was changed: a masked expert beats a negative key.
        "deepseek_v3_zero_fill" => RouterConfig {
            groups: limit(GroupScore::Sum2, 0.0, false),
            ..family("deepseek_v3", e, k, groups, dtype)
        },
        "minimax_m2" => RouterConfig {
            logits: Logits::ModelThenF32,
            score: Score::Sigmoid { f32: true },
            select: Select::ScorePlusBias,
            norm: sum,
            ..base
        },
        "ernie4_5" => RouterConfig {
            logits: Logits::F32,
            select: Select::ScorePlusBias,
            norm: Norm::ClampSum { min: 1e-12 },
            weight_dtype: WeightDtype::Model,
            ..base
        },
        "lfm2" => RouterConfig {
            score: Score::Sigmoid { f32: false },
            select: Select::ScorePlusBias,
            norm: Norm::Sum { eps: 1e-6 },
            scale: 1.5,
            weight_dtype: WeightDtype::Model,
            ..base
        },
        "gpt_oss" => RouterConfig {
            post: Post::Softmax { f32: false },
            ..raw
        },
        "granite" => RouterConfig {
            logits: Logits::ModelThenF32,
            post: Post::Softmax { f32: true },
            ..raw
        },
        "cohere2" => RouterConfig {
            post: Post::Sigmoid { f32: false },
            norm: sum,
            ..raw
        },
        "llama4" => RouterConfig {
            post: Post::Sigmoid { f32: true },
            ..raw
        },
        "dbrx" => RouterConfig {
            score: Score::Softmax { f32: false },
            norm: Norm::PNorm { p: 2.0 },
            weight_dtype: WeightDtype::Model,
            ..base
        },
        "switch" => RouterConfig {
            logits: Logits::F32,
            score: Score::Softmax { f32: false },
            norm: Norm::None,
            weight_dtype: WeightDtype::Model,
            ..base
        },
        "deepseek_v4" => RouterConfig {
            score: Score::SqrtSoftplus,
            select: Select::ScorePlusBias,
            norm: sum_eps,
            scale: 1.5,
            ..base
        },
        _ => panic!("no family {name}"),
    }
}

const FAMILIES: [&str; 16] = [
    "mixtral",
    "olmoe",
    "qwen3_moe",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v3_zero_fill",
    "minimax_m2",
    "ernie4_5",
    "lfm2",
    "gpt_oss",
    "granite",
    "cohere2",
    "llama4",
    "dbrx",
    "switch",
    "deepseek_v4",
];

fn select(
    config: &RouterConfig,
    logits: &[f32],
    bias: Option<&[f32]>,
) -> Result<(Vec<u32>, Vec<f32>), RoutingError> {
    let tokens = logits.len() / config.experts;
    let selector = Selector::new(config.clone(), bias.map(<[f32]>::to_vec))?;
    let mut experts = vec![u32::MAX; tokens * config.top_k];
    let mut weights = vec![f32::NAN; tokens * config.top_k];
    let mut scratch = SelectScratch::default();
    selector.select(logits, tokens, &mut experts, &mut weights, &mut scratch)?;
    Ok((experts, weights))
}

/// The highest `k` by a stable sort.
fn sorted_top_k(keys: &[f32], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..keys.len() as u32).collect();
    order.sort_by(|&a, &b| keys[b as usize].partial_cmp(&keys[a as usize]).unwrap());
    order.truncate(k);
    order
}

#[test]
fn ties_go_to_the_lower_expert() {
    let config = RouterConfig::mixtral(4, 3, Format::F32);
    let (experts, weights) = select(&config, &[1.0, 2.0, 1.0, 2.0], None).unwrap();
    assert_eq!(experts, [1, 3, 0]);
    // softmax over {2, 2, 1}: 1 / (2 + 1/e), twice, and the rest.
    let high = 1.0 / (2.0 + (-1_f32).exp());
    for (weight, expected) in weights.iter().zip([high, high, 1.0 - 2.0 * high]) {
        assert!((weight - expected).abs() < 1e-6, "{weight} {expected}");
    }
    let (experts, _) = select(&config, &[0.0, -0.0, 0.0, -0.0], None).unwrap();
    assert_eq!(experts, [0, 1, 2], "-0 and 0 are one key");
}

#[test]
fn a_bf16_score_ties_where_the_f32_score_does_not() {
    let logits = [0.0, 0.001];
    let switch = |f32| RouterConfig {
        score: Score::Softmax { f32 },
        norm: Norm::None,
        ..RouterConfig::mixtral(2, 1, Format::Bf16)
    };
    assert_eq!(select(&switch(true), &logits, None).unwrap().0, [1]);
    assert_eq!(
        select(&switch(false), &logits, None).unwrap(),
        (vec![0], vec![0.5])
    );
}

#[test]
fn groups_by_hand() {
    // Four groups of two; keys are the logits themselves.
    let logits = [9.0, -9.0, 4.0, 4.0, 5.0, 2.0, 6.0, 1.0_f32];
    let router = |by, keep| RouterConfig {
        score: Score::None,
        select: Select::Logit,
        norm: Norm::None,
        groups: Some(Groups {
            n: 4,
            keep,
            by,
            fill: f32::NEG_INFINITY,
            weights_from_masked: false,
        }),
        ..RouterConfig::mixtral(8, 2, Format::F32)
    };
    // Highest members 9, 4, 5, 6; sums 0, 8, 7, 7, where the tie goes to the lower group.
    let chosen = |by, keep| select(&router(by, keep), &logits, None).unwrap().0;
    assert_eq!(chosen(GroupScore::Max, 1), [0, 1]);
    assert_eq!(chosen(GroupScore::Max, 2), [0, 6]);
    assert_eq!(chosen(GroupScore::Sum2, 1), [2, 3]);
    assert_eq!(chosen(GroupScore::Sum2, 2), [4, 2]);
    assert_eq!(chosen(GroupScore::Sum2, 3), [6, 4]);
}

#[test]
fn what_the_mask_is_filled_with_decides_about_negative_keys() {
    let logits = [-1.0, -2.0, -3.0, -4.0_f32];
    let router = |fill, weights_from_masked| RouterConfig {
        score: Score::None,
        norm: Norm::None,
        groups: Some(Groups {
            n: 2,
            keep: 1,
            by: GroupScore::Max,
            fill,
            weights_from_masked,
        }),
        ..RouterConfig::mixtral(4, 2, Format::F32)
    };
    let chosen = |fill, masked| select(&router(fill, masked), &logits, None).unwrap();
    assert_eq!(
        chosen(f32::NEG_INFINITY, false),
        (vec![0, 1], vec![-1.0, -2.0])
    );
    assert_eq!(chosen(0.0, false), (vec![2, 3], vec![-3.0, -4.0]));
    assert_eq!(chosen(0.0, true), (vec![2, 3], vec![0.0, 0.0]));
}

#[test]
fn a_bias_moves_the_choice_and_not_the_weight() {
    let config = RouterConfig {
        score: Score::Sigmoid { f32: true },
        select: Select::ScorePlusBias,
        norm: Norm::None,
        ..RouterConfig::mixtral(3, 1, Format::F32)
    };
    let bias = [0.0, 0.0, 5.0];
    assert_eq!(
        select(&config, &[1.0, 2.0, 0.0], Some(&bias)).unwrap(),
        (vec![2], vec![0.5])
    );
}

#[test]
fn bad_logits_name_their_token_and_expert() {
    let config = RouterConfig::mixtral(2, 1, Format::F32);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = select(&config, &[0.0, 0.0, 0.0, bad], None).unwrap_err();
        assert!(
            matches!(
                error,
                RoutingError::Logit {
                    token: 1,
                    expert: 1,
                    ..
                }
            ),
            "{error}"
        );
        let error = error.offset_token(64).to_string();
        assert!(error.starts_with("logits[token 65][expert 1]: "), "{error}");
    }
}

#[test]
fn keys_at_the_ends_of_the_range_still_choose() {
    let config = RouterConfig {
        score: Score::None,
        select: Select::ScorePlusBias,
        norm: Norm::None,
        groups: Some(Groups {
            n: 2,
            keep: 1,
            by: GroupScore::Sum2,
            fill: f32::NEG_INFINITY,
            weights_from_masked: true,
        }),
        ..RouterConfig::mixtral(4, 2, Format::F32)
    };
    let ends = [f32::MIN, f32::MIN, f32::MAX, f32::MIN];
    assert_eq!(select(&config, &ends, Some(&ends)).unwrap().0, [2, 3]);
    let low = [f32::MIN; 4];
    assert_eq!(select(&config, &low, Some(&low)).unwrap().0, [0, 1]);
}

#[test]
fn a_norm_of_nothing_is_an_error() {
    let config = RouterConfig {
        score: Score::Sigmoid { f32: true },
        ..RouterConfig::mixtral(2, 1, Format::F32)
    };
    let error = select(&config, &[-200.0, -200.0], None).unwrap_err();
    assert!(
        matches!(
            error,
            RoutingError::Weight {
                token: 0,
                slot: 0,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn lengths_and_biases_are_checked() {
    let config = RouterConfig::mixtral(4, 2, Format::F32);
    let selector = Selector::new(config.clone(), None).unwrap();
    let mut scratch = SelectScratch::default();
    let mut attempt = |logits: usize, tokens, experts: usize, weights: usize| {
        selector
            .select(
                &vec![0.0; logits],
                tokens,
                &mut vec![0; experts],
                &mut vec![0.0; weights],
                &mut scratch,
            )
            .map_err(|error| error.to_string())
    };
    assert_eq!(attempt(8, 2, 4, 4), Ok(()));
    assert_eq!(attempt(0, 0, 0, 0), Ok(()));
    let refused = "logits: 7 elements, expected tokens x experts = 2 x 4";
    assert_eq!(attempt(7, 2, 4, 4), Err(refused.to_owned()));
    assert!(attempt(8, 2, 3, 4).is_err());
    assert!(attempt(8, 2, 4, 5).is_err());
    assert!(attempt(8, usize::MAX, 4, 4).is_err());

    let biased = RouterConfig {
        select: Select::ScorePlusBias,
        ..config.clone()
    };
    assert!(Selector::new(config, Some(vec![0.0; 4])).is_err());
    assert!(Selector::new(biased.clone(), None).is_err());
    assert!(Selector::new(biased.clone(), Some(vec![0.0; 3])).is_err());
    assert!(Selector::new(biased.clone(), Some(vec![0.0, f32::NAN, 0.0, 0.0])).is_err());
    assert!(Selector::new(biased, Some(vec![0.0; 4])).is_ok());
}

#[test]
fn impossible_routers_are_refused_by_field() {
    let base = RouterConfig::mixtral(8, 2, Format::F32);
    let groups = |n, keep, by, fill| {
        let groups = Groups {
            n,
            keep,
            by,
            fill,
            weights_from_masked: false,
        };
        RouterConfig {
            groups: Some(groups),
            ..base.clone()
        }
    };
    let masked = f32::NEG_INFINITY;
    let cases = [
        (
            "experts: 0,",
            RouterConfig {
                experts: 0,
                ..base.clone()
            },
        ),
        (
            "top_k: 0,",
            RouterConfig {
                top_k: 0,
                ..base.clone()
            },
        ),
        (
            "top_k: 9, expected 1 to 8",
            RouterConfig {
                top_k: 9,
                ..base.clone()
            },
        ),
        ("groups n: 3,", groups(3, 1, GroupScore::Max, masked)),
        ("groups n: 0,", groups(0, 0, GroupScore::Max, masked)),
        ("groups keep: 5,", groups(4, 5, GroupScore::Max, masked)),
        (
            "groups by: sum2 over groups of 1,",
            groups(8, 2, GroupScore::Sum2, masked),
        ),
        ("groups fill: NaN,", groups(4, 2, GroupScore::Max, f32::NAN)),
        (
            "top_k: 2, expected at most 1",
            groups(8, 1, GroupScore::Max, masked),
        ),
        (
            "softcap: 0,",
            RouterConfig {
                softcap: Some(0.0),
                ..base.clone()
            },
        ),
        (
            "norm eps: -1,",
            RouterConfig {
                norm: Norm::Sum { eps: -1.0 },
                ..base.clone()
            },
        ),
        (
            "norm min: 0,",
            RouterConfig {
                norm: Norm::ClampSum { min: 0.0 },
                ..base.clone()
            },
        ),
        (
            "norm p: 3,",
            RouterConfig {
                norm: Norm::PNorm { p: 3.0 },
                ..base.clone()
            },
        ),
        (
            "scale: inf,",
            RouterConfig {
                scale: f32::INFINITY,
                ..base.clone()
            },
        ),
    ];
    for (start, config) in cases {
        let message = config.validate().unwrap_err().to_string();
        assert!(message.starts_with(start), "{message}");
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn selections_of_any_length_equal_a_stable_sort(
        keys in proptest::collection::vec(-4_i8..5, 1..160), part in 0.0_f64..1.0,
    ) {
        // Few distinct keys, so that most selections are decided by ties; both methods.
        let keys: Vec<f32> = keys.into_iter().map(f32::from).collect();
        let k = 1 + (part * keys.len() as f64) as usize;
        let mut experts = vec![u32::MAX; k];
        top_k(&keys, &mut experts, &mut TopScratch::default());
        prop_assert_eq!(experts, sorted_top_k(&keys, k));
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn every_family_agrees_with_the_formulas(
        name in proptest::sample::select(FAMILIES.to_vec()),
        bf16: bool,
        size in 2_usize..9,
        n in 1_usize..6,
        keep in 0.0_f64..1.0,
        part in 0.0_f64..1.0,
        spread in 0.1_f32..8.0,
        seed: u64,
    ) {
        let dtype = if bf16 { Format::Bf16 } else { Format::F32 };
        let keep = 1 + (keep * n as f64) as usize;
        let experts = n * size;
        let k = 1 + (part * (keep * size) as f64) as usize;
        let config = family(name, experts, k, (n, keep), dtype);
        let (tokens, mut rng) = (3, rng(seed));
        let mut logits: Vec<f32> =
            (0..tokens * experts).map(|_| uniform(&mut rng, spread)).collect();
        if bf16 && config.logits != Logits::F32 {
            logits.iter_mut().for_each(|logit| *logit = bf16_round(*logit));
        }
        // Around a typical score, so that some keys are negative.
        let bias: Option<Vec<f32>> = (config.select == Select::ScorePlusBias)
            .then(|| (0..experts).map(|_| uniform(&mut rng, 1.0)).collect());
        let (chosen, weights) = select(&config, &logits, bias.as_deref()).unwrap();

        // A score in bf16 may round the other way when it is computed in f64.
        let coarse = bf16 && match config.score {
            Score::Softmax { f32 } | Score::Sigmoid { f32 } => !f32,
            Score::SqrtSoftplus => true,
            Score::None => false,
        };
        let tolerance = if coarse { 1.0 / 128.0 } else { 4e-7 };
        for token in 0..tokens {
            let row = &logits[token * experts..(token + 1) * experts];
            let found = reference::keys(&config, row, bias.as_deref());
            let chosen = &chosen[token * k..(token + 1) * k];
            let mut distinct = chosen.to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), k);
            let key = |expert: &u32| found.keys[*expert as usize];
            for pair in chosen.windows(2) {
                prop_assert!(key(&pair[0]) >= key(&pair[1]) - tolerance);
            }
            let lowest = key(&chosen[k - 1]);
            for expert in (0..experts as u32).filter(|expert| !chosen.contains(expert)) {
                prop_assert!(key(&expert) <= lowest + tolerance, "expert {}", expert);
            }

            let expected = reference::weights(&config, row, &found, chosen);
            let rounded = bf16 && config.weight_dtype == WeightDtype::Model;
            // Each rounding to bf16 may fall the other way: at most a few units of 2^-8.
            let tolerance = if coarse || config.weights_in_bf16() { 4.0 / 256.0 }
                else if rounded { 1.0 / 128.0 } else { 2e-6 };
            for (weight, expected) in weights[token * k..].iter().zip(&expected) {
                let error = (f64::from(*weight) - expected).abs();
                prop_assert!(error <= tolerance * expected.abs() + 1e-30, "{weight} {expected}");
                if rounded {
                    prop_assert_eq!(*weight, bf16_round(*weight));
                }
            }
        }
    }

    #[test]
    fn permuting_tokens_permutes_the_choices(
        name in proptest::sample::select(FAMILIES.to_vec()), tokens in 1_usize..9, seed: u64,
    ) {
        let config = family(name, 12, 3, (4, 2), Format::Bf16);
        let mut rng = rng(seed);
        let logits: Vec<f32> = (0..tokens * 12).map(|_| uniform(&mut rng, 3.0)).collect();
        let bias: Option<Vec<f32>> = (config.select == Select::ScorePlusBias)
            .then(|| (0..12).map(|_| uniform(&mut rng, 0.5)).collect());
        let (experts, weights) = select(&config, &logits, bias.as_deref()).unwrap();
        let backwards: Vec<f32> = logits.chunks(12).rev().flatten().copied().collect();
        let (experts_2, weights_2) = select(&config, &backwards, bias.as_deref()).unwrap();
        for token in 0..tokens {
            let (here, there) = (token * 3, (tokens - 1 - token) * 3);
            prop_assert_eq!(&experts[here..here + 3], &experts_2[there..there + 3]);
            prop_assert_eq!(&weights[here..here + 3], &weights_2[there..there + 3]);
        }
    }
}
