use super::{Batch, VOCABULARY, assert_close, config, gate, matrix};
use crate::{
    Gate, GateContext,
    kinds::{balanced_table, hash_expert},
};

fn hashed(seed: u64, id: u32, experts: usize, k: usize) -> Vec<u32> {
    let mut chosen = vec![];
    for _ in 0..k {
        chosen.push(hash_expert(seed, id, experts, &chosen));
    }
    chosen
}

#[test]
fn the_hash_is_the_documented_one() {
    // Computed by a few lines of Python from the documentation; its `mix` gives SplitMix64's
    // published first output for seed 0.
    assert_eq!(hashed(0, 0, 8, 4), [5, 4, 2, 6]);
    assert_eq!(hashed(0, 1, 8, 4), [2, 1, 7, 0]);
    assert_eq!(hashed(7, 12345, 64, 6), [1, 8, 14, 3, 31, 2]);
    assert_eq!(hashed(u64::MAX, u32::MAX, 3, 3), [1, 2, 0]);
}

#[test]
fn hashed_experts_are_even() {
    let (experts, ids) = (10, 20_000);
    let mut counts = vec![0_u32; experts];
    for id in 0..ids {
        for expert in hashed(3, id, experts, 3) {
            counts[expert as usize] += 1;
        }
    }
    let mean = f64::from(ids) * 3.0 / experts as f64;
    for count in counts {
        // Five standard deviations of a binomial with p = 0.3.
        assert!(
            (f64::from(count) - mean).abs() < 5.0 * (mean * 0.7).sqrt(),
            "{count}"
        );
    }
}

#[test]
fn a_hash_router_reads_token_ids_and_nothing_else() {
    let gate = gate(config("hash:9", 8, 3), 1);
    let batch = Batch::new(2, 12, gate.config());
    let route = gate.route_in(&batch.x, 12, &batch.context()).unwrap();
    for (token, &id) in batch.ids.iter().enumerate() {
        assert_eq!(route.experts[token * 3..][..3], hashed(9, id, 8, 3));
    }
    assert!(route.weights.iter().all(|&weight| weight == 1.0 / 3.0));
    let ids = [batch.ids[4]; 12];
    let context = GateContext {
        token_ids: Some(&ids),
        step: 99,
        ..batch.context()
    };
    let other = gate.route_in(&batch.x, 12, &context).unwrap();
    assert!(
        other
            .experts
            .chunks(3)
            .all(|row| row == &route.experts[12..15])
    );
}

#[test]
fn a_table_gives_experts_and_the_scores_their_weights() {
    let (e, k) = (8, 2);
    let gate = gate(config("hash-table", e, k), 1);
    let frequencies: Vec<u64> = (0..VOCABULARY as u64).map(|id| 1000 / (id + 1)).collect();
    let table = balanced_table(&frequencies, e, k).unwrap();
    let batch = Batch::new(2, 12, gate.config());
    let route = gate.route_in(&batch.x, 12, &batch.context()).unwrap();
    for (token, &id) in batch.ids.iter().enumerate() {
        let experts = &table[id as usize * k..][..k];
        assert_eq!(&route.experts[token * k..][..k], experts);
        let score = |&expert: &u32| {
            let logit = f64::from(route.logits[token * e + expert as usize]);
            logit.exp().ln_1p().sqrt()
        };
        let scores: Vec<f64> = experts.iter().map(score).collect();
        let sum: f64 = scores.iter().sum();
        for (weight, score) in route.weights[token * k..].iter().zip(&scores) {
            // DeepSeek-V4's routers multiply by 1.5.
            assert_close(*weight, 1.5 * score / sum);
        }
    }
}

#[test]
fn a_balanced_table_is_the_greedy_one() {
    let mut random = super::rng(5);
    for (experts, k) in [(4, 1), (5, 2), (7, 3), (3, 3)] {
        // Few values, so that frequencies tie.
        let frequencies: Vec<u64> = (0..40)
            .map(|_| super::below(&mut random, 6) as u64)
            .collect();
        let mut loads = vec![0_u64; experts];
        let mut expected = vec![vec![]; frequencies.len()];
        let mut left: Vec<usize> = (0..frequencies.len()).collect();
        while !left.is_empty() {
            // The most frequent, the lowest id among equals.
            let most = left.iter().map(|&id| frequencies[id]).max().unwrap();
            let at = left.iter().position(|&id| frequencies[id] == most).unwrap();
            let id = left.remove(at);
            for _ in 0..k {
                let free = (0..experts).filter(|e| !expected[id].contains(&(*e as u32)));
                let lightest = free.min_by_key(|&expert| (loads[expert], expert)).unwrap();
                expected[id].push(lightest as u32);
            }
            for &expert in &expected[id] {
                loads[expert as usize] += most;
            }
        }
        let table = balanced_table(&frequencies, experts, k).unwrap();
        assert_eq!(table, expected.concat(), "{experts} experts, {k} each");
    }
    assert!(balanced_table(&[1], 2, 3).is_err());
    assert_eq!(balanced_table(&[], 2, 1).unwrap(), []);
}

#[test]
fn a_balanced_table_balances_a_skewed_text() {
    // Zipf's law over 1000 ids: the first alone has 13 % of the text.
    let frequencies: Vec<u64> = (0..1000).map(|id| 1_000_000 / (id + 1)).collect();
    let experts = 7;
    let table = balanced_table(&frequencies, experts, 1).unwrap();
    let mut loads = vec![0; experts];
    for (frequency, expert) in frequencies.iter().zip(table) {
        loads[expert as usize] += frequency;
    }
    let mean = frequencies.iter().sum::<u64>() as f64 / experts as f64;
    let most = *loads.iter().max().unwrap() as f64;
    assert!(most / mean < 1.001, "{}", most / mean);
    let hidden = Gate::new(config("hash-balanced", 7, 1), matrix(1, 7, 4), None, None);
    assert!(hidden.unwrap().with_token_table(vec![0; 1000]).is_ok());
}
