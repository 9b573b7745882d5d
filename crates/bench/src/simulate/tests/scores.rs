//! Scores drawn from a workload choose as its rows do.

use expertmesh_experts::synthetic_gate;

use super::*;

/// Every pattern that draws choices first.
const PATTERNS: [&str; 13] = [
    "balanced",
    "zipf:1.2",
    "hot:0.7",
    "hot-experts",
    "hot-rank",
    "spread-hot",
    "source-ragged",
    "zero-expert-rank",
    "rotating-hotspot:2",
    "burst:3",
    "drift:2",
    "locality",
    "zipf:0",
];

/// The same workload as rows and as scores.
fn both(pattern: &str, shape: WorkloadShape, seed: u64) -> [SimLoad; 2] {
    let pattern: Pattern = pattern.parse().unwrap();
    let gate = synthetic_gate(shape.experts, shape.hidden, 0, 0);
    let rows = Workload::new(pattern, shape, seed, Some(gate)).unwrap();
    let scores = ScoredWorkload::new(pattern, shape, Some(WORKERS), seed).unwrap();
    [
        SimLoad::Rows(rows.over_ranks(WORKERS).unwrap()),
        SimLoad::Scores(scores),
    ]
}

/// Choices of a token, in slot order or not; `None` for padding.
fn choices(decided: &Decided, sorted: bool) -> Vec<Option<Vec<u32>>> {
    let route = &decided.route;
    let padding = route.padding.as_deref();
    let of_token = |(token, experts): (usize, &[u32])| {
        let mut experts = experts.to_vec();
        if sorted {
            experts.sort_unstable();
        }
        let padded = padding.is_some_and(|padding| padding[token]);
        (!padded).then_some(experts)
    };
    let rows = route.experts.chunks_exact(route.top_k).enumerate();
    rows.map(of_token).collect()
}

#[test]
fn drawn_scores_choose_the_experts_that_rows_choose() {
    for (experts, top_k) in [(8, 1), (8, 2), (64, 4), (64, 8)] {
        let shape = WorkloadShape {
            tokens: 100,
            experts,
            top_k,
            ..SHAPE
        };
        let rehearsal = Rehearsal::new(config(shape, ExchangeKind::AllToAll)).unwrap();
        for pattern in PATTERNS {
            let [rows, scores] = both(pattern, shape, 5);
            let (mut spread, mut live) = (0.0, 0);
            for step in 0..4 {
                let [rows, scores] =
                    [&rows, &scores].map(|load| load.decide_by(&rehearsal, step).unwrap());
                let what = format!("{pattern}, top-{top_k} of {experts}, step {step}");
                // Noise of rows parts neighbouring slots of up to four; of eight it may swap two.
                let sorted = top_k > 4;
                assert_eq!(choices(&rows, sorted), choices(&scores, sorted), "{what}");
                live += choices(&rows, true).iter().flatten().count();
                for (one, other) in rows.route.weights.iter().zip(&scores.route.weights) {
                    spread = f32::max(spread, (one - other).abs());
                }
            }
            // Weights differ by noise, and by no more than it makes of them.
            assert!(spread < 0.08, "{pattern}: {spread}");
            assert!(spread > 0.0 || top_k == 1, "{pattern}");
            assert!(live > 100, "{pattern}");
        }
    }
}

#[test]
fn ledgers_of_rows_and_of_their_scores_are_equal() {
    for pattern in ["zipf:1.2", "source-ragged"] {
        let [rows, scores] = both(pattern, SHAPE, 5).map(|load| {
            let mut simulation = simulation(stack(ExchangeKind::AllToAll, 2, 0), load);
            run(&mut simulation, 3)
        });
        assert_eq!(choices_of(&rows), choices_of(&scores), "{pattern}");
        let (one, other) = (&rows.run, &scores.run);
        assert_eq!(
            one.communication.matrix_bytes,
            other.communication.matrix_bytes
        );
        let name = &one.identity.workload;
        assert_eq!(other.identity.workload, format!("{name}, scores drawn"));
    }
}

#[test]
fn normal_rows_have_no_drawn_choices_to_share() {
    let rehearsal = Rehearsal::new(config(SHAPE, ExchangeKind::Star)).unwrap();
    let loads = both_normal();
    let [rows, scores] = loads.map(|load| load.decide_by(&rehearsal, 0).unwrap());
    assert_ne!(choices(&rows, true), choices(&scores, true));
}

fn both_normal() -> [SimLoad; 2] {
    let rows = Workload::new(Pattern::Normal, SHAPE, 5, None).unwrap();
    let scores = ScoredWorkload::new(Pattern::Normal, SHAPE, None, 5).unwrap();
    [SimLoad::Rows(rows), SimLoad::Scores(scores)]
}
