use proptest::prelude::*;

use super::{admit, below, cases, rng, tally, uniform};
use crate::{
    Admission, CapacityConfig, ExpertCount, Fate, Overflow, OverflowLedger, Route, RoutingError,
    capacity, smallest_sufficient_factor,
};

use Fate::{Computed, Dropped, Lost, Rerouted, Skipped};

/// A route of one choice a token.
fn route(experts_total: usize, choices: &[(u32, f32)]) -> Route {
    Route {
        tokens: choices.len(),
        top_k: 1,
        offsets: None,
        experts_total,
        logits: vec![],
        experts: choices.iter().map(|choice| choice.0).collect(),
        weights: choices.iter().map(|choice| choice.1).collect(),
        padding: None,
    }
}

fn rule(overflow: Overflow, factor: f64) -> CapacityConfig {
    CapacityConfig {
        factor: Some(factor),
        overflow,
        ..CapacityConfig::default()
    }
}

/// An admission of nothing but fates.
fn of_fates(fates: &[Fate]) -> Admission {
    Admission {
        fates: fates.to_vec(),
        ..Admission::default()
    }
}

/// Distinct experts a token; `skew` draws that much harder towards expert 0.
fn random_route(tokens: usize, e: usize, k: usize, skew: i32, padded: bool, seed: u64) -> Route {
    let mut rng = rng(seed);
    let mut experts = Vec::new();
    for _ in 0..tokens {
        let mut all: Vec<(f32, u32)> = (0..e)
            .map(|expert| {
                (
                    uniform(&mut rng, 1.0) - (skew * expert as i32) as f32,
                    expert as u32,
                )
            })
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        experts.extend(all[..k].iter().map(|(_, expert)| expert));
    }
    Route {
        tokens,
        top_k: k,
        offsets: None,
        experts_total: e,
        logits: vec![],
        weights: (0..tokens * k)
            .map(|_| below(&mut rng, 5) as f32 / 4.0)
            .collect(),
        experts,
        padding: padded.then(|| (0..tokens).map(|_| below(&mut rng, 3) == 0).collect()),
    }
}

#[test]
fn capacity_is_megatrons() {
    // ceil(T·k/E · CF): 32 · 1.25 = 40; 4 · 1.1 = 4.4; 1/3 · 1; and f64's own 55.00000000000001.
    assert_eq!(capacity(1024, 2, 64, 1.25, 0), 40);
    assert_eq!(capacity(128, 2, 64, 1.1, 0), 5);
    assert_eq!(capacity(1, 1, 3, 1.0, 0), 1);
    assert_eq!(capacity(200, 1, 4, 1.1, 0), 56);
    assert_eq!(capacity(0, 2, 8, 1.0, 0), 0);
    assert_eq!(capacity(0, 2, 8, 1.0, 4), 4);
    assert_eq!(capacity(100, 2, 8, 0.01, 4), 4);
    assert_eq!(capacity(usize::MAX, 8, 1, f64::MAX, 0), u64::MAX);
}

#[test]
fn drop_by_position_keeps_the_first() {
    let route = route(2, &[(0, 0.1), (1, 0.2), (0, 0.9), (0, 0.5)]);
    let admission = admit(&route, &rule(Overflow::DropPosition, 1.0)).unwrap();
    assert_eq!(admission.capacity, Some(2));
    assert_eq!(admission.fates, [Computed, Computed, Computed, Dropped]);
}

#[test]
fn drop_by_weight_keeps_the_heaviest_and_of_equals_the_first() {
    let rule = rule(Overflow::DropWeight, 1.0);
    let fates = |choices| admit(&route(2, choices), &rule).unwrap().fates;
    let heavy = fates(&[(0, 0.1), (1, 0.2), (0, 0.9), (0, 0.5)]);
    assert_eq!(heavy, [Dropped, Computed, Computed, Computed]);
    let equal = fates(&[(0, 0.5), (1, 0.2), (0, 0.5), (0, 0.5)]);
    assert_eq!(equal, [Computed, Computed, Computed, Dropped]);
}

#[test]
fn padding_is_skipped_and_uses_no_capacity() {
    let mut route = route(1, &[(0, 0.5); 4]);
    route.padding = Some(vec![true, false, true, false]);
    for overflow in [Overflow::DropPosition, Overflow::DropWeight] {
        // Two real tokens, so a factor of 1 has room for both, and 0.5 for the first.
        let all = admit(&route, &rule(overflow, 1.0)).unwrap();
        assert_eq!(
            (all.capacity, all.fates),
            (Some(2), vec![Skipped, Computed, Skipped, Computed])
        );
        let half = admit(&route, &rule(overflow, 0.5)).unwrap();
        assert_eq!(half.fates, [Skipped, Computed, Skipped, Dropped]);
    }
}

#[test]
fn a_minimum_capacity_holds_whatever_the_factor() {
    let rule = CapacityConfig {
        min_capacity: 3,
        ..rule(Overflow::DropPosition, 0.001)
    };
    let admission = admit(&route(8, &[(5, 1.0); 4]), &rule).unwrap();
    assert_eq!(admission.fates, [Computed, Computed, Computed, Dropped]);
}

#[test]
fn rules_that_contradict_themselves_are_refused() {
    let check = |factor, overflow| {
        let rule = CapacityConfig {
            factor,
            overflow,
            ..CapacityConfig::default()
        };
        rule.validate().map_err(|error| error.to_string())
    };
    assert_eq!(check(None, Overflow::Dropless), Ok(()));
    assert_eq!(check(Some(1.0), Overflow::DropWeight), Ok(()));
    for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let message = check(Some(factor), Overflow::DropPosition).unwrap_err();
        assert!(
            message.ends_with("expected a finite number above 0"),
            "{message}"
        );
    }
    assert_eq!(
        check(Some(1.25), Overflow::Dropless).unwrap_err(),
        "capacity factor: 1.25, expected none with overflow dropless; choose another, such as \
         overflow drop-position"
    );
    assert!(
        check(None, Overflow::DropPosition)
            .unwrap_err()
            .starts_with("capacity factor: none")
    );
    let route = route(1, &[(0, 1.0)]);
    assert!(admit(&route, &rule(Overflow::Dropless, 1.0)).is_err());
}

#[test]
fn routes_from_outside_are_checked() {
    let good = route(2, &[(0, 1.0), (1, 1.0)]);
    let dropless = CapacityConfig::default();
    let refused = |route: &Route| admit(route, &dropless).unwrap_err().to_string();
    let bad = Route {
        experts: vec![0, 2],
        ..good.clone()
    };
    assert_eq!(
        refused(&bad),
        "experts[token 1][slot 0]: 2, expected an index below 2"
    );
    assert!(
        refused(&Route {
            weights: vec![1.0],
            ..good.clone()
        })
        .starts_with("weights: 1")
    );
    assert!(
        refused(&Route {
            top_k: 0,
            ..good.clone()
        })
        .starts_with("top_k: 0")
    );
    assert!(
        refused(&Route {
            experts_total: 0,
            ..good.clone()
        })
        .starts_with("experts: 0")
    );
    assert!(
        refused(&Route {
            logits: vec![0.0],
            ..good.clone()
        })
        .starts_with("logits: 1")
    );
    assert!(
        refused(&Route {
            padding: Some(vec![]),
            ..good.clone()
        })
        .starts_with("padding: 0")
    );
    assert!(tally(&good, &of_fates(&[Computed]), &dropless).is_err());
}

#[test]
fn words_and_numbers_go_both_ways() {
    for overflow in Overflow::ALL {
        assert_eq!(overflow.to_string().parse::<Overflow>().unwrap(), overflow);
    }
    assert_eq!("drop".parse::<Overflow>().unwrap(), Overflow::DropPosition);
    let error = "drops".parse::<Overflow>().unwrap_err().to_string();
    assert!(
        error.starts_with("overflow: \"drops\", expected dropless, drop-position, "),
        "{error}"
    );
    for (number, fate) in (0_u8..).zip(Fate::ALL) {
        assert_eq!(
            (u8::from(fate), Fate::try_from(number).unwrap()),
            (number, fate)
        );
    }
    assert!(matches!(
        Fate::try_from(5),
        Err(RoutingError::NoSuchFate { found: 5 })
    ));
}

#[test]
fn a_ledger_by_hand() {
    let route = route(2, &[(0, 0.5), (0, 0.25), (0, 0.125), (1, 1.0), (1, 2.0)]);
    let admission = Admission {
        capacity: Some(2),
        ..of_fates(&[Computed, Dropped, Lost, Rerouted, Skipped])
    };
    let ledger = tally(&route, &admission, &rule(Overflow::DropPosition, 0.8)).unwrap();
    ledger.check_conservation().unwrap();
    assert_eq!(
        ledger.per_expert[0],
        ExpertCount {
            assigned: 3,
            computed: 1,
            dropped: 1,
            lost: 1,
            assigned_weight: 0.875,
            computed_weight: 0.5,
            dropped_weight: 0.25,
            lost_weight: 0.125,
            ..ExpertCount::default()
        }
    );
    let totals = ledger.totals();
    assert_eq!(
        (totals.assigned, totals.rerouted, totals.skipped),
        (5, 1, 1)
    );
    assert_eq!((totals.rerouted_weight, totals.skipped_weight), (1.0, 2.0));
    assert_eq!(ledger.lost_gate_weight(), 0.375);
    assert_eq!(
        (ledger.capacity, ledger.capacity_factor),
        (Some(2), Some(0.8))
    );
    // Three choices of expert 0 need the first factor above 2 / 2.5.
    assert_eq!(
        ledger.smallest_sufficient_capacity_factor,
        0.8_f64.next_up()
    );
}

#[test]
fn a_ledger_that_does_not_add_up_is_found() {
    let route = route(2, &[(0, 0.5), (1, 0.25)]);
    let good = tally(
        &route,
        &of_fates(&[Computed; 2]),
        &CapacityConfig::default(),
    )
    .unwrap();
    let broken = |change: fn(&mut ExpertCount)| {
        let mut ledger = good.clone();
        change(&mut ledger.per_expert[1]);
        ledger.check_conservation().unwrap_err().to_string()
    };
    let message = broken(|count| count.computed = 0);
    assert!(
        message.starts_with("overflow ledger, expert 1: choices 1 assigned, 0 accounted for"),
        "{message}"
    );
    assert!(broken(|count| count.dropped += 1).contains("2 accounted for"));
    assert!(broken(|count| count.lost = u64::MAX).contains("choices"));
    assert!(broken(|count| count.computed_weight -= 1e-6).contains("gate weight"));
    assert!(broken(|count| count.assigned_weight = f64::NAN).contains("gate weight"));
}

#[test]
fn ledgers_of_one_rule_merge() {
    let rule = rule(Overflow::DropPosition, 1.0);
    let mut sum = OverflowLedger::empty(2, &rule);
    for choices in [&[(0, 1.0), (0, 0.5)][..], &[(0, 1.0), (1, 1.0)]] {
        let route = route(2, choices);
        let admission = admit(&route, &rule).unwrap();
        sum.merge(&tally(&route, &admission, &rule).unwrap())
            .unwrap();
    }
    assert_eq!((sum.totals().assigned, sum.totals().dropped), (4, 1));
    assert_eq!((sum.capacity, sum.lost_gate_weight()), (Some(1), 0.5));
    assert_eq!(sum.smallest_sufficient_capacity_factor, 1_f64.next_up());
    sum.check_conservation().unwrap();

    let before = sum.clone();
    assert!(sum.merge(&OverflowLedger::empty(3, &rule)).is_err());
    let other = CapacityConfig::default();
    let error = sum
        .merge(&OverflowLedger::empty(2, &other))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("capacity factor: None, expected Some(1.0)"),
        "{error}"
    );
    assert_eq!(sum, before);
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn nothing_is_lost_and_no_expert_is_overfull(
        tokens in prop_oneof![Just(0_usize), Just(1), 2_usize..60],
        e in 1_usize..12,
        part in 0.0_f64..1.01,
        skew in prop_oneof![Just(0), Just(1), Just(100)],
        padded: bool,
        factor in proptest::option::of(0.05_f64..3.0),
        by_weight: bool,
        min_capacity in 0_u32..4,
        faults: bool,
        seed: u64,
    ) {
        let k = ((part * e as f64) as usize).clamp(1, e);
        let route = random_route(tokens, e, k, skew, padded, seed);
        let overflow = match factor {
            None => Overflow::Dropless,
            Some(_) if by_weight => Overflow::DropWeight,
            Some(_) => Overflow::DropPosition,
        };
        let rule = CapacityConfig { factor, overflow, min_capacity, ..CapacityConfig::default() };
        let mut admission = admit(&route, &rule).unwrap();
        prop_assert_eq!(admission.capacity.is_some(), factor.is_some());
        let limit = admission.capacity.unwrap_or(u64::MAX);
        let accepts = |expert: usize| limit.min(route.demand()[expert]);

        for (choice, &fate) in admission.fates.iter().enumerate() {
            prop_assert_eq!(fate == Skipped, route.is_padding(choice / k));
        }
        let ledger = tally(&route, &admission, &rule).unwrap();
        for (expert, count) in ledger.per_expert.iter().enumerate() {
            prop_assert_eq!(count.computed, accepts(expert));
        }
        // No choice is refused for one that the policy likes less.
        for (a, &kept) in admission.fates.iter().enumerate() {
            for (b, &refused) in admission.fates.iter().enumerate() {
                if kept == Computed && refused == Dropped && route.experts[a] == route.experts[b] {
                    let heavier = route.weights[a].total_cmp(&route.weights[b]);
                    let preferred =
                        if by_weight { heavier.then(b.cmp(&a)).is_gt() } else { a < b };
                    prop_assert!(preferred, "choice {} before {}", a, b);
                }
            }
        }

        // Law 1 under faults: whatever later stages make of a choice, it stays counted.
        if faults {
            for (choice, fate) in admission.fates.iter_mut().enumerate() {
                if *fate == Computed && choice % 3 == 0 {
                    *fate = if choice % 2 == 0 { Lost } else { Rerouted };
                }
            }
        }
        let ledger = tally(&route, &admission, &rule).unwrap();
        ledger.check_conservation().unwrap();
        let totals = ledger.totals();
        prop_assert_eq!(totals.assigned, (tokens * k) as u64);
        let parts = [totals.computed, totals.rerouted, totals.dropped, totals.skipped, totals.lost];
        prop_assert_eq!(parts.iter().sum::<u64>(), totals.assigned);
        let count = |fate| admission.fates.iter().filter(|&&f| f == fate).count() as u64;
        prop_assert_eq!(parts, Fate::ALL.map(count));
        let weight: f64 = route.weights.iter().map(|&weight| f64::from(weight)).sum();
        prop_assert!((totals.assigned_weight - weight).abs() < 1e-9);
    }

    #[test]
    fn the_smallest_sufficient_factor_is_sufficient_and_smallest(
        tokens in 1_usize..80, e in 1_usize..12, skew in 0_i32..2, padded: bool,
        min_capacity in 0_u32..3, by_weight: bool, seed: u64,
    ) {
        let k = 1 + seed as usize % e;
        let route = random_route(tokens, e, k, skew, padded, seed);
        let overflow = if by_weight { Overflow::DropWeight } else { Overflow::DropPosition };
        let dropped = |factor| {
            let rule = CapacityConfig {
                factor: Some(factor), overflow, min_capacity, ..CapacityConfig::default()
            };
            let admission = admit(&route, &rule).unwrap();
            (admission.fates.iter().filter(|&&fate| fate == Dropped).count(), admission.capacity)
        };
        let dropless = CapacityConfig { min_capacity, ..CapacityConfig::default() };
        let admission = admit(&route, &dropless).unwrap();
        let factor = tally(&route, &admission, &dropless)
            .unwrap()
            .smallest_sufficient_capacity_factor;
        if factor == 0.0 {
            // The minimum suffices: the smallest factor that the rule admits drops nothing.
            prop_assert_eq!(dropped(f64::from_bits(1)).0, 0);
        } else {
            let (none, enough) = dropped(factor);
            prop_assert_eq!(none, 0);
            let below = factor.next_down();
            if below > 0.0 {
                let (some, short) = dropped(below);
                prop_assert!(some > 0);
                prop_assert!(short < enough);
            }
        }
    }

    #[test]
    fn the_edge_is_exact_for_large_shapes_too(
        needed in 1_u64..100_000, tokens in 1_usize..1_000_000, k in 1_usize..9,
        e in 1_usize..1000,
    ) {
        let factor = smallest_sufficient_factor(needed, tokens, k, e, 0);
        prop_assert!(capacity(tokens, k, e, factor, 0) >= needed);
        prop_assert!(capacity(tokens, k, e, factor.next_down(), 0) < needed);
    }
}
