//! Properties of every policy, in every combination with order, scope, share and weight rule.

use std::{collections::HashMap, num::NonZeroU32};

use proptest::{prelude::*, sample::select};
use rand_chacha::ChaCha8Rng;

use super::{
    below, cases, rng,
    slow_admit::{Slow, slow_admit},
};
use crate::{
    Admission, AdmitContext, CapacityConfig, CapacityFormula, CapacityScope, CapacityShare,
    Domains, Fate, FreeExpert, Overflow, OverflowLedger, Priority, QueueOrder, Route, WeightRule,
    admit,
};

use Fate::{Computed, Dropped, Rerouted, Skipped};

/// A batch that a gate could have routed, drawn by `seed`.
#[derive(Debug, Clone)]
struct Case {
    route: Route,
    config: CapacityConfig,
    domains: Domains,
    free: Vec<FreeExpert>,
    seed: u64,
    first_token: u64,
    sequence: usize,
    grown: Option<u64>,
}

impl Case {
    fn context(&self) -> AdmitContext<'_> {
        AdmitContext {
            seed: self.seed,
            step: 3,
            layer: 2,
            first_token: self.first_token,
            sequence: self.sequence,
            domains: Some(&self.domains),
            grown: self.grown,
            free: &self.free,
        }
    }

    fn admit(&self) -> Admission {
        admit(&self.route, &self.config, &self.context()).unwrap()
    }

    fn tally(&self, admission: &Admission) -> OverflowLedger {
        OverflowLedger::tally(&self.route, admission, &self.config, &self.context()).unwrap()
    }
}

/// Numbers of which some are equal.
fn coarse(rng: &mut ChaCha8Rng) -> f32 {
    below(rng, 9) as f32 / 8.0
}

/// The experts of the highest logits, or for a ragged route any number of them by ascending index.
fn draw_route(tokens: usize, e: usize, k: usize, ragged: bool, padded: bool, seed: u64) -> Route {
    let mut rng = rng(seed);
    let (mut logits, mut experts, mut offsets) = (Vec::new(), Vec::new(), vec![0]);
    for _ in 0..tokens {
        // The first experts are the favourites.
        let row: Vec<f32> = (0..e)
            .map(|expert| coarse(&mut rng) - expert as f32 / 8.0)
            .collect();
        let mut order: Vec<u32> = (0..e as u32).collect();
        order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
        order.truncate(if ragged { below(&mut rng, k + 1) } else { k });
        if ragged {
            order.sort_unstable();
        }
        experts.extend(order);
        offsets.push(experts.len() as u32);
        logits.extend(row);
    }
    Route {
        tokens,
        top_k: k,
        offsets: ragged.then_some(offsets),
        experts_total: e,
        logits,
        weights: experts.iter().map(|_| coarse(&mut rng)).collect(),
        experts,
        padding: padded.then(|| (0..tokens).map(|_| below(&mut rng, 4) == 0).collect()),
    }
}

/// One to three of `workers` for each expert.
fn draw_domains(e: usize, workers: usize, seed: u64) -> Domains {
    let mut rng = rng(seed);
    let lists: Vec<Vec<u32>> = (0..e)
        .map(|_| {
            let mut all: Vec<u32> = (0..workers as u32).collect();
            let count = 1 + below(&mut rng, workers.min(3));
            (0..count)
                .map(|_| all.swap_remove(below(&mut rng, all.len())))
                .collect()
        })
        .collect();
    Domains::new(&lists, workers).unwrap()
}

prop_compose! {
    fn settings()(
        factor in 0.05_f64..2.0,
        eval_factor in proptest::option::of(0.05_f64..2.0),
        training: bool,
        automatic in prop::bool::weighted(0.2),
        overflow in select(&Overflow::ALL[..]),
        formula in select(&CapacityFormula::ALL[..]),
        min_capacity in 0_u32..3,
        alignment in 0_u32..4,
        order in select(&[QueueOrder::TokenMajor, QueueOrder::ChoiceMajor][..]),
        priority in select(&[Priority::GateWeight, Priority::Probability][..]),
        scope in select(&[CapacityScope::Expert, CapacityScope::Worker][..]),
        share in prop_oneof![
            Just(CapacityShare::Batch),
            (1_u32..9).prop_map(|n| CapacityShare::Senders(NonZeroU32::new(n).unwrap())),
            Just(CapacityShare::Sequence),
        ],
        weights in select(&[WeightRule::Keep, WeightRule::Renormalise, WeightRule::Zero][..]),
        sign in select(&[1.0, 1.0, 0.0, -1.0][..]),
    ) -> CapacityConfig {
        // Only Tutel and MegaBlocks have factors of their own meaning.
        let sign = match formula {
            CapacityFormula::Tutel => sign,
            CapacityFormula::MegaBlocks => f64::max(sign, 0.0),
            _ => 1.0,
        };
        let limited = overflow != Overflow::Dropless;
        CapacityConfig {
            factor: limited.then_some(factor * sign),
            eval_factor: eval_factor.filter(|_| limited),
            automatic: automatic && limited,
            training, overflow, formula, min_capacity, alignment, order, priority, scope, share,
            weights,
        }
    }
}

prop_compose! {
    fn case()(
        config in settings(),
        tokens in prop_oneof![Just(0_usize), Just(1), 2_usize..40, 2_usize..40],
        held in 1_usize..9,
        free in prop::collection::vec(
            select(&[FreeExpert::Null, FreeExpert::Identity, FreeExpert::Constant][..]), 0..3),
        part in 0.0_f64..1.01,
        ragged: bool,
        padded: bool,
        workers in 1_usize..5,
        seed: u64,
        first_token in 0_u64..20,
        sequence in 0_usize..12,
        grown in proptest::option::of(0_u64..6),
    ) -> Case {
        let e = held + free.len();
        let k = ((part * e as f64) as usize).clamp(1, e);
        Case {
            route: draw_route(tokens, e, k, ragged, padded, seed),
            domains: draw_domains(held, workers, seed),
            config, free, seed, first_token, sequence, grown,
        }
    }
}

fn filled(route: &Route, admission: &Admission) -> Slow {
    let all = 0..route.choices();
    Slow {
        fates: admission.fates.clone(),
        executed: all
            .clone()
            .map(|choice| admission.executed(route, choice))
            .collect(),
        weights: all
            .clone()
            .map(|choice| admission.weight(route, choice))
            .collect(),
        replicas: all
            .clone()
            .map(|choice| admission.replica(choice))
            .collect(),
        waves: all.map(|choice| admission.wave(choice)).collect(),
        capacity: admission.capacity,
        replays: admission.replays,
    }
}

/// What everyone was given, counted from the admission alone.
fn loads(case: &Case, admission: &Admission) -> HashMap<(usize, u32, u8, u8), u64> {
    let (route, held) = (&case.route, case.domains.experts() as u32);
    let mut loads = HashMap::new();
    for choice in 0..route.choices() {
        let expert = admission.executed(route, choice);
        if expert >= held || !matches!(admission.fates[choice], Computed | Rerouted) {
            continue;
        }
        let token = route.place_of(choice).0;
        let part = match case.config.share {
            CapacityShare::Batch => 0,
            CapacityShare::Senders(n) => {
                // The sender whose share ends after the token.
                let n = n.get() as usize;
                (1..=n).filter(|i| route.tokens * i / n <= token).count()
            }
            CapacityShare::Sequence => (case.first_token as usize + token)
                .checked_div(case.sequence)
                .unwrap_or(0),
        };
        let replica = admission.replica(choice);
        let (host, replica) = match case.config.scope {
            CapacityScope::Expert => (expert, replica),
            CapacityScope::Worker => (case.domains.of(expert)[replica as usize], 0),
        };
        *loads
            .entry((part, host, replica, admission.wave(choice)))
            .or_default() += 1;
    }
    loads
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn every_combination_is_its_definition(case in case()) {
        let admission = case.admit();
        let slow = slow_admit(&case.route, &case.config, &case.context());
        prop_assert_eq!(filled(&case.route, &admission), slow);
        // Tables that say nothing are absent.
        let some = |any: bool, table: bool| any || !table;
        prop_assert!(some(
            admission.executed.as_ref().is_some_and(|e| *e != case.route.experts),
            admission.executed.is_some()
        ));
        prop_assert_eq!(
            admission.weights.is_some(), case.config.weights == WeightRule::Renormalise);
        prop_assert_eq!(&case.admit(), &admission);
    }

    #[test]
    fn nothing_is_lost_and_nobody_is_overfull(case in case()) {
        let (route, admission) = (&case.route, case.admit());
        let capacity = admission.capacity.unwrap_or(u64::MAX);
        let loads = loads(&case, &admission);
        prop_assert!(loads.values().all(|&load| load <= capacity), "{:?}", loads);

        let ledger = case.tally(&admission);
        ledger.check_conservation().unwrap();
        let totals = ledger.totals();
        let count = |fate| admission.fates.iter().filter(|&&f| f == fate).count() as u64;
        prop_assert_eq!(totals.assigned, route.choices() as u64);
        prop_assert_eq!(
            [totals.computed, totals.rerouted, totals.dropped, totals.skipped],
            [Computed, Rerouted, Dropped, Skipped].map(count)
        );
        prop_assert_eq!(ledger.dropped_by_slot.iter().sum::<u64>(), totals.dropped);
        let moved = case.config.overflow == Overflow::Reroute;
        prop_assert_eq!(totals.received, if moved { totals.rerouted } else { 0 });
        let waves = loads.keys().map(|key| u32::from(key.3) + 1).max();
        prop_assert_eq!(ledger.waves, waves.unwrap_or(u32::from(route.choices() > 0)));
        let later = loads.iter().filter(|(key, _)| key.3 > 0);
        prop_assert_eq!(ledger.spilled, later.map(|(_, load)| load).sum::<u64>());
        prop_assert_eq!(ledger.replays, u64::from(admission.replays));
        let never = matches!(case.config.overflow, Overflow::Dropless | Overflow::GrowAndReplay);
        prop_assert!(!(never && totals.dropped > 0));
    }

    #[test]
    fn a_token_never_has_an_expert_twice(mut case in case()) {
        case.config = CapacityConfig {
            factor: Some(case.config.factor.unwrap_or(0.5).abs().max(0.05)),
            overflow: Overflow::Reroute,
            ..case.config
        };
        let admission = case.admit();
        for token in 0..case.route.tokens {
            let choices = case.route.choices_of(token);
            let chosen = &case.route.experts[choices.clone()];
            let computed = choices.clone().filter(|&choice| {
                matches!(admission.fates[choice], Computed | Rerouted)
            });
            let mut experts: Vec<u32> =
                computed.map(|choice| admission.executed(&case.route, choice)).collect();
            let count = experts.len();
            experts.sort_unstable();
            experts.dedup();
            prop_assert_eq!(experts.len(), count);
            for choice in choices.filter(|&choice| admission.fates[choice] == Rerouted) {
                let expert = admission.executed(&case.route, choice);
                prop_assert!(!chosen.contains(&expert));
                prop_assert!((expert as usize) < case.domains.experts());
            }
        }
    }

    #[test]
    fn permuting_tokens_permutes_what_is_promised(
        mut case in case(),
        overflow in select(&[
            Overflow::Dropless, Overflow::GrowAndReplay, Overflow::Spill, Overflow::DropWeight,
            Overflow::DropPrioritised,
        ][..]),
    ) {
        // No ties: every weight once, and priority by weight.
        for (choice, weight) in case.route.weights.iter_mut().enumerate() {
            *weight = ((choice * 7919 + 13) % 10_007) as f32 / 16_384.0;
        }
        let limited = overflow != Overflow::Dropless;
        case.config = CapacityConfig {
            factor: limited.then(|| case.config.factor.unwrap_or(0.5).abs().max(0.05)),
            eval_factor: case.config.eval_factor.filter(|_| limited),
            automatic: case.config.automatic && limited,
            share: CapacityShare::Batch,
            priority: Priority::GateWeight,
            overflow,
            ..case.config
        };
        let mut rng = rng(case.seed);
        let mut tokens: Vec<usize> = (0..case.route.tokens).collect();
        for i in (1..tokens.len()).rev() {
            tokens.swap(i, below(&mut rng, i + 1));
        }
        let choices: Vec<usize> =
            tokens.iter().flat_map(|&token| case.route.choices_of(token)).collect();
        let (route, e) = (&case.route, case.route.experts_total);
        let mut offsets = vec![0];
        for &token in &tokens {
            offsets.push(offsets[offsets.len() - 1] + route.choices_of(token).len() as u32);
        }
        let permuted = Case {
            route: Route {
                offsets: route.offsets.is_some().then_some(offsets),
                logits: tokens
                    .iter()
                    .flat_map(|&token| &route.logits[token * e..(token + 1) * e])
                    .copied()
                    .collect(),
                experts: choices.iter().map(|&choice| route.experts[choice]).collect(),
                weights: choices.iter().map(|&choice| route.weights[choice]).collect(),
                padding: route
                    .padding
                    .as_ref()
                    .map(|padding| tokens.iter().map(|&token| padding[token]).collect()),
                ..route.clone()
            },
            ..case.clone()
        };
        let (before, after) =
            (filled(route, &case.admit()), filled(&permuted.route, &permuted.admit()));
        let dropped_waves = overflow == Overflow::Spill && before.fates.contains(&Dropped);
        for (now, &then) in choices.iter().enumerate() {
            if dropped_waves {
                // Past the last wave place decides.
                break;
            }
            prop_assert_eq!(after.fates[now], before.fates[then]);
            prop_assert_eq!(after.weights[now], before.weights[then]);
        }
        prop_assert_eq!((after.capacity, after.replays), (before.capacity, before.replays));
    }

    #[test]
    fn workers_names_do_not_matter(mut case in case(), shift in 1_u32..4) {
        case.config.scope = CapacityScope::Worker;
        let workers = case.domains.count() as u32;
        let renamed: Vec<Vec<u32>> = (0..case.domains.experts() as u32)
            .map(|e| case.domains.of(e).iter().map(|w| (w + shift) % workers).collect())
            .collect();
        let renamed =
            Case { domains: Domains::new(&renamed, workers as usize).unwrap(), ..case.clone() };
        prop_assert_eq!(case.admit(), renamed.admit());
    }

    #[test]
    fn the_smallest_sufficient_factor_refuses_nothing_and_is_smallest(case in case()) {
        let ledger = case.tally(&case.admit());
        let factor = ledger.smallest_sufficient_capacity_factor;
        let refused = |factor: f64| {
            let overflow = Overflow::Spill;
            let config = CapacityConfig {
                factor: Some(factor), eval_factor: None, automatic: false, overflow, ..case.config
            };
            let admission = admit(&case.route, &config, &case.context()).unwrap();
            admission.waves.is_some() || admission.fates.contains(&Dropped)
        };
        // A policy of replicas counts them apart, dropless ignores the scope.
        let same = case.config.overflow != Overflow::RerouteToReplica
            && (case.config.overflow != Overflow::Dropless
                || case.config.scope == CapacityScope::Expert);
        if same && factor > 0.0 {
            prop_assert!(!refused(factor));
            // MegaBlocks' formula is automatic where it is cut off to nothing.
            if case.config.formula != CapacityFormula::MegaBlocks && factor.next_down() > 0.0 {
                prop_assert!(refused(factor.next_down()));
            }
        }
    }
}

#[test]
fn a_draw_is_fair_and_its_own() {
    // 64 tokens, all for one expert with room for 16, under many seeds: each token is kept in a
    // quarter of them, and other steps and layers draw anew.
    let route = Route {
        tokens: 64,
        top_k: 1,
        offsets: None,
        experts_total: 1,
        logits: vec![],
        experts: vec![0; 64],
        weights: vec![1.0; 64],
        padding: None,
    };
    let config = CapacityConfig {
        factor: Some(0.25),
        overflow: Overflow::DropRandom,
        ..CapacityConfig::default()
    };
    let kept = |seed, step, layer| {
        let context = AdmitContext {
            seed,
            step,
            layer,
            ..AdmitContext::default()
        };
        let fates = admit(&route, &config, &context).unwrap().fates;
        fates
            .iter()
            .map(|&fate| u32::from(fate == Computed))
            .collect::<Vec<_>>()
    };
    let mut counts = vec![0; 64];
    for seed in 0..2000 {
        let kept = kept(seed, 0, 0);
        assert_eq!(kept.iter().sum::<u32>(), 16);
        for (count, kept) in counts.iter_mut().zip(kept) {
            *count += kept;
        }
    }
    // 500 expected, with a deviation of 19.4.
    assert!(
        counts.iter().all(|count| (410..590).contains(count)),
        "{counts:?}"
    );
    assert_ne!(kept(1, 0, 0), kept(1, 1, 0));
    assert_ne!(kept(1, 0, 0), kept(1, 0, 1));
    // Seeds do not repeat each other.
    assert_ne!(kept(5, 0, 0), kept(6, 0, 0));
}
