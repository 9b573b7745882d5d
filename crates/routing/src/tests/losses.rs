use expertmesh_kernels::Format;
use proptest::prelude::*;

use super::{cases, rng, uniform};
use crate::{
    balance::{
        balancedness, balancedness_of_layers, coefficient_of_variation, entropy, gini, idle,
        max_over_mean, max_over_min, normalised_entropy,
    },
    loss::{load_balancing_loss, z_loss},
};

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-6 * right.abs().max(1.0)
}

#[test]
fn perfect_balance_costs_k() {
    // Each expert is the first choice of one token and the second of its neighbour.
    let logits = [2.0, 1.0, 0.0, 0.0, 2.0, 1.0, 1.0, 0.0, 2.0];
    let loss = load_balancing_loss(&[&logits], 3, 2, None, Format::F32).unwrap();
    assert!(close(loss, 2.0), "{loss}");
}

#[test]
fn a_collapsed_gate_costs_e_times_its_probability() {
    // Every token chooses expert 0 with p = e^4 / (e^4 + 3).
    let logits = [4.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0];
    let p = 4_f64.exp() / (4_f64.exp() + 3.0);
    let loss = load_balancing_loss(&[&logits], 4, 1, None, Format::F32).unwrap();
    assert!(close(loss, 4.0 * p), "{loss}");
}

#[test]
fn masked_tokens_do_not_count_and_layers_are_pooled() {
    let (a, b) = ([4.0, 0.0, 0.0, 1.0], [0.0, 3.0, 0.5, 0.0]);
    let loss = |layers: &[&[f32]], mask: Option<&[bool]>| {
        load_balancing_loss(layers, 2, 1, mask, Format::F32).unwrap()
    };
    assert_eq!(loss(&[&a], Some(&[true, false])), loss(&[&a[..2]], None));
    let both: Vec<f32> = a.iter().chain(&b).copied().collect();
    assert_eq!(loss(&[&a, &b], None), loss(&[&both], None));
    // Two layers that collapse onto different experts are balanced together.
    let (left, right) = ([4.0, 0.0, 4.0, 0.0], [0.0, 4.0, 0.0, 4.0]);
    assert!(loss(&[&left], None) > 1.9);
    assert!(close(loss(&[&left, &right], None), 1.0));
    assert_eq!(loss(&[&a], Some(&[false, false])), 0.0);
    assert_eq!(loss(&[], None), 0.0);
}

#[test]
fn z_loss_by_hand() {
    let two = f64::from(2_f32.ln());
    assert!(close(z_loss(&[0.0, 0.0], 2).unwrap(), two * two));
    let expected = (two * two + (two + 3.0) * (two + 3.0)) / 2.0;
    assert!(close(z_loss(&[0.0, 0.0, 3.0, 3.0], 2).unwrap(), expected));
    assert_eq!(z_loss(&[], 2).unwrap(), 0.0);
}

#[test]
fn shapes_are_checked() {
    let loss = |logits: &[f32], e, k, mask: Option<&[bool]>| {
        load_balancing_loss(&[logits], e, k, mask, Format::F32)
    };
    assert!(loss(&[0.0; 4], 2, 3, None).is_err());
    assert!(loss(&[0.0; 4], 2, 0, None).is_err());
    assert!(loss(&[0.0; 4], 0, 0, None).is_err());
    assert!(loss(&[0.0; 5], 2, 1, None).is_err());
    assert!(loss(&[0.0; 4], 2, 1, Some(&[true])).is_err());
    assert!(z_loss(&[0.0; 3], 2).is_err());
    assert!(z_loss(&[], 0).is_err());
}

#[test]
fn balance_of_equal_and_of_collapsed_loads() {
    assert_eq!(
        (
            gini(&[5, 5, 5]),
            max_over_mean(&[5, 5, 5]),
            idle(&[5, 5, 5])
        ),
        (0.0, 1.0, 0)
    );
    assert!(close(entropy(&[5, 5, 5]), 3_f64.ln()));
    let one = [0, 0, 8, 0];
    assert!(close(gini(&one), 0.75));
    assert_eq!(
        (max_over_mean(&one), entropy(&one), idle(&one)),
        (4.0, 0.0, 3)
    );
    for none in [&[][..], &[0, 0]] {
        assert_eq!(
            (gini(none), max_over_mean(none), entropy(none)),
            (0.0, 0.0, 0.0)
        );
    }
    // Mean absolute difference over twice the mean: (2·1 + 2·2 + 2·1) / (2 · 9 · 2).
    assert!(close(gini(&[1, 2, 3]), 8.0 / 36.0));
}

#[test]
fn balance_between_zero_and_one() {
    let (even, one, some) = ([5, 5, 5, 5], [0, 0, 8, 0], [1, 2, 3]);
    assert!(close(normalised_entropy(&even), 1.0) && close(normalised_entropy(&[7]), 1.0));
    assert_eq!(normalised_entropy(&one), 0.0);
    let entropy = (1.0_f64 / 6.0, 1.0_f64 / 3.0, 0.5_f64);
    let nats = -(entropy.0 * entropy.0.ln() + entropy.1 * entropy.1.ln() + 0.5 * entropy.2.ln());
    assert!(close(normalised_entropy(&some), nats / 3_f64.ln()));

    assert_eq!(coefficient_of_variation(&even), 0.0);
    assert!(close(coefficient_of_variation(&one), 3_f64.sqrt()));
    assert!(close(
        coefficient_of_variation(&some),
        (2.0_f64 / 3.0).sqrt() / 2.0
    ));

    assert_eq!((balancedness(&even), balancedness(&one)), (1.0, 0.25));
    assert!(close(balancedness(&some), 1.0 / max_over_mean(&some)));
    // (5 + 2 + 2) / (5 + 8 + 3); a layer without experts adds nothing.
    let layers = [&even[..], &one, &some, &[]];
    assert_eq!(balancedness_of_layers(layers), 9.0 / 16.0);

    assert_eq!((max_over_min(&even), max_over_min(&one)), (1.0, 9.0));
    assert_eq!(max_over_min(&some), 2.0);
    for none in [&[][..], &[0, 0]] {
        assert_eq!(
            (normalised_entropy(none), coefficient_of_variation(none)),
            (0.0, 0.0)
        );
        assert_eq!((balancedness(none), max_over_min(none)), (0.0, 1.0));
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn the_balance_loss_is_its_formula(
        tokens in 1_usize..20, e in 1_usize..10, part in 0.0_f64..1.0, masked: bool, seed: u64,
    ) {
        let k = 1 + (part * e as f64) as usize;
        let mut rng = rng(seed);
        let logits: Vec<f32> = (0..tokens * e).map(|_| uniform(&mut rng, 4.0)).collect();
        let mask: Vec<bool> = (0..tokens).map(|token| !masked || token % 3 != 1).collect();
        let n = mask.iter().filter(|&&counts| counts).count() as f64;
        let mut loss = 0.0;
        for expert in 0..e {
            let (mut share, mut probability) = (0.0, 0.0);
            for token in (0..tokens).filter(|&token| mask[token]) {
                let row = &logits[token * e..(token + 1) * e];
                let exps: Vec<f64> = row.iter().map(|&logit| f64::from(logit).exp()).collect();
                probability += exps[expert] / exps.iter().sum::<f64>() / n;
                let higher = row.iter().filter(|&&logit| logit > row[expert]).count();
                share += if higher < k { 1.0 / n } else { 0.0 };
            }
            loss += e as f64 * share * probability;
        }
        let mask = masked.then_some(&mask[..]);
        let found = load_balancing_loss(&[&logits], e, k, mask, Format::F32).unwrap();
        prop_assert!(close(found, loss), "{} {}", found, loss);
    }
}
