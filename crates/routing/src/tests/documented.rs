//! The worked example of docs/overflow.md: six tokens, nine policies.

use crate::{
    AdmitContext, CapacityConfig, CapacityScope, CapacityShare, Domains, Fate, Overflow,
    OverflowLedger, QueueOrder, Route, admit,
};

/// The page's table: experts, weights and logits of each token.
const TOKENS: [([u32; 2], [f32; 2], [f32; 4]); 6] = [
    ([0, 1], [0.60, 0.40], [3.0, 2.0, 0.0, 1.0]),
    ([0, 2], [0.70, 0.30], [3.0, 0.0, 2.0, 1.0]),
    ([1, 0], [0.95, 0.05], [2.0, 3.0, 1.0, 0.0]),
    ([0, 1], [0.90, 0.10], [3.0, 2.0, 1.0, 0.0]),
    ([0, 2], [0.80, 0.20], [3.0, 1.0, 2.0, 0.0]),
    ([3, 0], [0.55, 0.45], [2.0, 1.0, 0.0, 3.0]),
];

fn route() -> Route {
    Route {
        tokens: 6,
        top_k: 2,
        offsets: None,
        experts_total: 4,
        logits: TOKENS.iter().flat_map(|token| token.2).collect(),
        experts: TOKENS.iter().flat_map(|token| token.0).collect(),
        weights: TOKENS.iter().flat_map(|token| token.1).collect(),
        padding: None,
    }
}

/// (token, expert) pairs by fate, and the weight lost in hundredths.
struct Row {
    dropped: Vec<(usize, u32)>,
    rerouted: Vec<(usize, u32)>,
    lost: u32,
    ledger: OverflowLedger,
}

fn row(config: CapacityConfig) -> Row {
    let route = route();
    // Expert 0 has a replica on the second worker.
    let domains = Domains::new(&[&[0, 1][..], &[0], &[1], &[1]], 2).unwrap();
    let context = AdmitContext {
        domains: Some(&domains),
        ..AdmitContext::default()
    };
    let admission = admit(&route, &config, &context).unwrap();
    let ledger = OverflowLedger::tally(&route, &admission, &config, &context).unwrap();
    ledger.check_conservation().unwrap();
    let of = |fate| -> Vec<(usize, u32)> {
        let all = (0..12).filter(|&choice| admission.fates[choice] == fate);
        all.map(|choice| (choice / 2, admission.executed(&route, choice)))
            .collect()
    };
    let weight: f32 = (0..12)
        .filter(|&choice| admission.fates[choice] == Fate::Dropped)
        .map(|choice| route.weights[choice])
        .sum();
    Row {
        dropped: of(Fate::Dropped),
        rerouted: of(Fate::Rerouted),
        lost: (weight * 100.0).round() as u32,
        ledger,
    }
}

fn rule(overflow: Overflow) -> CapacityConfig {
    CapacityConfig {
        factor: (overflow != Overflow::Dropless).then_some(1.0),
        overflow,
        ..CapacityConfig::default()
    }
}

#[test]
fn nine_policies() {
    type Pairs = &'static [(usize, u32)];
    // Lots of expert 0, seed 0, computed by an implementation of Philox of its own: 9687d2e9,
    // 0bc707a5, 38bbe3ee, cd781312, 1cf82c1f, 30d1d569. Tokens 1, 4 and 5 have the lowest.
    let table: [(Overflow, Pairs, Pairs, u32); 9] = [
        (Overflow::Dropless, &[], &[], 0),
        (Overflow::DropPosition, &[(3, 0), (4, 0), (5, 0)], &[], 215),
        (Overflow::DropWeight, &[(0, 0), (2, 0), (5, 0)], &[], 110),
        (Overflow::DropRandom, &[(0, 0), (2, 0), (3, 0)], &[], 155),
        (
            Overflow::DropPrioritised,
            &[(0, 0), (1, 0), (5, 0)],
            &[],
            175,
        ),
        (Overflow::Reroute, &[(5, 0)], &[(3, 2), (4, 3)], 45),
        (
            Overflow::RerouteToReplica,
            &[],
            &[(3, 0), (4, 0), (5, 0)],
            0,
        ),
        (Overflow::Spill, &[], &[], 0),
        (Overflow::GrowAndReplay, &[], &[], 0),
    ];
    for (overflow, dropped, rerouted, lost) in table {
        let row = row(rule(overflow));
        assert_eq!(row.dropped, dropped, "{overflow}");
        assert_eq!(row.rerouted, rerouted, "{overflow}");
        assert_eq!(row.lost, lost, "{overflow}");
        // ceil(3 · CF) is 6 just past 5/3.
        let factor = row.ledger.smallest_sufficient_capacity_factor;
        assert!((factor - 5.0 / 3.0).abs() < 1e-12, "{overflow}: {factor}");
    }
    let spill = row(rule(Overflow::Spill)).ledger;
    assert_eq!((spill.spilled, spill.waves), (3, 2));
    let grown = row(rule(Overflow::GrowAndReplay)).ledger;
    assert_eq!((grown.capacity, grown.replays), (Some(6), 1));
}

#[test]
fn one_more_setting() {
    let base = rule(Overflow::DropPosition);
    let dropped = |config: CapacityConfig| {
        let row = row(config);
        (row.ledger.capacity, row.dropped)
    };
    let order = QueueOrder::ChoiceMajor;
    assert_eq!(
        dropped(CapacityConfig { order, ..base }),
        (Some(3), vec![(2, 0), (4, 0), (5, 0)])
    );
    let alignment = 4;
    assert_eq!(
        dropped(CapacityConfig { alignment, ..base }),
        (Some(4), vec![(4, 0), (5, 0)])
    );
    let share = CapacityShare::Senders(2.try_into().unwrap());
    assert_eq!(
        dropped(CapacityConfig { share, ..base }),
        (Some(2), vec![(2, 0), (5, 0)])
    );
    let scope = CapacityScope::Worker;
    assert_eq!(
        dropped(CapacityConfig { scope, ..base }),
        (Some(6), vec![(3, 1), (4, 0), (5, 0)])
    );
    let automatic = CapacityConfig {
        automatic: true,
        factor: None,
        ..base
    };
    assert_eq!(dropped(automatic), (Some(6), vec![]));
}
