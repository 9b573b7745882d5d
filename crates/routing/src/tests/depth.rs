//! Mixture-of-depths against a slow reading of the paper.

use proptest::prelude::*;

use super::{cases, rng, uniform};
use crate::{DepthRouter, depth::predictor_loss};

proptest! {
    #![proptest_config(cases(64))]

    /// A token passes exactly when fewer than C real tokens of its sequence come before it, in
    /// falling order of score, then in order of position.
    #[test]
    fn the_highest_of_each_sequence_pass(
        sequences in 0_usize..4, length in 1_usize..40, capacity in 0.01_f64..=1.0,
        padded: bool, coarse: bool, seed: u64,
    ) {
        let mut rng = rng(seed);
        let tokens = sequences * length;
        // Coarse scores have many ties.
        let scores: Vec<f32> = (0..tokens)
            .map(|_| uniform(&mut rng, 2.0))
            .map(|score| if coarse { score.round() } else { score })
            .collect();
        let x: Vec<f32> = scores.iter().flat_map(|&score| [score, 7.0]).collect();
        let padding: Vec<bool> = (0..tokens).map(|token| padded && token % 5 == 2).collect();
        let router = DepthRouter::new(vec![1.0, 0.0], capacity).unwrap();
        let route = router
            .route(&x, tokens, length, padded.then_some(&padding[..]))
            .unwrap();
        for token in 0..tokens {
            let first = token / length * length;
            let real: Vec<usize> =
                (first..first + length).filter(|&other| !padding[other]).collect();
            let before = |&&other: &&usize| {
                scores[other] > scores[token] || (scores[other] == scores[token] && other < token)
            };
            let limit = (capacity * real.len() as f64).ceil();
            let passes =
                !padding[token] && (real.iter().filter(before).count() as f64) < limit;
            prop_assert_eq!(route.passes[token], passes, "token {}", token);
            let gate = if passes { scores[token] } else { 0.0 };
            prop_assert_eq!(route.gates[token], gate);
            prop_assert_eq!(route.skip_mask()[token], !passes);
        }
    }

    #[test]
    fn cross_entropy_is_its_formula(tokens in 1_usize..20, padded: bool, seed: u64) {
        let mut rng = rng(seed);
        let logits: Vec<f32> = (0..tokens).map(|_| uniform(&mut rng, 8.0)).collect();
        let passes: Vec<bool> = (0..tokens).map(|_| uniform(&mut rng, 1.0) > 0.0).collect();
        let padding: Vec<bool> = (0..tokens).map(|token| padded && token % 3 == 1).collect();
        let (mut sum, mut n) = (0.0, 0.0);
        for token in (0..tokens).filter(|&token| !padding[token]) {
            let p = 1.0 / (1.0 + (-f64::from(logits[token])).exp());
            sum -= if passes[token] { p.ln() } else { (1.0 - p).ln() };
            n += 1.0;
        }
        let found = predictor_loss(&logits, &passes, padded.then_some(&padding[..])).unwrap();
        prop_assert!((found - sum / n).abs() < 1e-6 * found.max(1.0), "{} {}", found, sum / n);
    }
}

#[test]
fn causal_routing_reads_the_token_alone() {
    let router = DepthRouter::new(vec![2.0], 0.125).unwrap();
    let x = [0.5, -0.5, 0.0, 1e-30];
    let route = router.route_causal(&x, 4, None).unwrap();
    assert_eq!(route.passes, [true, false, false, true]);
    assert_eq!(route.gates, [1.0, 0.0, 0.0, 2e-30]);
    // A predictor decides, the router's score remains the gate.
    let predicted = router
        .route_causal(&x, 4, Some(&[-1.0, 1.0, 0.0, 3.0]))
        .unwrap();
    assert_eq!(predicted.passes, [false, true, false, true]);
    assert_eq!(predicted.gates, [0.0, -1.0, 0.0, 2e-30]);
    let alone = router.route_causal(&x[1..2], 1, None).unwrap();
    assert_eq!(alone.passes, route.passes[1..2]);
}

#[test]
fn an_eighth_of_a_sequence_passes() {
    let router = DepthRouter::new(vec![1.0], 0.125).unwrap();
    assert_eq!(
        [0, 1, 8, 9, 2048].map(|n| router.capacity(n)),
        [0, 1, 1, 2, 256]
    );
    let all = DepthRouter::new(vec![1.0], 1.0).unwrap();
    assert_eq!(all.capacity(7), 7);
    let x: Vec<f32> = (0..2048).map(|token| (token * 37 % 2048) as f32).collect();
    let route = router.route(&x, 2048, 2048, None).unwrap();
    assert_eq!(route.passes.iter().filter(|&&passes| passes).count(), 256);
    assert!((0..2048).all(|token| route.passes[token] == (x[token] >= 1792.0)));
}

#[test]
fn misfits_are_named() {
    for (weight, capacity, field) in [
        (vec![1.0], 0.0, "depth capacity"),
        (vec![1.0], 1.5, "depth capacity"),
        (vec![1.0], f64::NAN, "depth capacity"),
        (vec![], 0.5, "depth weight"),
        (vec![1.0, f32::NAN], 0.5, "depth weight"),
    ] {
        let error = DepthRouter::new(weight, capacity).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
    let router = DepthRouter::new(vec![1.0, 1.0], 0.5).unwrap();
    assert_eq!(router.hidden(), 2);
    let refused = |x: &[f32], tokens, sequence, padding| {
        let error = router.route(x, tokens, sequence, padding).unwrap_err();
        error.to_string()
    };
    assert!(refused(&[0.0; 3], 2, 2, None).starts_with("hidden states: 3"));
    assert!(refused(&[0.0; 4], 2, 0, None).starts_with("sequence: 0"));
    assert!(refused(&[0.0; 6], 3, 2, None).starts_with("sequence: 2"));
    assert!(refused(&[0.0; 4], 2, 2, Some(&[true])).starts_with("padding: 1"));
    let nan = [0.0, 0.0, f32::NAN, 0.0];
    assert!(refused(&nan, 2, 2, None).starts_with("depth score: NaN at token 1"));
    assert!(router.route_causal(&[0.0; 4], 2, Some(&[0.0])).is_err());
    assert!(
        router
            .route_causal(&[0.0; 4], 2, Some(&[0.0, f32::NAN]))
            .is_err()
    );
    assert!(predictor_loss(&[0.0], &[], None).is_err());
    assert!(predictor_loss(&[0.0], &[true], Some(&[])).is_err());
    assert!(predictor_loss(&[f32::NAN], &[true], None).is_err());
    assert_eq!(predictor_loss(&[], &[], None).unwrap(), 0.0);
}
