//! Every pattern is what it says, and no other is.

use super::*;
use crate::trace::NO_CHOICE;
use crate::workload::locality::Locality;

/// Every pattern that draws.
const PATTERNS: [&str; 12] = [
    "balanced",
    "zipf:1.2",
    "hot:0.6",
    "hot-experts",
    "hot-rank",
    "spread-hot",
    "source-ragged",
    "zero-expert-rank",
    "rotating-hotspot:2",
    "burst:4",
    "drift:3",
    "locality:0.4",
];

fn shape(tokens: usize, experts: usize, top_k: usize) -> WorkloadShape {
    WorkloadShape {
        tokens,
        hidden: experts,
        experts,
        top_k,
    }
}

fn draws(pattern: &str, shape: WorkloadShape, seed: u64) -> Draws {
    Draws::new(pattern.parse().unwrap(), shape, None, seed).unwrap()
}

fn steps(draws: &Draws, steps: std::ops::Range<u64>) -> Vec<(u64, Vec<u32>)> {
    steps.map(|step| (step, draws.step(step))).collect()
}

#[test]
fn every_pattern_holds_its_claims() {
    for pattern in PATTERNS {
        for (tokens, experts, top_k) in [
            (96, 16, 2),
            (64, 8, 2),
            (33, 64, 8),
            (48, 9, 4),
            (200, 8, 1),
        ] {
            for seed in 0..4 {
                let draws = draws(pattern, shape(tokens, experts, top_k), seed);
                let test = draws.self_test(steps(&draws, 0..24)).unwrap();
                assert!(test.claims.len() >= 2, "{test}");
                assert!(
                    test.claims.iter().all(|claim| claim.measured.is_some()),
                    "{test}"
                );
                test.verdict()
                    .unwrap_or_else(|error| panic!("seed {seed}: {error}\n{test}"));
            }
        }
    }
}

#[test]
fn no_pattern_passes_for_another() {
    let shape = shape(256, 16, 2);
    for pattern in PATTERNS {
        for other in PATTERNS.into_iter().filter(|other| *other != pattern) {
            // W4 differs from W0 in who has tokens, which its padding says and not the choices.
            if (pattern, other) == ("source-ragged", "balanced") {
                continue;
            }
            for seed in 0..3 {
                let fed = draws(other, shape, seed);
                let test = draws(pattern, shape, seed)
                    .self_test(steps(&fed, 0..24))
                    .unwrap();
                assert!(test.verdict().is_err(), "{other} passes for {test}");
            }
        }
    }
}

#[test]
fn a_pattern_of_another_strength_is_found_out() {
    let shape = shape(256, 16, 2);
    for (pattern, other) in [
        ("zipf:1", "zipf:1.3"),
        ("hot:0.5", "hot:0.6"),
        ("hot-experts:0.5", "hot-experts:0.6"),
        ("rotating-hotspot:2", "rotating-hotspot:3"),
        ("burst:4", "burst:8"),
        ("drift:3", "drift:6"),
        ("locality:0.3", "locality:0.4"),
    ] {
        let fed = draws(other, shape, 1);
        let test = draws(pattern, shape, 1)
            .self_test(steps(&fed, 0..24))
            .unwrap();
        let error = test.verdict().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("workload {pattern}: ")),
            "{error}"
        );
    }
}

#[test]
fn the_gate_holds_the_claims_too() {
    for pattern in PATTERNS {
        for (experts, top_k) in [(16, 2), (32, 12)] {
            let shape = WorkloadShape {
                tokens: 80,
                hidden: 64,
                experts,
                top_k,
            };
            let gate = synthetic_gate(experts, 64, 3, 0);
            let pattern = pattern.parse().unwrap();
            let workload = Workload::new(pattern, shape, 3, Some(gate.clone())).unwrap();
            let weight = PackedMatrix::from_f32(&gate, experts, 64).unwrap();
            let config = RouterConfig::mixtral(experts, top_k, Format::F32);
            let gate = Gate::new(config, weight, None, None).unwrap();
            let routes = (0..12).map(|step| {
                let padding = workload.padding();
                let route = gate.route(&workload.rows(step), 80, padding).unwrap();
                (step, route.experts)
            });
            let test = workload.self_test(routes).unwrap();
            test.verdict()
                .unwrap_or_else(|error| panic!("{error}\n{test}"));
        }
    }
}

#[test]
fn ranks_change_what_is_hot_and_what_is_idle() {
    let shape = shape(120, 12, 2);
    for ranks in [2, 3, 5, 12] {
        for pattern in [
            Pattern::HotRank { share: 0.9 },
            Pattern::ZeroExpertRank,
            Pattern::SourceRagged,
        ] {
            let draws = Draws::new(pattern, shape, Some(ranks), 8).unwrap();
            let test = draws.self_test(steps(&draws, 0..6)).unwrap();
            test.verdict().unwrap();
        }
    }
    let ragged = Draws::new(Pattern::SourceRagged, shape, Some(3), 8).unwrap();
    let padding = ragged.padding().unwrap();
    let mut live: Vec<usize> = padding
        .chunks(40)
        .map(|rows| rows.iter().filter(|padding| !**padding).count())
        .collect();
    live.sort_unstable();
    assert_eq!(live, [14, 27, 40]);
    for (row, padding) in ragged.step(0).chunks(2).zip(padding) {
        assert_eq!(row.iter().all(|&expert| expert == NO_CHOICE), *padding);
    }
    let trace = ragged.trace(4..6).unwrap();
    assert_eq!(trace.records()[1].experts, ragged.step(5));
    assert_eq!(trace.records()[1].ranks.as_ref().unwrap()[79], 1);
}

#[test]
fn what_no_step_shows_is_said_and_not_judged() {
    let draws = draws("burst:10", shape(64, 8, 2), 0);
    let test = draws.self_test(steps(&draws, 0..5)).unwrap();
    test.verdict().unwrap();
    let text = test.to_string();
    assert!(
        text.contains("share of the hot set in bursts: claimed 0, not in the steps"),
        "{text}"
    );
    assert!(
        text.contains("share of that set in other steps: claimed 0.25, measured 0.2"),
        "{text}"
    );
    let workload = Workload::new(Pattern::Normal, SHAPE, 0, None).unwrap();
    let test = workload.self_test([(0, vec![0; 2])]).unwrap();
    assert_eq!(test.to_string(), "normal: claims nothing\n");
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let draws = draws("balanced", shape(2, 4, 1), 0);
    for (table, expected) in [
        (
            vec![0],
            "choices of step 7 is 1 experts, expected 2 tokens of 1",
        ),
        (vec![0, 4], "expert of step 7 is 4, expected below 4"),
    ] {
        let error = draws.self_test([(7, table)]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let none: [(u64, Vec<u32>); 0] = [];
    let error = draws.self_test(none).unwrap_err().to_string();
    assert!(error.contains("steps is 0"), "{error}");
}

#[test]
fn shapes_that_a_pattern_cannot_have_are_refused() {
    let new = |pattern: &str, ranks, experts, top_k| {
        let shape = shape(8, experts, top_k);
        Draws::new(pattern.parse().unwrap(), shape, ranks, 0)
            .unwrap_err()
            .to_string()
    };
    assert!(new("w5", Some(1), 8, 2).contains("top_k is 2, expected 1 to 0"));
    assert!(new("w5", None, 8, 7).contains("1 to 6, the experts that are left"));
    assert!(new("w2", Some(9), 8, 2).contains("ranks is 9, expected 1 to 8"));
    assert!(new("w2", Some(0), 8, 2).contains("ranks is 0"));
    assert!(new("locality", None, 2, 1).contains("at least 1/2"));
    assert!(new("normal", None, 2, 1).contains("pattern is normal"));
    assert!(new("w0", None, 2, 3).contains("top_k is 3"));
}

#[test]
fn a_set_gets_what_distinct_choices_can_give_it() {
    // Ranks of two experts, five choices: the set has at most two of them, and no fewer.
    let shape = shape(40, 8, 5);
    let draws = Draws::new(Pattern::HotRank { share: 0.5 }, shape, Some(4), 1).unwrap();
    let test = draws.self_test(steps(&draws, 0..4)).unwrap();
    let share = test
        .claims
        .iter()
        .find(|claim| claim.name.contains("experts of rank"))
        .unwrap();
    assert_eq!((share.claimed, share.measured), (0.4, Some(0.4)));
    // With every expert chosen nothing can be hot.
    let all = WorkloadShape { top_k: 8, ..shape };
    for pattern in ["w1", "w2", "w3", "w6", "w7", "drift", "locality"] {
        let draws = super::claims::draws(pattern, all, 1);
        let test = draws.self_test(steps(&draws, 0..24)).unwrap();
        test.verdict()
            .unwrap_or_else(|error| panic!("{error}\n{test}"));
    }
}

#[test]
fn locality_is_that_of_mixtral() {
    let locality = Locality::new(8, 2, crate::workload::pattern::LAYER_15);
    assert!((locality.same_first() - 0.264).abs() < 1e-9);
    assert!((locality.share_in_first_two() - 0.637).abs() < 5e-4);
    // By chance: 1/8, and 13 of 28 pairs of experts have one in common with a given pair.
    let chance = Locality::new(8, 2, 0.125);
    assert!((chance.same_first() - 0.125).abs() < 1e-12);
    assert!((chance.share_in_first_two() - 13.0 / 28.0).abs() < 1e-12);
}

/// The patterns that were there first draw what they always drew.
#[test]
fn old_draws_stay() {
    let shape = shape(4, 8, 2);
    let first = |pattern| draws(pattern, shape, 3).step(5);
    assert_eq!(first("balanced"), BALANCED);
    assert_eq!(first("zipf:1.3"), ZIPF);
    assert_eq!(first("hot:0.7"), HOT);
}

const BALANCED: [u32; 8] = [1, 2, 6, 7, 5, 3, 0, 4];
const ZIPF: [u32; 8] = [5, 0, 0, 3, 3, 5, 2, 4];
const HOT: [u32; 8] = [3, 4, 1, 0, 7, 5, 3, 6];
