//! Shares of choices that overflow when choices are uniform: exact, and admitted by our code.

use expertmesh_routing::{AdmitContext, CapacityConfig, Fate, Overflow, admit};

use crate::published::ranks::uniform_route;
use crate::published::{PublishedError, Row, Section};

/// Tokens, experts, choices; capacity factors; published shares in percent.
const FACTORS: [f64; 5] = [1.0, 1.1, 1.25, 1.5, 2.0];
const PUBLISHED: [([usize; 3], [f64; 5]); 5] = [
    ([1024, 8, 2], [2.16, 0.068, 0.0, 0.0, 0.0]),
    ([1024, 64, 2], [6.92, 2.50, 0.68, 0.02, 0.0]),
    ([4096, 64, 2], [3.47, 0.55, 0.008, 0.0, 0.0]),
    ([128, 64, 2], [19.23, 9.95, 9.95, 4.64, 0.75]),
    ([4096, 128, 1], [7.01, 2.57, 0.72, 0.02, 0.0]),
];
/// Batches that are admitted for the second column of figures.
const BATCHES: u64 = 24;
/// The least that a bound asks for: more than any rounding of figures above half a percent.
const LEAST_BOUND: f64 = 0.01;

/// Share of choices above capacity, percent: expected, by the binomial distribution of an expert's
/// demand. An expert is one of a token's k distinct choices with probability k/E, tokens are
/// independent, so demand X is binomial(T, k/E), and the share is E·E[max(0, X − C)] / (T·k) with
/// C = ⌈T·k/E · factor⌉.
pub(super) fn exact_percent(tokens: usize, experts: usize, k: usize, factor: f64) -> f64 {
    let p = k as f64 / experts as f64;
    let capacity = (tokens as f64 * p * factor).ceil();
    let (mut log_choose, mut expected) = (0.0, 0.0);
    for x in 0..=tokens {
        let at = x as f64;
        if x > 0 {
            log_choose += ((tokens as f64 - at + 1.0) / at).ln();
        }
        if at > capacity {
            let log = log_choose + at * p.ln() + (tokens as f64 - at) * (1.0 - p).ln();
            expected += (at - capacity) * log.exp();
        }
    }
    100.0 * expected * experts as f64 / (tokens * k) as f64
}

/// The same of batches that our admission drops from, percent.
fn admitted_percent(
    tokens: usize,
    experts: usize,
    k: usize,
    factor: f64,
) -> Result<f64, PublishedError> {
    let capacity = CapacityConfig {
        factor: Some(factor),
        overflow: Overflow::DropPosition,
        ..CapacityConfig::default()
    };
    let mut dropped = 0;
    for seed in 0..BATCHES {
        let route = uniform_route(tokens, experts, k, seed);
        let admission = admit(&route, &capacity, &AdmitContext::default())?;
        dropped += admission
            .fates
            .iter()
            .filter(|fate| **fate == Fate::Dropped)
            .count();
    }
    Ok(100.0 * dropped as f64 / (BATCHES as usize * tokens * k) as f64)
}

/// What rounding may have taken from a published percentage: two digits behind the point, or three.
fn half_a_digit(share: f64) -> f64 {
    let hundredths = share * 100.0;
    match (hundredths - hundredths.round()).abs() < 1e-6 {
        true => 0.005,
        false => 0.0005,
    }
}

/// Published shares beside the exact ones, and those of admitted batches in the name.
///
/// # Errors
/// [`PublishedError::Routing`] if routes cannot be admitted.
pub fn overflow_shares() -> Result<Section, PublishedError> {
    let mut rows = Vec::new();
    for ([tokens, experts, k], shares) in PUBLISHED {
        for (factor, share) in FACTORS.into_iter().zip(shares) {
            // A share of 0 has no relative error; that nothing else is there is shown by the rest.
            if share == 0.0 {
                continue;
            }
            let admitted = admitted_percent(tokens, experts, k, factor)?;
            rows.push(Row {
                name: format!(
                    "T {tokens}, E {experts}, k {k}, factor {factor} (admitted {admitted:.2})"
                ),
                published: share,
                predicted: exact_percent(tokens, experts, k, factor),
                bound: Some((half_a_digit(share) / share).max(LEAST_BOUND)),
            });
        }
    }
    Ok(Section {
        title: "Overflow of uniform choices: share dropped".to_owned(),
        unit: "%".to_owned(),
        parameters: vec![
            "exact: binomial demand, capacity ⌈T·k/E · factor⌉; nothing is fitted".to_owned(),
            format!("admitted: {BATCHES} seeded batches through the admission that every run uses"),
        ],
        rows,
        note: None,
    })
}
