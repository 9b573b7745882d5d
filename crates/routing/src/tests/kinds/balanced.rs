//! Rules that even out load, and rules whose number of choices follows from scores.

use proptest::prelude::*;

use super::{
    super::cases, assert_close, config, message, numbers, ranked, softmax, transparent, wide,
};
use crate::GateContext;

/// Megatron-LM's `sinkhorn`, line by line.
fn sinkhorn(logits: &[f64], e: usize, tolerance: f64) -> Vec<f64> {
    let (t, eps) = (logits.len() / e, 1e-8);
    let cost: Vec<f64> = logits.iter().map(|logit| logit.exp()).collect();
    let (mut d0, mut d1) = (vec![1.0; t], vec![1.0; e]);
    let mut error = 1e9;
    while error > tolerance {
        for token in 0..t {
            let sum: f64 = (0..e).map(|i| d1[i] * cost[token * e + i]).sum();
            d0[token] = 1.0 / t as f64 / (sum + eps);
        }
        error = 0.0;
        for expert in 0..e {
            let sum: f64 = (0..t).map(|i| d0[i] * cost[i * e + expert]).sum();
            let next: f64 = 1.0 / e as f64 / (sum + eps);
            error += (d1[expert] - next).abs() / e as f64;
            d1[expert] = next;
        }
    }
    (0..t * e)
        .map(|at| d1[at % e] * cost[at] * d0[at / e])
        .collect()
}

#[test]
fn sinkhorn_is_megatrons_iteration() {
    for (seed, k) in [(1, 1), (2, 2), (3, 3)] {
        let (e, tokens) = (6, 40);
        let gate = transparent(config("sinkhorn", e, k));
        let logits = numbers(seed, tokens * e, 2.0);
        let route = gate.route(&logits, tokens, None).unwrap();
        let balanced = sinkhorn(&wide(&logits), e, 1e-4);
        for token in 0..tokens {
            let expected = &ranked(&balanced[token * e..][..e])[..k];
            assert_eq!(&route.experts[token * k..][..k], expected);
            let row = wide(&logits[token * e..][..e]);
            for (weight, &expert) in route.weights[token * k..].iter().zip(expected) {
                let logit = row[expert as usize];
                let score = match k {
                    1 => 1.0 / (1.0 + (-logit).exp()),
                    _ => softmax(&row)[expert as usize],
                };
                assert_close(*weight, score);
            }
        }
    }
}

#[test]
fn sinkhorn_evens_out_a_skew_that_keys_follow() {
    let (e, tokens) = (4, 200);
    let mut logits = numbers(1, tokens * e, 1.0);
    // Everybody likes expert 0 best, some more than others.
    logits.iter_mut().step_by(e).for_each(|logit| *logit += 3.0);
    let keys = transparent(config("topk", e, 1));
    assert_eq!(keys.route(&logits, tokens, None).unwrap().demand()[0], 200);
    let demand = transparent(config("sinkhorn", e, 1))
        .route(&logits, tokens, None)
        .unwrap()
        .demand();
    assert!(
        demand.iter().all(|&count| (35..=65).contains(&count)),
        "{demand:?}"
    );
}

#[test]
fn sinkhorn_leaves_padding_out_and_takes_any_finite_logits() {
    let (e, tokens) = (5, 30);
    let gate = transparent(config("sinkhorn", e, 1));
    let logits = numbers(4, tokens * e, 3.0);
    let alone = gate.route(&logits, tokens, None).unwrap();
    // The same tokens with padding between them, which would upset the balance.
    let mut padded = vec![];
    for row in logits.chunks(e) {
        padded.extend_from_slice(row);
        padded.extend([9.0, 0.0, 0.0, 0.0, 0.0]);
    }
    let padding: Vec<bool> = (0..2 * tokens).map(|token| token % 2 == 1).collect();
    let route = gate.route(&padded, 2 * tokens, Some(&padding)).unwrap();
    let real: Vec<u32> = route.experts.iter().step_by(2).copied().collect();
    assert_eq!(real, alone.experts);
    assert!(
        route
            .experts
            .iter()
            .skip(1)
            .step_by(2)
            .all(|&expert| expert == 0)
    );

    let far = [3e38, -3e38, 0.0, 1e30, -1e30];
    gate.route(&far.repeat(3), 3, None).unwrap();
    let bad = [0.0, f32::NAN, 0.0, 0.0, 0.0];
    let error = message(gate.choose(&bad, &GateContext::default()));
    assert!(
        error.starts_with("logits[token 0][expert 1]: NaN"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn expert_choice_is_the_best_tokens_of_each_expert(
        e in 1_usize..8, tokens in 0_usize..24, seed: u64, halves in 1_u8..8,
        sequence in 0_usize..9, ties: bool,
    ) {
        let factor = f32::from(halves) / 2.0;
        let gate = transparent(config(&format!("expert-choice:{factor}"), e, 1));
        let mut logits = numbers(seed, tokens * e, 2.0);
        if ties {
            logits.iter_mut().for_each(|logit| *logit = logit.round());
        }
        let padding: Vec<bool> = (0..tokens).map(|token| (seed >> (token % 64)) & 3 == 0).collect();
        let context = GateContext { padding: Some(&padding), sequence, ..GateContext::default() };
        let route = gate.route_in(&logits, tokens, &context).unwrap();
        route.check().unwrap();

        let length = if sequence == 0 { tokens.max(1) } else { sequence };
        let mut expected = vec![vec![]; tokens];
        for start in (0..tokens).step_by(length) {
            let real: Vec<usize> = (start..tokens.min(start + length))
                .filter(|&token| !padding[token]).collect();
            let capacity = (real.len() as f64 * f64::from(factor) / e as f64).ceil() as usize;
            for expert in 0..e {
                let score = |&token: &usize| {
                    // In f32, because in f64 some scores would not tie.
                    let mut row = logits[token * e..][..e].to_vec();
                    expertmesh_kernels::math::softmax(&mut row);
                    row[expert]
                };
                let mut order = real.clone();
                // Stable: of equal scores the lower token is first.
                order.sort_by(|a, b| score(b).total_cmp(&score(a)));
                for &token in order.iter().take(capacity) {
                    expected[token].push(expert as u32);
                }
                let load = order.len().min(capacity);
                let found = real.iter().filter(|&&token| {
                    route.experts[route.choices_of(token)].contains(&(expert as u32))
                });
                prop_assert_eq!(found.count(), load);
            }
        }
        for (token, expected) in expected.iter().enumerate() {
            let of = route.choices_of(token);
            prop_assert_eq!(&route.experts[of.clone()], &expected[..]);
            let scores = softmax(&wide(&logits[token * e..][..e]));
            for (weight, &expert) in route.weights[of].iter().zip(expected) {
                assert_close(*weight, scores[expert as usize]);
            }
        }
    }

    #[test]
    fn top_p_takes_the_fewest_that_reach_it(seed: u64, percent in 1_u8..=100) {
        let (e, k, tokens) = (8, 5, 6);
        let p = f32::from(percent) / 100.0;
        let gate = transparent(config(&format!("top-p:{p}"), e, k));
        let logits = numbers(seed, tokens * e, 3.0);
        let route = gate.route(&logits, tokens, None).unwrap();
        for token in 0..tokens {
            let scores = softmax(&wide(&logits[token * e..][..e]));
            let order = ranked(&scores);
            let mass = |count: usize| -> f64 {
                order[..count].iter().map(|&e| scores[e as usize]).sum()
            };
            let enough = (1..=k).find(|&count| mass(count) >= f64::from(p)).unwrap_or(k);
            let of = route.choices_of(token);
            prop_assert_eq!(&route.experts[of.clone()], &order[..enough]);
            for (weight, &expert) in route.weights[of].iter().zip(&order) {
                assert_close(*weight, scores[expert as usize]);
            }
        }
    }

    #[test]
    fn a_threshold_takes_what_exceeds_it(seed: u64, percent in 0_u8..50) {
        let (e, k, tokens) = (8, 4, 6);
        let least = f32::from(percent) / 100.0;
        let gate = transparent(config(&format!("threshold:{least}"), e, k));
        let logits = numbers(seed, tokens * e, 3.0);
        let route = gate.route(&logits, tokens, None).unwrap();
        for token in 0..tokens {
            let scores = softmax(&wide(&logits[token * e..][..e]));
            let order = ranked(&scores);
            let above = scores.iter().filter(|&&score| score > f64::from(least)).count();
            let expected = &order[..above.clamp(1, k)];
            prop_assert_eq!(&route.experts[route.choices_of(token)], expected);
        }
    }
}
