use super::*;
use expertmesh_routing::{OverflowLedger, WeightRule};
use ndarray::array;

#[test]
fn every_policy_meets_every_factor() {
    let rules = every_policy(&CapacityConfig::default(), &[1.0, 1.5]);
    // Eight policies, and drop-position with other weights.
    assert_eq!(rules.len(), 9 * 2);
    for policy in Overflow::ALL {
        let count = rules.iter().filter(|rule| rule.overflow == policy).count();
        let expected = match policy {
            Overflow::Dropless => 0,
            Overflow::DropPosition => 4,
            _ => 2,
        };
        assert_eq!(count, expected, "{policy}");
    }
    for rule in &rules {
        rule.validate().unwrap();
    }
    assert_eq!(policy_name(&rules[2]), "drop-position+renormalise");
    assert_eq!(rules[2].weights, WeightRule::Renormalise);

    let all = CapacityConfig {
        weights: WeightRule::Renormalise,
        ..CapacityConfig::default()
    };
    assert_eq!(every_policy(&all, &[1.0]).len(), 8);
}

#[test]
fn only_a_rule_that_missed_something_may_change_bits() {
    let rule = |overflow, weights| CapacityConfig {
        factor: Some(1.0),
        overflow,
        weights,
        ..CapacityConfig::default()
    };
    let keep = rule(Overflow::Spill, WeightRule::Keep);
    let mut ledger = OverflowLedger::empty(2, &keep);
    ledger.per_expert[0].rerouted = 1;
    for (overflow, exact) in [
        (Overflow::Spill, true),
        (Overflow::RerouteToReplica, true),
        (Overflow::Reroute, false),
    ] {
        let rule = rule(overflow, WeightRule::Keep);
        assert_eq!(must_be_exact(&rule, &ledger), exact, "{overflow}");
    }
    let renormalised = rule(Overflow::Spill, WeightRule::Renormalise);
    assert!(!must_be_exact(&renormalised, &ledger));
    ledger.per_expert[1].dropped = 1;
    assert!(!must_be_exact(&keep, &ledger));
}

#[test]
fn an_output_error_is_relative_to_what_dropless_gave() {
    let mut error = OutputError::default();
    assert_eq!((error.relative(), error.worst_token()), (None, None));
    error.add(
        &array![[3.0, 4.0], [0.0, 0.0]],
        &array![[3.0, 4.0], [0.0, 0.0]],
    );
    assert_eq!(error.relative(), Some(0.0));
    // A token that lost everything, beside one that lost nothing: √(25 / 50).
    error.add(&array![[0.0, 0.0]], &array![[0.0, 5.0]]);
    assert_eq!(error.relative(), Some((25.0_f64 / 50.0).sqrt()));
    assert_eq!(error.worst_token(), Some(1.0));
}

#[test]
fn bits_that_differ_are_named_with_their_place() {
    let rule = CapacityConfig {
        factor: Some(1.0),
        overflow: Overflow::Spill,
        ..CapacityConfig::default()
    };
    let seat = Seat::new(rule, &[]).unwrap();
    let dropless = array![[1.0, 0.0], [2.0, 3.0]];
    seat.check_bits(7, &dropless, &dropless).unwrap();
    // Equal as numbers, and still other bits.
    let held = array![[1.0, -0.0], [2.0, 3.5]];
    let error = seat.check_bits(7, &held, &dropless).unwrap_err();
    assert!(!error.is_input());
    assert_eq!(
        error.to_string(),
        "spill: round 7, token 0, element 1 is -0, expected the bits of dropless, 0"
    );
}
