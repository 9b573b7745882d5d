//! The overflow of uniform routing against its exact expectation.
//!
//! If every token chooses `k` of `E` experts uniformly, an expert's load is
//! `Binomial(T, k/E)`, so the expected share of choices dropped at capacity `C` is
//! `E · E[max(0, Binomial(T, k/E) - C)] / (T · k)`.

use super::{admit, below, rng};
use crate::{CapacityConfig, Fate, Overflow, Route};

/// The expected dropped share, summed term by term from the mass at zero.
fn expected_share(tokens: usize, e: usize, k: usize, capacity: u64) -> f64 {
    let p = k as f64 / e as f64;
    let mut mass = (1.0 - p).powi(i32::try_from(tokens).unwrap());
    let mut excess = 0.0;
    for load in 0..=tokens {
        excess += mass * (load as f64 - capacity as f64).max(0.0);
        mass *= (tokens - load) as f64 / (load + 1) as f64 * p / (1.0 - p);
    }
    excess * e as f64 / (tokens * k) as f64
}

fn uniform_route(tokens: usize, e: usize, k: usize, seed: u64) -> Route {
    let mut rng = rng(seed);
    let mut experts = Vec::with_capacity(tokens * k);
    for token in 0..tokens {
        while experts.len() < (token + 1) * k {
            let expert = below(&mut rng, e) as u32;
            if !experts[token * k..].contains(&expert) {
                experts.push(expert);
            }
        }
    }
    let weights = (0..tokens * k)
        .map(|_| below(&mut rng, 1000) as f32)
        .collect();
    Route {
        tokens,
        top_k: k,
        offsets: None,
        experts_total: e,
        logits: vec![],
        experts,
        weights,
        padding: None,
    }
}

/// (T, E, k) and the dropped share in percent at each factor of [`FACTORS`], worked out apart
/// from this code.
const ROWS: [((usize, usize, usize), [f64; 5]); 4] = [
    ((1024, 8, 2), [2.16, 0.068, 0.0, 0.0, 0.0]),
    ((1024, 64, 2), [6.92, 2.50, 0.68, 0.02, 0.0]),
    ((128, 64, 2), [19.23, 9.95, 9.95, 4.64, 0.75]),
    ((4096, 128, 1), [7.01, 2.57, 0.72, 0.02, 0.0]),
];
const FACTORS: [f64; 5] = [1.0, 1.1, 1.25, 1.5, 2.0];

#[test]
fn the_expectation_has_the_known_values() {
    for ((tokens, e, k), percents) in ROWS {
        for (factor, percent) in FACTORS.into_iter().zip(percents) {
            let capacity = (tokens as f64 * k as f64 / e as f64 * factor).ceil() as u64;
            let share = 100.0 * expected_share(tokens, e, k, capacity);
            assert!(
                (share - percent).abs() < 0.006,
                "{tokens} {e} {k} {factor}: {share}"
            );
        }
    }
}

#[test]
fn uniform_routes_overflow_as_the_binomial_says() {
    for ((tokens, e, k), _) in &ROWS[..3] {
        let seeds = if *tokens > 500 { 400 } else { 5000 };
        let routes: Vec<Route> = (0..seeds)
            .map(|seed| uniform_route(*tokens, *e, *k, seed))
            .collect();
        for factor in FACTORS {
            for overflow in [Overflow::DropPosition, Overflow::DropWeight] {
                let rule = CapacityConfig {
                    factor: Some(factor),
                    overflow,
                    ..CapacityConfig::default()
                };
                let mut capacity = 0;
                let shares: Vec<f64> = routes
                    .iter()
                    .map(|route| {
                        let admission = admit(route, &rule).unwrap();
                        capacity = admission.capacity.unwrap();
                        let fates = admission.fates.iter();
                        let dropped = fates.filter(|&&fate| fate == Fate::Dropped).count();
                        dropped as f64 / route.choices() as f64
                    })
                    .collect();
                let n = shares.len() as f64;
                let mean = shares.iter().sum::<f64>() / n;
                let variance = shares
                    .iter()
                    .map(|share| (share - mean).powi(2))
                    .sum::<f64>();
                let error = (variance / (n - 1.0) / n).sqrt();
                let expected = expected_share(*tokens, *e, *k, capacity);
                let case = format!("{tokens} {e} {k} {factor} {overflow}: {mean} {expected}");
                if expected < 1e-4 {
                    // Too rare for the sample's own deviation to mean anything.
                    assert!(mean < 5e-4, "{case}");
                } else {
                    assert!((mean - expected).abs() <= 3.0 * error, "{case} +- {error}");
                }
            }
        }
    }
}
