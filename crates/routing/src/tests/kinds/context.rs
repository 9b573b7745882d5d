use expertmesh_kernels::PackedMatrix;

use super::{Batch, HIDDEN, assert_close, config, gate, matrix, message, numbers};
use crate::{Cosine, Gate, GateContext, NO_CHOICE, ReplayStep};

#[test]
fn what_is_missing_is_named() {
    let refused = |name: &str, change: &dyn Fn(&mut GateContext<'_>)| {
        let gate = gate(config(name, 8, 2), 1);
        let batch = Batch::new(2, 6, gate.config());
        let mut context = batch.context();
        change(&mut context);
        message(gate.route_in(&batch.x, 6, &context))
    };
    assert_eq!(
        refused("hash", &|context| context.token_ids = None),
        "token_ids: none, expected the id of each token, because hash asks for it"
    );
    assert_eq!(
        refused("hash", &|context| context.token_ids = Some(&[1, 2])),
        "token_ids: 2 elements, expected tokens x 1 = 6 x 1"
    );
    for name in ["topology", "node-limited:1"] {
        let error = refused(name, &|context| context.domains = None);
        let start = "domains: none, expected the domains of each expert";
        assert!(error.starts_with(start), "{error}");
    }
    assert_eq!(
        refused("replay", &|context| context.replay = None),
        "replay: none, expected the choices of an earlier run, because replay asks for it"
    );
    assert_eq!(
        refused("topology", &|context| context.homes =
            Some(&[0, 1, 0, 2, 0, 0])),
        "homes: 2, expected a domain below 2"
    );
    assert_eq!(
        refused("hash-table", &|context| context.token_ids =
            Some(&[0, 1, 2, 3, 50, 4])),
        "token_ids: 50 at token 4, expected below 50, the rows of the token table"
    );
    assert!(refused("topk", &|context| context.padding = Some(&[true])).starts_with("padding: 1"));
}

#[test]
fn tensors_that_are_missing_or_do_not_fit_are_named() {
    let bare =
        |name: &str, inner| Gate::new(config(name, 8, 2), matrix(1, 8, inner), None, None).unwrap();
    let batch = Batch::new(2, 6, &config("topk", 8, 2));
    let refused = |gate: Gate| message(gate.route_in(&batch.x, 6, &batch.context()));
    assert_eq!(
        refused(bare("noisy", HIDDEN)),
        "noise_weight: none, expected a tensor, given by Gate::with_noise_weight"
    );
    assert_eq!(
        refused(bare("cosine", HIDDEN)),
        "cosine: none, expected a tensor, given by Gate::with_cosine"
    );
    assert_eq!(
        refused(bare("hash-balanced", HIDDEN)),
        "token_table: none, expected a tensor, given by Gate::with_token_table"
    );
    let wrong = bare("noisy", HIDDEN).with_noise_weight(matrix(1, 7, HIDDEN));
    assert_eq!(message(wrong), "noise_weight: 7 x 12, expected 8 x 12");
    let table = |table: Vec<u32>| message(bare("hash-table", HIDDEN).with_token_table(table));
    assert!(table(vec![0, 1, 2]).starts_with("token_table: 3 elements"));
    assert!(table(vec![0, 1, 2, 8]).starts_with("experts[token 1][slot 1]: 8"));
    assert_eq!(
        table(vec![0, 1, 2, 2]),
        "token_table: expert 2 twice in row 1, expected experts that differ"
    );
    let cosine = || Cosine {
        projection: matrix(1, 4, HIDDEN),
        bias: None,
        temperature: 0.0,
    };
    let wrong = bare("cosine", 5).with_cosine(cosine());
    assert_eq!(message(wrong), "cosine projection: 4 x 12, expected 5 x 12");
    assert!(message(bare("topk", 4).with_cosine(cosine())).contains("product is linear"));
}

#[test]
fn a_router_that_needs_more_than_logits_is_not_selected_without_it() {
    let gate = gate(config("hash", 8, 2), 1);
    let selected = gate.select(&[0.0; 8], 1, &mut [0; 2], &mut [0.0; 2]);
    assert_eq!(
        message(selected),
        "kind: hash, expected topk or forced-skew, which need nothing but logits"
    );
    let soft = super::gate(config("soft", 8, 1), 1);
    assert!(message(soft.route(&[0.0; HIDDEN], 1, None)).contains("Gate::mix"));
}

#[test]
fn a_residual_adds_the_logits_of_the_layer_before() {
    let (e, tokens) = (3, 4);
    let plain = gate(config("topk", e, 2), 1);
    let weight = numbers(8, e * e, 1.0);
    let residual = PackedMatrix::from_f32(&weight, e, e).unwrap();
    let carrying = gate(config("topk", e, 2), 1)
        .with_residual(residual)
        .unwrap();
    let batch = Batch::new(2, tokens, plain.config());
    let previous = numbers(9, tokens * e, 1.0);
    let context = GateContext {
        previous_logits: Some(&previous),
        ..GateContext::default()
    };
    let clean = plain.route(&batch.x, tokens, None).unwrap().logits;
    let first = carrying.route(&batch.x, tokens, None).unwrap().logits;
    assert_eq!(clean, first, "the first layer has none before it");
    let route = carrying.route_in(&batch.x, tokens, &context).unwrap();
    for (at, clean) in clean.iter().enumerate() {
        let (token, expert) = (at / e, at % e);
        let carried: f64 = (0..e)
            .map(|i| f64::from(weight[expert * e + i]) * f64::from(previous[token * e + i]))
            .sum();
        assert_close(route.logits[at], f64::from(*clean) + carried);
    }
}

#[test]
fn a_replay_gives_what_was_recorded() {
    let gate = gate(config("replay", 8, 2), 1);
    let batch = Batch::new(2, 6, gate.config());
    let weights = numbers(3, 12, 1.0);
    let replayed = |experts: &[u32], weights| {
        let context = GateContext {
            replay: Some(ReplayStep { experts, weights }),
            ..GateContext::default()
        };
        gate.route_in(&batch.x, 6, &context)
    };
    let route = replayed(&batch.replayed, Some(&weights)).unwrap();
    assert_eq!(
        (&route.experts, &route.weights),
        (&batch.replayed, &weights)
    );
    // Without weights: as if the router had chosen them, so a route of its own comes out again.
    let own = super::gate(config("topk", 8, 2), 1)
        .route(&batch.x, 6, None)
        .unwrap();
    let again = replayed(&own.experts, None).unwrap();
    assert_eq!((again.experts, again.weights), (own.experts, own.weights));

    let wrong = |experts: &[u32], weights| message(replayed(experts, weights));
    // Tokens with fewer choices than k: a ragged route, whose weights are those of what is left.
    let none = NO_CHOICE;
    let fewer = [3, 1, 5, none, none, none, 0, 2, 7, none, 4, 6];
    for given in [Some(&weights[..]), None] {
        let route = replayed(&fewer, given).unwrap();
        route.check().unwrap();
        assert_eq!(route.offsets.as_deref(), Some(&[0, 2, 3, 3, 5, 6, 8][..]));
        assert_eq!(route.experts, [3, 1, 5, 0, 2, 7, 4, 6]);
        let expected = [0, 1, 2, 6, 7, 8, 10, 11].map(|at| weights[at]);
        assert!(given.is_none() || route.weights == expected);
        // Mixtral's rule: the weights of a token sum to 1, one choice has all of it.
        assert!(given.is_some() || route.weights[2] == 1.0);
    }
    assert!(
        wrong(&[0, none, none, 3, 0, 1, 0, 1, 0, 1, 0, 1], None).contains(
            "replay experts: expert 3 behind an empty slot of row 1, expected empty slots last"
        )
    );
    assert!(wrong(&[0; 4], None).starts_with("replay experts: 4 elements"));
    assert!(wrong(&[0; 12], None).contains("expert 0 twice in row 0"));
    let mut beyond = batch.replayed.clone();
    beyond[5] = 8;
    assert!(wrong(&beyond, None).starts_with("experts[token 2][slot 1]: 8"));
    let mut infinite = weights.clone();
    infinite[3] = f32::INFINITY;
    let error = wrong(&batch.replayed, Some(&infinite));
    assert!(
        error.starts_with("gate weight[token 1][slot 1]: inf"),
        "{error}"
    );
}
