//! Every policy, scope and share by hand, on the batch of the presets, and what is refused.

use super::{
    admit,
    presets::{dropped, six_tokens},
};
use crate::{
    AdmitContext, CapacityConfig, CapacityScope, CapacityShare, Domains, Fate, FreeExpert,
    Overflow, OverflowLedger, QueueOrder, Route, WeightRule,
};

use Fate::{Computed, Dropped, Rerouted, Skipped};

fn rule(overflow: Overflow, factor: f64) -> CapacityConfig {
    CapacityConfig {
        factor: Some(factor),
        overflow,
        ..CapacityConfig::default()
    }
}

fn admit_in(
    route: &Route,
    config: &CapacityConfig,
    context: &AdmitContext<'_>,
) -> crate::Admission {
    crate::admit(route, config, context).unwrap()
}

#[test]
fn rerouting_by_hand() {
    // Room for 4: expert 0 refuses tokens 4 and 5. Token 4 has experts 0 and 2, so that expert 1
    // is left, which has 3: it takes the last place, and token 5 finds none.
    let route = six_tokens();
    let config = rule(Overflow::Reroute, 1.0);
    let admission = admit(&route, &config).unwrap();
    assert_eq!(
        admission.fates[8..],
        [Rerouted, Computed, Computed, Dropped]
    );
    assert_eq!(admission.executed.as_ref().unwrap()[8..], [1, 2, 2, 0]);
    // The weight stays the gate's.
    assert_eq!(
        (admission.weight(&route, 8), &admission.weights),
        (14.0 / 16.0, &None)
    );

    let context = AdmitContext::default();
    let ledger = OverflowLedger::tally(&route, &admission, &config, &context).unwrap();
    ledger.check_conservation().unwrap();
    let [first, second, _] = &ledger.per_expert[..] else {
        panic!("three experts");
    };
    assert_eq!(
        (
            first.computed,
            first.rerouted,
            first.dropped,
            first.received
        ),
        (4, 1, 1, 0)
    );
    assert_eq!((second.computed, second.received), (3, 1));
    assert_eq!(ledger.dropped_by_slot, [0, 1]);
    // 6 choices need ceil(4 · CF) = 6: the first factor above 1.25.
    assert_eq!(
        ledger.smallest_sufficient_capacity_factor,
        1.25_f64.next_up()
    );

    // In choice-major order tokens 3 and 5 are refused; token 3 has 1 and 0, so 2 takes it.
    let order = QueueOrder::ChoiceMajor;
    let admission = admit(&route, &CapacityConfig { order, ..config }).unwrap();
    assert_eq!(admission.executed.unwrap()[6..], [1, 2, 0, 2, 2, 1]);

    // Equal logits: the lower expert. Token 0 fills expert 2, token 1 has 0 and 1 to go to.
    let mut route = Route {
        tokens: 2,
        top_k: 1,
        offsets: None,
        experts_total: 3,
        logits: vec![0.0, 0.0, 1.0, 0.5, 0.5, 1.0],
        experts: vec![2, 2],
        weights: vec![1.0; 2],
        padding: None,
    };
    // ceil(2 / 3 · 1.5) = 1
    let config = rule(Overflow::Reroute, 1.5);
    assert_eq!(admit(&route, &config).unwrap().executed, Some(vec![2, 0]));
    route.logits[4] = 0.75;
    assert_eq!(admit(&route, &config).unwrap().executed, Some(vec![2, 1]));
    // A free expert is never gone to: with 1 and 2 free there is only 0.
    let free = [FreeExpert::Identity; 2];
    route.experts = vec![0, 0];
    let context = AdmitContext {
        free: &free,
        ..AdmitContext::default()
    };
    assert_eq!(
        admit_in(&route, &config, &context).fates,
        [Computed, Dropped]
    );

    route.logits.clear();
    let error = admit(&route, &config).unwrap_err().to_string();
    assert_eq!(
        error,
        "logits: none, expected tokens x experts for overflow reroute"
    );
}

#[test]
fn replicas_by_hand() {
    let route = six_tokens();
    let config = rule(Overflow::RerouteToReplica, 1.0);
    let admitted = |lists: &[&[u32]]| {
        let domains = Domains::new(lists, 2).unwrap();
        let context = AdmitContext {
            domains: Some(&domains),
            ..AdmitContext::default()
        };
        admit_in(&route, &config, &context)
    };
    // Room for 4 on each of expert 0's workers: tokens 4 and 5 go to the second.
    let two = admitted(&[&[0, 1], &[1], &[0]]);
    assert_eq!((two.fates[8], two.fates[11]), (Rerouted, Rerouted));
    assert_eq!((two.replica(8), two.replica(11), two.replica(0)), (1, 1, 0));
    assert_eq!((two.executed(&route, 8), &two.executed), (0, &None));
    assert_eq!(two.capacity, Some(4));
    // No second worker: dropped.
    let one = admitted(&[&[0], &[1], &[0, 1]]);
    assert_eq!(dropped(&route, &one), [(4, 0), (5, 0)]);
    assert_eq!(one.replicas, None);
}

#[test]
fn a_receive_budget_by_hand() {
    // Worker 0 holds experts 0 and 1, worker 1 holds 2: ceil(6 · 2 / 2) = 6 each. By token, worker
    // 0 receives two each of tokens 0 and 1, one of 2 and the first of 3; four more are refused.
    let route = six_tokens();
    let domains = Domains::new(&[[0], [0], [1]], 2).unwrap();
    let context = AdmitContext {
        domains: Some(&domains),
        ..AdmitContext::default()
    };
    let scope = CapacityScope::Worker;
    let position = CapacityConfig {
        scope,
        ..rule(Overflow::DropPosition, 1.0)
    };
    let admission = admit_in(&route, &position, &context);
    assert_eq!(admission.capacity, Some(6));
    assert_eq!(dropped(&route, &admission), [(3, 0), (4, 0), (5, 0)]);
    // By weight 3, 4 and 5 sixteenths are the lightest of its nine.
    let weight = CapacityConfig {
        scope,
        ..rule(Overflow::DropWeight, 1.0)
    };
    let admission = admit_in(&route, &weight, &context);
    assert_eq!(dropped(&route, &admission), [(1, 1), (3, 0), (5, 0)]);

    let error = admit(&route, &position).unwrap_err().to_string();
    assert!(
        error.starts_with("domains: none, expected the domains of every expert"),
        "{error}"
    );
    let few = Domains::new(&[[0], [0]], 1).unwrap();
    let context = AdmitContext {
        domains: Some(&few),
        ..AdmitContext::default()
    };
    assert!(crate::admit(&route, &position, &context).is_err());
}

#[test]
fn spilling_by_hand() {
    // Room for ceil(4 · 0.5) = 2 a wave: expert 0 needs three waves, the others two.
    let route = six_tokens();
    let config = rule(Overflow::Spill, 0.5);
    let admission = admit(&route, &config).unwrap();
    assert_eq!(admission.fates, [Computed; 12]);
    assert_eq!(
        admission.waves.as_ref().unwrap()[..],
        [0, 0, 0, 0, 1, 0, 1, 1, 2, 0, 1, 2]
    );
    assert_eq!(admission.capacity, Some(2));
    let context = AdmitContext::default();
    let ledger = OverflowLedger::tally(&route, &admission, &config, &context).unwrap();
    assert_eq!((ledger.waves, ledger.spilled), (3, 6));

    // 300 tokens for one expert with room for one a wave: 256 waves, and 44 are dropped.
    let many = Route {
        tokens: 300,
        top_k: 1,
        offsets: None,
        experts_total: 1,
        logits: vec![],
        experts: vec![0; 300],
        weights: vec![1.0; 300],
        padding: None,
    };
    // ceil(300 · 0.001) = 1
    let admission = admit(&many, &rule(Overflow::Spill, 0.001)).unwrap();
    assert_eq!(admission.wave(255), 255);
    assert_eq!(admission.fates[255..257], [Computed, Dropped]);
}

#[test]
fn growing_by_hand() {
    let route = six_tokens();
    let config = rule(Overflow::GrowAndReplay, 1.0);
    let grown = |grown| {
        let admission = admit_in(
            &route,
            &config,
            &AdmitContext {
                grown,
                ..AdmitContext::default()
            },
        );
        assert_eq!(admission.fates, [Computed; 12]);
        (admission.capacity, admission.replays)
    };
    // 4 is not enough for 6, nor is 5; 6 and 8 are.
    assert_eq!(grown(None), (Some(6), 1));
    assert_eq!(grown(Some(5)), (Some(6), 1));
    assert_eq!(grown(Some(6)), (Some(6), 0));
    assert_eq!(grown(Some(8)), (Some(8), 0));
}

#[test]
fn priorities_by_hand() {
    // Room for ceil(4 · 0.5) = 2. Tokens by weight: 4, 3, 5, 1, 0, 2. Token by token: expert 0
    // takes 4 and 3; expert 1 takes 3 and 1; expert 2 takes 4 and 5.
    let route = six_tokens();
    let config = rule(Overflow::DropPrioritised, 0.5);
    let admission = admit(&route, &config).unwrap();
    let lost = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 2), (5, 0)];
    assert_eq!(dropped(&route, &admission), lost);
    // Equal tokens: the lower. All weights equal is the order of the batch.
    let equal = Route {
        weights: vec![0.5; 12],
        ..route
    };
    let position = admit(&equal, &rule(Overflow::DropPosition, 0.5)).unwrap();
    assert_eq!(admit(&equal, &config).unwrap().fates, position.fates);
    let weight = admit(&equal, &rule(Overflow::DropWeight, 0.5)).unwrap();
    assert_eq!(weight.fates, position.fates);
}

#[test]
fn zeroed_tokens_by_hand() {
    // Expert 0 drops tokens 4 and 5, whose other choices go too.
    let route = six_tokens();
    let config = CapacityConfig {
        weights: WeightRule::Zero,
        ..rule(Overflow::DropPosition, 1.0)
    };
    let admission = admit(&route, &config).unwrap();
    assert_eq!(
        dropped(&route, &admission),
        [(4, 0), (4, 2), (5, 2), (5, 0)]
    );
    let context = AdmitContext::default();
    let ledger = OverflowLedger::tally(&route, &admission, &config, &context).unwrap();
    ledger.check_conservation().unwrap();
    assert_eq!(
        (ledger.tokens_without_expert, ledger.dropped_by_slot),
        (2, vec![2, 2])
    );
}

#[test]
fn sequences_by_hand() {
    let route = six_tokens();
    let config = CapacityConfig {
        share: CapacityShare::Sequence,
        ..rule(Overflow::DropPosition, 1.0)
    };
    let lost = |sequence, first_token| {
        let context = AdmitContext {
            sequence,
            first_token,
            ..AdmitContext::default()
        };
        let admission = admit_in(&route, &config, &context);
        (admission.capacity, dropped(&route, &admission))
    };
    // One sequence is the batch.
    assert_eq!(lost(0, 0), (Some(4), vec![(4, 0), (5, 0)]));
    // Two of three tokens: ceil(3 · 2 / 3) = 2.
    assert_eq!(lost(3, 0), (Some(2), vec![(2, 0), (5, 0)]));
    // The batch begins at token 7: the first sequence has 2 tokens left, the next has 3, and the
    // last 1. ceil(2 · 2 / 3) = 2, 2, ceil(2 / 3) = 1: token 4 finds expert 0 full.
    assert_eq!(lost(3, 7), (Some(2), vec![(4, 0)]));
}

#[test]
fn free_experts_use_no_room() {
    // Experts 1 and 2 are free, a null and an identity one: 6 choices of expert 0 with room for 4.
    let route = six_tokens();
    let free = [FreeExpert::Null, FreeExpert::Identity];
    let context = AdmitContext {
        free: &free,
        ..AdmitContext::default()
    };
    let config = rule(Overflow::DropPosition, 1.0);
    let admission = admit_in(&route, &config, &context);
    assert_eq!(
        admission.fates,
        [
            Computed, Skipped, Computed, Skipped, Computed, Computed, Skipped, Computed, Dropped,
            Computed, Computed, Dropped
        ]
    );
    let ledger = OverflowLedger::tally(&route, &admission, &config, &context).unwrap();
    ledger.check_conservation().unwrap();
    assert_eq!(ledger.totals().skipped, 3);
    let free = [FreeExpert::Null; 4];
    let context = AdmitContext {
        free: &free,
        ..AdmitContext::default()
    };
    let error = crate::admit(&route, &config, &context)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "free experts: 4, expected at most 3, all experts");
}

#[test]
fn what_dropless_cannot_have_is_refused() {
    let dropless = CapacityConfig::default();
    let refused = |config: CapacityConfig| config.validate().unwrap_err().to_string();
    let error = refused(CapacityConfig {
        automatic: true,
        ..dropless
    });
    assert!(
        error.starts_with("automatic capacity: true, expected false"),
        "{error}"
    );
    let error = refused(CapacityConfig {
        eval_factor: Some(1.0),
        ..dropless
    });
    assert!(
        error.starts_with("eval capacity factor: 1, expected none"),
        "{error}"
    );
    for overflow in &Overflow::ALL[1..] {
        let error = refused(CapacityConfig {
            overflow: *overflow,
            ..dropless
        });
        assert!(
            error.starts_with("capacity factor: none, expected a number"),
            "{error}"
        );
    }
}
