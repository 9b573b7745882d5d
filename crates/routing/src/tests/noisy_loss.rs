//! Importance and load against the formulas of the paper and of Tutel, in f64.

use proptest::prelude::*;

use super::{cases, rng, uniform};
use crate::loss::{
    LossInput, NoisyLogits, Probability, cv_squared, importance, importance_loss,
    load_importance_loss,
};

/// `Φ(z)` by its series, good to 1e-15: `1/2 + φ(z) Σ z^(2n+1) / (2n+1)!!`.
pub(super) fn normal_cdf(z: f64) -> f64 {
    if z.abs() > 9.0 {
        return if z > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut term, mut sum, mut n) = (z, z, 1.0);
    while (sum + term) != sum || n < 3.0 {
        n += 2.0;
        term *= z * z / n;
        sum += term;
        if term == 0.0 {
            break;
        }
    }
    0.5 + (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum
}

/// The experts in falling order of a row.
fn order(row: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..row.len() as u32).collect();
    order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
    order
}

#[test]
fn the_series_is_the_normal_distribution() {
    for (z, expected) in [
        (0.0, 0.5),
        (1.0, 0.841_344_746_068_542_9),
        (-3.0, 0.001_349_898_031_630_1),
    ] {
        assert!((normal_cdf(z) - expected).abs() < 1e-14, "{z}");
    }
}

#[test]
fn the_gates_normal_distribution_is_within_its_bound() {
    for step in -60_000..=60_000 {
        let z = step as f32 * 1e-4;
        let error = f64::from(crate::loss::normal_cdf(z)) - normal_cdf(f64::from(z));
        assert!(error.abs() < 3e-7, "{z}: {error:e}");
    }
    let ends = [f32::NEG_INFINITY, -1e30, 0.0, 1e-40, 1e30, f32::INFINITY];
    assert_eq!(
        ends.map(crate::loss::normal_cdf),
        [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    );
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn importance_and_load_are_their_formulas(
        tokens in 1_usize..12, e in 2_usize..8, part in 0.0_f64..1.0, masked: bool, seed: u64,
    ) {
        let k = 1 + (part * e as f64) as usize;
        let mut rng = rng(seed);
        let mut draw = |size: f32| -> Vec<f32> {
            (0..tokens * e).map(|_| uniform(&mut rng, size)).collect()
        };
        let (clean, noise, raw) = (draw(2.0), draw(2.0), draw(1.0));
        let stddev: Vec<f32> = raw.iter().map(|raw| raw.abs() + 0.05).collect();
        let noisy: Vec<f32> =
            (0..clean.len()).map(|at| clean[at] + noise[at] * stddev[at]).collect();
        let chosen: Vec<u32> =
            noisy.chunks(e).flat_map(|row| order(row).into_iter().take(k)).collect();
        let weights: Vec<f32> = draw(1.0)[..tokens].iter().flat_map(|&w| vec![w.abs(); k]).collect();
        let mask: Vec<bool> = (0..tokens).map(|token| !masked || token % 3 != 1).collect();
        let input = LossInput {
            logits: &noisy,
            tokens,
            experts: e,
            top_k: k,
            chosen: &chosen,
            weights: &weights,
            attention_mask: masked.then_some(&mask[..]),
            sequence: tokens,
            probability: Probability::Softmax,
        };

        let (mut heavy, mut load) = (vec![0.0_f64; e], vec![0.0_f64; e]);
        let (mut tutel_importance, mut tutel_load) = (vec![0.0_f64; e], vec![0.0_f64; e]);
        let gate_noise = 1.5_f32;
        for token in (0..tokens).filter(|&token| mask[token]) {
            let rows = token * e..(token + 1) * e;
            let (row, clean) = (&noisy[rows.clone()], &clean[rows.clone()]);
            let exps: Vec<f64> = clean.iter().map(|&z| f64::from(z).exp()).collect();
            let p = |i: usize| exps[i] / exps.iter().sum::<f64>();
            let kth = f64::from(row[chosen[(token + 1) * k - 1] as usize]);
            for i in 0..e {
                // The k-th highest of the others, by leaving i out and sorting.
                let mut others: Vec<f32> = row.to_vec();
                others.remove(i);
                others.sort_by(|a, b| b.total_cmp(a));
                let z = others.get(k - 1).map_or(f64::INFINITY, |&threshold| {
                    (f64::from(clean[i]) - f64::from(threshold)) / f64::from(stddev[rows.start + i])
                });
                load[i] += normal_cdf(z);
                tutel_importance[i] += p(i);
                tutel_load[i] += normal_cdf((p(i) - kth) / (f64::from(gate_noise) / e as f64));
            }
            for slot in token * k..(token + 1) * k {
                heavy[chosen[slot] as usize] += f64::from(weights[slot]);
            }
        }
        prop_assert_eq!(&importance(&input).unwrap(), &heavy);
        prop_assert_eq!(importance_loss(&input).unwrap(), cv_squared(&heavy));
        let gate = NoisyLogits { clean: &clean, stddev: &stddev };
        for (found, expected) in gate.load(&input).unwrap().iter().zip(&load) {
            prop_assert!((found - expected).abs() < 1e-5, "{} {}", found, expected);
        }
        prop_assert!((gate.load_loss(&input).unwrap() - cv_squared(&load)).abs() < 1e-5);

        let sample = |values: &[f64]| {
            let mean = values.iter().sum::<f64>() / e as f64;
            let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
            squares / (e as f64 - 1.0) / (mean * mean + 1e-10)
        };
        let expected = (sample(&tutel_importance) + sample(&tutel_load)) / 2.0;
        let found = load_importance_loss(&input, &clean, gate_noise).unwrap();
        prop_assert!(
            (found - expected).abs() < 1e-4 * expected.max(1.0), "{} {}", found, expected
        );
    }
}

#[test]
fn variation_by_hand() {
    assert_eq!(cv_squared(&[2.0, 2.0]), 0.0);
    assert_eq!(cv_squared(&[0.0, 0.0, 0.0, 4.0]), 3.0);
    assert_eq!((cv_squared(&[]), cv_squared(&[0.0, 0.0])), (0.0, 0.0));
}

#[test]
fn everyone_is_chosen_again_when_there_are_no_others() {
    let input = LossInput {
        logits: &[0.5, -3.0],
        tokens: 1,
        experts: 2,
        top_k: 2,
        chosen: &[0, 1],
        weights: &[0.9, 0.1],
        attention_mask: None,
        sequence: 1,
        probability: Probability::Softmax,
    };
    let gate = NoisyLogits {
        clean: &[0.0, 0.0],
        stddev: &[1.0, 1.0],
    };
    assert_eq!(gate.load(&input).unwrap(), [1.0, 1.0]);
    assert_eq!(gate.load_loss(&input).unwrap(), 0.0);

    let no_weights = LossInput {
        weights: &[],
        ..input
    };
    assert!(importance_loss(&no_weights).is_err());
    for stddev in [[0.0, 1.0], [1.0, f32::NAN], [-1.0, 1.0]] {
        let gate = NoisyLogits {
            stddev: &stddev,
            ..gate
        };
        let error = gate.load(&input).unwrap_err().to_string();
        assert!(error.starts_with("noise stddev: "), "{error}");
    }
    let short = NoisyLogits {
        clean: &[0.0],
        ..gate
    };
    assert!(short.load(&input).is_err());
    assert!(load_importance_loss(&input, &[0.0], 1.0).is_err());
    assert!(load_importance_loss(&input, &[0.0, f32::NAN], 1.0).is_err());
    assert!(load_importance_loss(&input, &[0.0, 0.0], 0.0).is_err());
    let single = LossInput {
        logits: &[0.5],
        experts: 1,
        top_k: 1,
        chosen: &[0],
        weights: &[],
        ..input
    };
    assert!(load_importance_loss(&single, &[0.5], 1.0).is_err());
}
