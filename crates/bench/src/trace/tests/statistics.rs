//! Figures against slow countings, and expectations against simulation.

use super::*;
use crate::draw::{generator, shuffle};
use crate::workload::{Draws, WorkloadShape};

fn draws(pattern: &str, tokens: usize, experts: usize, top_k: usize) -> Draws {
    let shape = WorkloadShape {
        tokens,
        hidden: 0,
        experts,
        top_k,
    };
    Draws::new(pattern.parse().unwrap(), shape, None, 2).unwrap()
}

/// Every token takes any set of experts.
fn chance(tokens: u32, experts: u32, top_k: usize, seed: u64) -> Trace {
    let mut random = generator(seed, 0);
    let mut order: Vec<u32> = (0..experts).collect();
    let mut chosen = Vec::new();
    for _ in 0..tokens {
        shuffle(&mut random, &mut order);
        chosen.extend_from_slice(&order[..top_k]);
    }
    trace_of(experts, top_k as u32, vec![chosen])
}

/// A trace of one layer.
fn trace_of(experts: u32, top_k: u32, steps: Vec<Vec<u32>>) -> Trace {
    let records = (0..).zip(steps).map(|(step, experts)| Record {
        step,
        layer: 0,
        tokens: experts.len() as u32 / top_k,
        ranks: None,
        token_ids: None,
        experts,
        weights: None,
    });
    let header = Header {
        experts,
        top_k,
        layers: 1,
        source: String::new(),
        seed: None,
    };
    Trace::new(header, records.collect()).unwrap()
}

#[test]
fn expectations_are_those_of_chance() {
    for (tokens, experts, top_k) in [(64, 8, 2), (20, 32, 2), (200, 64, 8), (7, 8, 1), (50, 4, 4)] {
        let runs = 2000;
        let mut sums = [0.0; 7];
        let mut expected = [0.0; 7];
        for seed in 0..runs {
            let stats = chance(tokens, experts, top_k, seed).stats();
            let layer = &stats.layers[0];
            let figures = [
                layer.gini,
                layer.max_over_mean,
                layer.entropy,
                layer.idle,
                layer.same_first,
                layer.first_in_next_two,
                layer.share_in_first_two,
            ];
            for (at, figure) in figures.into_iter().enumerate() {
                sums[at] += figure.measured.unwrap_or(figure.uniform) / runs as f64;
                expected[at] = figure.uniform;
            }
        }
        // The maximum is an approximation; the others are exact up to the noise of the runs.
        let mean = f64::from(tokens) * top_k as f64 / f64::from(experts);
        let of_max = if mean < 2.0 { 0.12 } else { 0.05 };
        let allowed = [0.01, of_max, 0.004, 0.25, 0.02, 0.02, 0.03];
        for at in 0..7 {
            let relative = [0.0, expected[1], 0.0, 0.0, 0.0, 0.0, 0.0][at].max(1.0);
            let off = (sums[at] - expected[at]).abs() / relative;
            assert!(
                off <= allowed[at],
                "{tokens} x {experts} top-{top_k}, figure {at}: {} for {}",
                sums[at],
                expected[at]
            );
        }
    }
}

#[test]
fn mixtrals_chance_is_in_its_table() {
    let stats = draws("balanced", 8, 8, 2).trace(0..1).unwrap().stats();
    let layer = &stats.layers[0];
    assert_eq!(layer.same_first.uniform, 0.125);
    assert_eq!(layer.first_in_next_two.uniform, 0.25);
    assert!((layer.share_in_first_two.uniform - 13.0 / 28.0).abs() < 1e-12);
}

#[test]
fn pairs_are_counted_as_defined() {
    // Pairs: (0 1)(0 2): same first. (0 2)(3 0): first among two. (3 0)(0 1): share.
    // (0 1)(2 3): nothing. (2 3)(none): no pair, nor the next.
    let none = NO_CHOICE;
    let rows = vec![0, 1, 0, 2, 3, 0, 0, 1, 2, 3, none, 1, 2, 3];
    let mut trace = trace_of(4, 2, vec![rows]);
    let layer = &trace.stats().layers[0];
    assert_eq!(layer.same_first.measured, Some(0.25));
    assert_eq!(layer.first_in_next_two.measured, Some(0.5));
    assert_eq!(layer.share_in_first_two.measured, Some(0.75));
    assert_eq!((layer.tokens, layer.choices), (7, 13));
    assert!(!layer.ascending);
    // Tokens of two ranks are no neighbours.
    trace.records[0].ranks = Some(vec![0, 1, 0, 1, 0, 1, 0]);
    assert_eq!(trace.stats().layers[0].same_first.measured, None);
}

#[test]
fn loads_are_counted_over_steps() {
    let trace = trace_of(
        4,
        1,
        vec![vec![1, 1, 1, 3], vec![1, 1, 3, 1], vec![0, 1, 2, 3]],
    );
    let layer = &trace.stats().layers[0];
    assert_eq!((layer.steps, layer.tokens), (3, 12));
    let hottest: Vec<_> = layer
        .hottest
        .iter()
        .map(|load| (load.expert, load.choices))
        .collect();
    assert_eq!(hottest, [(1, 7), (3, 3), (0, 1), (2, 1)]);
    assert_eq!(layer.max_over_mean.measured, Some(7.0 / 3.0));
    // The first two steps have the same loads; the third is even and says nothing.
    assert!((layer.load_correlation.measured.unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(layer.first_in_next_two.measured, None, "k is 1");
    let sorted = trace_of(4, 2, vec![vec![0, 1, 2, 3]]).stats();
    assert!(sorted.layers[0].ascending);
    assert_eq!(sorted.layers[0].load_correlation.measured, None);
    let json = serde_json::to_value(&sorted).unwrap();
    assert_eq!(json["layers"][0]["same_first"]["uniform"], 0.25);
}

#[test]
fn figures_tell_workloads_apart() {
    let of = |pattern: &str| {
        let trace = draws(pattern, 256, 16, 2).trace(0..20).unwrap();
        trace.stats().layers.remove(0)
    };
    let measured = |figure: stats::Figure| figure.measured.unwrap();
    assert!(measured(of("balanced").gini) < 0.01);
    assert!(measured(of("zipf:1.5").gini) > 0.5);
    assert!(measured(of("w1").load_correlation) > 0.9);
    assert!(measured(of("w6").load_correlation) < 0.2);
    assert_eq!(measured(of("w5").idle), 4.0);
    let local = of("locality:0.5");
    assert!((measured(local.same_first) - 0.5).abs() < 0.05);
    assert!(local.same_first.uniform == 1.0 / 16.0);
}
