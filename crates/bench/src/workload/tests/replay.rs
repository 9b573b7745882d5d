//! Traces as workloads.

use super::*;
use crate::trace::{Header, NO_CHOICE, Record, Trace};

const LAYER: ReplayShape = ReplayShape {
    experts: 4,
    top_k: 2,
    layer: 0,
    from: None,
};

/// Layers 3 and 5 in step 7, layer 3 alone in step 9.
fn sample() -> Trace {
    let record = |step, layer, experts: &[u32]| Record {
        step,
        layer,
        tokens: experts.len() as u32 / 2,
        ranks: None,
        token_ids: None,
        experts: experts.to_vec(),
        weights: None,
    };
    let header = Header {
        experts: 4,
        top_k: 2,
        layers: 6,
        source: "a test".to_owned(),
        seed: Some(3),
    };
    let records = vec![
        record(7, 3, &[0, 1, NO_CHOICE, NO_CHOICE, 3, 2]),
        record(7, 5, &[2, 0]),
        record(9, 3, &[1, 2]),
    ];
    Trace::new(header, records).unwrap()
}

#[test]
fn steps_replay_the_layer_that_is_asked_for_round_and_round() {
    let shape = ReplayShape {
        from: Some(3),
        ..LAYER
    };
    let replay = Replay::new(&sample(), "t", &shape).unwrap();
    assert_eq!((replay.steps(), replay.most_tokens()), (2, 3));
    assert_eq!(replay.origin(), ("a test", Some(3)));
    let workload = Workload::replayed(replay, shape, 5, 1);
    for (step, tokens) in [(0, 3), (1, 1), (2, 3), (u64::MAX, 1)] {
        let batch = workload.batch(step);
        assert_eq!(batch.tokens, tokens, "step {step}");
        assert_eq!(workload.rows(step).len(), tokens * 5, "step {step}");
    }
    // A token without choices is padding, and has some that are never computed.
    let batch = workload.batch(2);
    assert_eq!(batch.padding, Some(&[false, true, false][..]));
    assert_eq!(batch.replay.unwrap().experts, [0, 1, 0, 1, 3, 2]);
    assert_ne!(workload.rows(0), workload.rows(2), "rows are of the step");
    assert_eq!(workload.batch(1).padding, None);
    let claims = workload.self_test([(0, [0_u32])]).unwrap().claims;
    assert!(claims.is_empty());
}

#[test]
fn the_layer_is_its_own_or_the_only_one_or_named() {
    let tokens = |layer, from| {
        let shape = ReplayShape {
            layer,
            from,
            ..LAYER
        };
        let replay = Replay::new(&sample(), "t", &shape);
        replay.map(|replay| replay.most_tokens())
    };
    assert_eq!(tokens(5, None).unwrap(), 1);
    assert_eq!(tokens(5, Some(3)).unwrap(), 3);
    let error = tokens(0, None).unwrap_err().to_string();
    assert!(
        error.contains("what is recorded is of layer 3, 5, expected"),
        "{error}"
    );
    assert!(error.contains("expected 0 among them"), "{error}");
    let error = tokens(5, Some(4)).unwrap_err().to_string();
    assert!(error.contains("expected layer 4 among them"), "{error}");
    let only = sample().records()[2].clone();
    let trace = Trace::new(sample().header().clone(), vec![only]).unwrap();
    assert_eq!(Replay::new(&trace, "t", &LAYER).unwrap().steps(), 1);
}

#[test]
fn what_does_not_fit_the_layer_is_refused_by_name() {
    let refused = |change: fn(&mut ReplayShape), trace: &Trace| {
        let mut shape = ReplayShape { layer: 3, ..LAYER };
        change(&mut shape);
        Replay::new(trace, "t", &shape).unwrap_err().to_string()
    };
    let error = refused(|shape| shape.experts = 8, &sample());
    assert!(
        error.contains("header: experts is 4, expected 8, as the layer has"),
        "{error}"
    );
    let error = refused(|shape| shape.top_k = 1, &sample());
    assert!(error.contains("header: top_k is 2, expected 1"), "{error}");
}

#[test]
fn tokens_of_a_ragged_trace_keep_their_choices_and_none_is_padding() {
    let shape = ReplayShape { layer: 3, ..LAYER };
    let mut records = sample().records().to_vec();
    // An empty slot may stand before another: it goes behind it, with its weight.
    records[0].experts[0] = NO_CHOICE;
    records[0].weights = Some(vec![0.0, 0.5, 0.0, 0.0, 0.25, 0.75]);
    let ragged = Trace::new(sample().header().clone(), records).unwrap();
    let replay = Replay::new(&ragged, "t", &shape).unwrap();
    let step = replay.step(0);
    let none = NO_CHOICE;
    assert_eq!(step.experts, [1, none, none, none, 3, 2]);
    let weights = step.weights.as_deref().unwrap();
    assert_eq!(weights, [0.5, 0.0, 0.0, 0.0, 0.25, 0.75]);
    assert_eq!(step.padding, None);
    assert_eq!(replay.step(1).experts, [1, 2]);
}
