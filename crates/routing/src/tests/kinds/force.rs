//! Gates whose choices are forced.

use super::{Batch, config, gate, message};
use crate::{GateContext, Kind, ReplayStep};

#[test]
fn a_forced_replay_of_a_gates_own_choices_has_its_weights() {
    // One with a selection bias, one with groups, one with noise that evaluation leaves out.
    for (name, experts, k) in [
        ("topk", 8, 2),
        ("group-limited:4,2", 16, 4),
        ("tutel-noise:4", 16, 2),
        ("sigmoid-bias", 16, 3),
    ] {
        let own = gate(config(name, experts, k), 1);
        let batch = Batch::new(2, 20, own.config());
        let first = own.route(&batch.x, 20, None).unwrap();
        let forced = own.with_kind(Kind::Replay).unwrap();
        assert_eq!(forced.config().groups, None);
        let context = GateContext {
            replay: Some(ReplayStep {
                experts: &first.experts,
                weights: None,
            }),
            ..GateContext::default()
        };
        let again = forced.route_in(&batch.x, 20, &context).unwrap();
        assert_eq!(again, first, "{name}");
    }
}

#[test]
fn a_forced_balance_deals_and_a_forced_skew_keeps_groups() {
    let own = || gate(config("group-limited:4,2", 16, 4), 1);
    let batch = Batch::new(2, 8, own().config());
    let balanced = own().with_kind(Kind::ForcedBalance).unwrap();
    let route = balanced.route(&batch.x, 8, None).unwrap();
    assert_eq!(route.demand(), [2; 16]);
    let groups = own().config().groups;
    let skewed = own().with_kind(Kind::ForcedSkew { std: 1.0 }).unwrap();
    assert_eq!(skewed.config().groups, groups);
    skewed.route(&batch.x, 8, None).unwrap().check().unwrap();
}

#[test]
fn what_cannot_be_forced_is_refused_by_name() {
    let own = || gate(config("topk", 8, 2), 1);
    let error = message(own().with_kind(Kind::Sampled));
    assert!(
        error.starts_with("forced kind: rsample, expected replay"),
        "{error}"
    );
    let error = message(own().with_kind(Kind::ForcedSkew { std: f32::NAN }));
    assert!(error.starts_with("kind std: NaN"), "{error}");
    let soft = gate(config("soft", 8, 1), 1);
    let error = message(soft.with_kind(Kind::ForcedBalance));
    assert!(error.starts_with("kind: soft, expected a gate"), "{error}");
}
