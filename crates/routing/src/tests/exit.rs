//! Early exit against a slow reading of each rule, in f64.

use expertmesh_kernels::PackedMatrix;
use proptest::prelude::*;

use super::{cases, rng, uniform};
use crate::{ExitGate, ExitRule, ExitState};

fn head(weight: &[f32], classes: usize) -> PackedMatrix {
    PackedMatrix::from_f32(weight, classes, weight.len() / classes).unwrap()
}

/// What a rule measures, from logits in f64.
fn measure(rule: ExitRule, logits: &[f64]) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = logits.iter().map(|z| (z - max).exp()).collect();
    let mut p: Vec<f64> = exps.iter().map(|e| e / exps.iter().sum::<f64>()).collect();
    p.sort_by(|a, b| b.total_cmp(a));
    match rule {
        ExitRule::Probability(_) => p[0],
        ExitRule::Gap(_) => p[0] - p[1],
        ExitRule::Entropy(_) => p.iter().map(|p| -p * p.ln()).sum(),
        ExitRule::Classifier(_) => 1.0 / (1.0 + (-logits[0]).exp()),
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn tokens_leave_by_the_rule_and_stay_away(
        tokens in 0_usize..10, layers in 1_u32..6, kind in 0_u8..4, seed: u64,
    ) {
        let mut rng = rng(seed);
        let (rule, classes) = match kind {
            0 => (ExitRule::Probability(0.8), 4),
            1 => (ExitRule::Gap(0.6), 4),
            2 => (ExitRule::Entropy(0.5), 4),
            _ => (ExitRule::Classifier(0.7), 1),
        };
        const H: usize = 3;
        let weight: Vec<f32> = (0..classes * H).map(|_| uniform(&mut rng, 1.0)).collect();
        let bias: Vec<f32> = (0..classes).map(|_| uniform(&mut rng, 0.5)).collect();
        let gate = ExitGate::new(head(&weight, classes), Some(bias.clone()), rule).unwrap();
        prop_assert_eq!((gate.hidden(), gate.rule()), (H, rule));

        let mut state = ExitState::new(tokens);
        let mut expected: Vec<Option<u32>> = vec![None; tokens];
        for layer in 0..layers {
            let mut x: Vec<f32> = (0..tokens * H).map(|_| uniform(&mut rng, 4.0)).collect();
            let measures = gate.measure(&x, tokens).unwrap();
            let mut left = 0;
            for token in 0..tokens {
                let logits: Vec<f64> = (0..classes)
                    .map(|c| {
                        let products = (0..H)
                            .map(|h| f64::from(weight[c * H + h]) * f64::from(x[token * H + h]));
                        f64::from(bias[c]) + products.sum::<f64>()
                    })
                    .collect();
                let exact = measure(rule, &logits);
                prop_assert!((f64::from(measures[token]) - exact).abs() < 1e-5);
                let (exits, edge) = match rule {
                    ExitRule::Entropy(threshold) => (exact < f64::from(threshold), threshold),
                    ExitRule::Probability(threshold)
                    | ExitRule::Gap(threshold)
                    | ExitRule::Classifier(threshold) => {
                        (exact >= f64::from(threshold), threshold)
                    }
                };
                prop_assume!((exact - f64::from(edge)).abs() > 1e-5);
                if expected[token].is_some() {
                    // Whoever left has no hidden state any more.
                    x[token * H] = f32::NAN;
                } else if exits {
                    expected[token] = Some(layer);
                    left += 1;
                }
            }
            prop_assert_eq!(state.observe(&gate, layer, &x).unwrap(), left);
            prop_assert_eq!(state.left_at(), &expected[..]);
        }
        let skips: Vec<bool> = expected.iter().map(Option::is_some).collect();
        prop_assert_eq!(state.skip_mask(), skips);
        prop_assert_eq!(state.remaining(), expected.iter().filter(|left| left.is_none()).count());
        let run: u64 =
            expected.iter().map(|left| u64::from(left.map_or(layers, |layer| layer + 1))).sum();
        prop_assert_eq!(state.layers_run(layers), run);
    }
}

#[test]
fn thresholds_are_met_by_equality_except_for_entropy() {
    // Two equal logits: probability 1/2, gap 0, entropy ln 2. A zero logit: sigmoid 1/2.
    let leaves = |rule, classes: usize| {
        let weight = vec![0.0; classes];
        let gate = ExitGate::new(head(&weight, classes), None, rule).unwrap();
        ExitState::new(1).observe(&gate, 0, &[3.0]).unwrap() == 1
    };
    assert!(leaves(ExitRule::Probability(0.5), 2) && !leaves(ExitRule::Probability(0.51), 2));
    assert!(leaves(ExitRule::Gap(0.0), 2) && !leaves(ExitRule::Gap(0.01), 2));
    assert!(leaves(ExitRule::Entropy(0.7), 2) && !leaves(ExitRule::Entropy(0.69), 2));
    let entropy = ExitGate::new(head(&[0.0; 2], 2), None, ExitRule::Entropy(0.7)).unwrap();
    let exact = entropy.measure(&[3.0], 1).unwrap()[0];
    assert!(!leaves(ExitRule::Entropy(exact), 2));
    assert!(leaves(ExitRule::Classifier(0.5), 1) && !leaves(ExitRule::Classifier(0.51), 1));
    // A class without any probability adds no entropy.
    let sure = ExitGate::new(head(&[1.0, -1.0], 2), None, ExitRule::Entropy(0.1)).unwrap();
    assert_eq!(sure.measure(&[500.0], 1).unwrap(), [0.0]);
}

#[test]
fn misfits_are_named_and_change_nothing() {
    let refused = |classes: usize, bias: Option<Vec<f32>>, rule| {
        let weight = vec![1.0; classes];
        let error = ExitGate::new(head(&weight, classes), bias, rule).unwrap_err();
        error.to_string()
    };
    assert!(refused(1, None, ExitRule::Probability(0.5)).starts_with("exit head rows: 1"));
    assert!(refused(2, None, ExitRule::Classifier(0.5)).starts_with("exit head rows: 2"));
    let bias = |bias| refused(2, Some(bias), ExitRule::Gap(0.5));
    assert!(bias(vec![0.0]).starts_with("exit bias: 1"));
    assert!(bias(vec![0.0, f32::NAN]).starts_with("exit bias: NaN"));
    assert!(refused(2, None, ExitRule::Entropy(f32::NAN)).starts_with("exit threshold"));

    let gate = ExitGate::new(head(&[1.0], 1), None, ExitRule::Classifier(0.5)).unwrap();
    assert!(gate.measure(&[1.0], 2).is_err());
    let mut state = ExitState::new(2);
    state.observe(&gate, 3, &[1.0, -1.0]).unwrap();
    let before = state.clone();
    for layer in [0, 3] {
        let error = state.observe(&gate, layer, &[1.0, 1.0]).unwrap_err();
        assert!(error.to_string().starts_with("exit layer: "), "{error}");
    }
    assert!(state.observe(&gate, 4, &[1.0]).is_err());
    let error = state.observe(&gate, 4, &[1.0, f32::NAN]).unwrap_err();
    assert!(error.to_string().starts_with("exit logits: NaN"), "{error}");
    assert_eq!(state, before);
}
