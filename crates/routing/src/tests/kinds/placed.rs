//! Rules that look at domains.

use proptest::prelude::*;

use super::{
    super::cases, assert_close, below, config, message, numbers, ranked, rng, softmax, transparent,
    wide,
};
use crate::{Domains, GateContext, kinds::home_of};

/// Domains of every expert: each holds some, and an expert may have a second one.
fn domains(seed: u64, e: usize, count: usize, replicas: bool) -> (Domains, Vec<Vec<u32>>) {
    let mut random = rng(seed);
    let of: Vec<Vec<u32>> = (0..e)
        .map(|expert| {
            let first = if expert < 2 * count {
                expert % count
            } else {
                below(&mut random, count)
            };
            let mut of = vec![first as u32];
            if replicas && below(&mut random, 3) == 0 && count > 1 {
                of.push(((first + 1) % count) as u32);
            }
            of
        })
        .collect();
    (Domains::new(&of, count).unwrap(), of)
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn node_limited_chooses_within_the_best_domains(
        seed: u64, count in 2_usize..5, keep in 1_usize..3, extra in 0_usize..6,
    ) {
        let (e, k, tokens) = (2 * count + extra, 2, 8);
        let (domains, of) = domains(seed, e, count, true);
        let gate = transparent(config(&format!("node-limited:{keep}"), e, k));
        let logits = numbers(seed, tokens * e, 2.0);
        let context = GateContext { domains: Some(&domains), ..GateContext::default() };
        let route = gate.route_in(&logits, tokens, &context).unwrap();
        for token in 0..tokens {
            let scores = softmax(&wide(&logits[token * e..][..e]));
            let best: Vec<f64> = (0..count).map(|domain| {
                let mut own: Vec<f64> = (0..e)
                    .filter(|&e| of[e][0] as usize == domain).map(|e| scores[e]).collect();
                own.sort_by(|a, b| b.total_cmp(a));
                own.iter().take((k / keep).max(1)).sum()
            }).collect();
            let kept = &ranked(&best)[..keep];
            let expected: Vec<u32> = ranked(&scores).into_iter()
                .filter(|&e| kept.contains(&of[e as usize][0])).take(k).collect();
            prop_assert_eq!(&route.experts[token * k..][..k], &expected[..]);
            let sum: f64 = expected.iter().map(|&e| scores[e as usize]).sum();
            for (weight, &expert) in route.weights[token * k..].iter().zip(&expected) {
                assert_close(*weight, scores[expert as usize] / sum);
            }
        }
    }

    #[test]
    fn topology_lets_the_best_of_a_domain_leave(
        seed: u64, count in 1_usize..4, percent in 0_u8..=100, given: bool, tokens in 0_usize..40,
    ) {
        let outgoing = f32::from(percent) / 100.0;
        let (e, k) = (2 * count + 3, 2);
        let (domains, of) = domains(seed, e, count, true);
        let gate = transparent(config(&format!("topology:{outgoing}"), e, k));
        let logits = numbers(seed, tokens * e, 2.0);
        let mut random = rng(seed);
        let homes: Vec<u32> = (0..tokens).map(|token| {
            if given { return below(&mut random, count) as u32; }
            let starts = (0..count).filter(|shard| tokens * shard / count <= token);
            starts.max().unwrap() as u32
        }).collect();
        let padding: Vec<bool> = (0..tokens).map(|_| below(&mut random, 4) == 0).collect();
        let context = GateContext {
            domains: Some(&domains),
            homes: given.then_some(&homes),
            padding: Some(&padding),
            ..GateContext::default()
        };
        let route = gate.route_in(&logits, tokens, &context).unwrap();

        let scores: Vec<Vec<f64>> = logits.chunks(e).map(|row| softmax(&wide(row))).collect();
        let inside = |token: usize, expert: u32| of[expert as usize].contains(&homes[token]);
        let mut expected: Vec<Vec<u32>> =
            scores.iter().map(|row| ranked(row)[..k].to_vec()).collect();
        for home in 0..count as u32 {
            let own: Vec<usize> = (0..tokens)
                .filter(|&token| homes[token] == home && !padding[token]).collect();
            let outside = |token: usize| expected[token].iter()
                .filter(|&&expert| !inside(token, expert))
                .map(|&expert| scores[token][expert as usize]).reduce(f64::max);
            let mut leaving: Vec<(usize, f64)> = own.iter()
                .filter_map(|&token| outside(token).map(|score| (token, score))).collect();
            leaving.sort_by(|a, b| b.1.total_cmp(&a.1));
            let quota = (own.len() as f64 * f64::from(outgoing)).floor() as usize;
            let back: Vec<usize> = leaving.iter().skip(quota).map(|&(token, _)| token).collect();
            for token in back {
                let held = ranked(&scores[token]).into_iter().filter(|&e| inside(token, e));
                expected[token] = held.take(k).collect();
            }
            let left = own.iter().filter(|&&token| {
                route.experts[token * k..][..k].iter().any(|&expert| !inside(token, expert))
            });
            prop_assert!(left.count() <= quota);
        }
        prop_assert_eq!(route.experts, expected.concat());
    }
}

#[test]
fn homes_are_the_shards_of_the_exchange() {
    for (tokens, domains) in [(1, 3), (7, 3), (8, 3), (9, 3), (2, 5), (100, 7), (4, 1)] {
        for shard in 0..domains {
            let rows = tokens * shard / domains..tokens * (shard + 1) / domains;
            for token in rows {
                assert_eq!(
                    home_of(token, tokens, domains),
                    shard,
                    "{token} of {tokens}"
                );
            }
        }
    }
}

#[test]
fn domains_that_cannot_serve_a_token_are_refused() {
    let refused = |name: &str, of: &[[u32; 1]], count| {
        let domains = Domains::new(of, count).unwrap();
        let context = GateContext {
            domains: Some(&domains),
            ..GateContext::default()
        };
        message(transparent(config(name, 4, 2)).route_in(&[0.0; 16], 4, &context))
    };
    assert_eq!(
        refused("node-limited:1", &[[0], [0], [0], [1]], 2),
        "domains: 1 experts in the smallest 1, expected at least 2, the choices of a token"
    );
    assert_eq!(
        refused("topology", &[[0], [0], [0], [1]], 2),
        "domains: 1 experts in domain 1, expected at least 2, the choices of a token that may not \
         leave it"
    );
    assert_eq!(
        refused("topology", &[[0], [0], [0]], 1),
        "domains: 3 experts, expected 4, the number of experts"
    );
}
