use super::{Batch, HIDDEN, config, gate};
use crate::{Gate, GateContext, Kind, Route, RouterConfig, RouterPreset};

/// Every preset, with a shape that fits it and a context that has everything.
fn every_router() -> Vec<RouterConfig> {
    let of = |info: &crate::PresetInfo| {
        let k = match info.name {
            "switch" | "switch-jitter" | "expert-choice" | "soft" => 1,
            _ => 2,
        };
        config(info.name, 16, k)
    };
    let mut routers: Vec<RouterConfig> = RouterPreset::all().iter().map(of).collect();
    let everything = RouterConfig {
        noise: crate::GateNoise {
            jitter: Some(crate::Jitter {
                eps: 0.1,
                experts_see: true,
            }),
            ..config("tutel-noise:4", 16, 2).noise
        },
        ..config("forced-skew", 16, 2)
    };
    routers.push(everything);
    routers
}

fn routers(row_wise: bool) -> impl Iterator<Item = RouterConfig> {
    let wanted = move |config: &RouterConfig| {
        config.kind.is_row_wise() == row_wise && !matches!(config.kind, Kind::Soft { .. })
    };
    every_router().into_iter().filter(wanted)
}

fn in_blocks(gate: &Gate, batch: &Batch, context: &GateContext<'_>, block: usize) -> Route {
    let columns = gate.config().columns();
    let mut logits = vec![0.0; batch.tokens * columns];
    let mut choices = vec![];
    let rows = batch.x.chunks(block * HIDDEN);
    for (at, (x, logits)) in rows.zip(logits.chunks_mut(block * columns)).enumerate() {
        let first = at * block;
        let part = context.rows(first..first + x.len() / HIDDEN, gate.config());
        gate.score_rows(x, &part, logits).unwrap();
        choices.push(gate.choose(logits, &part).unwrap());
    }
    gate.join(logits, choices, context.padding).unwrap()
}

#[test]
fn a_row_wise_router_may_be_asked_in_blocks() {
    for config in routers(true) {
        let (name, gate) = (config.kind, gate(config, 5));
        let batch = Batch::new(7, 23, gate.config());
        let padding: Vec<bool> = (0..23).map(|token| token % 5 == 0).collect();
        let context = GateContext {
            padding: Some(&padding),
            first_token: 1000,
            ..batch.context()
        };
        let whole = gate.route_in(&batch.x, batch.tokens, &context).unwrap();
        whole.check().unwrap();
        for block in [1, 4, 22] {
            let parts = in_blocks(&gate, &batch, &context, block);
            assert_eq!(whole, parts, "{name} in blocks of {block}");
        }
    }
}

#[test]
fn every_route_is_well_formed_and_the_same_again() {
    for config in routers(true).chain(routers(false)) {
        let (name, gate) = (config.kind, gate(config, 6));
        let batch = Batch::new(8, 17, gate.config());
        let route = gate.route_in(&batch.x, 17, &batch.context()).unwrap();
        route.check().unwrap();
        assert!(!route.experts.is_empty(), "{name}");
        for token in 0..17 {
            let mut own = route.experts[route.choices_of(token)].to_vec();
            own.sort_unstable();
            own.dedup();
            let of = route.choices_of(token).len();
            assert_eq!(own.len(), of, "{name}: an expert twice");
        }
        assert_eq!(
            route,
            gate.route_in(&batch.x, 17, &batch.context()).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn a_batch_of_nothing_is_routed_by_every_router() {
    for config in routers(true).chain(routers(false)) {
        let gate = gate(config, 6);
        let batch = Batch::new(8, 0, gate.config());
        let route = gate.route_in(&[], 0, &batch.context()).unwrap();
        route.check().unwrap();
        assert_eq!(route.choices(), 0);
    }
}

#[test]
fn tokens_that_change_places_take_their_choices_along() {
    let permuted = |config: &RouterConfig| {
        matches!(
            config.kind,
            Kind::TopK
                | Kind::NodeLimited { .. }
                | Kind::Hash { .. }
                | Kind::ForcedSkew { .. }
                | Kind::TopP { .. }
                | Kind::Threshold { .. }
                | Kind::ExpertChoice { .. }
                | Kind::Topology { .. }
        )
    };
    let mut seen = 0;
    for config in every_router().into_iter().filter(permuted) {
        let (name, gate) = (config.kind, gate(config, 2));
        let (tokens, batch) = (19, Batch::new(3, 19, gate.config()));
        // Noise asks for the number of its token; without it nothing does.
        let context = GateContext {
            training: false,
            ..batch.context()
        };
        let route = gate.route_in(&batch.x, tokens, &context).unwrap();
        let from = |token: usize| (token * 7 + 3) % tokens;
        let x: Vec<f32> = (0..tokens)
            .flat_map(|token| batch.x[from(token) * HIDDEN..][..HIDDEN].to_vec())
            .collect();
        let ids: Vec<u32> = (0..tokens).map(|token| batch.ids[from(token)]).collect();
        let homes: Vec<u32> = (0..tokens).map(|token| batch.homes[from(token)]).collect();
        let context = GateContext {
            token_ids: Some(&ids),
            homes: Some(&homes),
            ..context
        };
        let moved = gate.route_in(&x, tokens, &context).unwrap();
        for token in 0..tokens {
            let (now, before) = (moved.choices_of(token), route.choices_of(from(token)));
            assert_eq!(
                moved.experts[now.clone()],
                route.experts[before.clone()],
                "{name}"
            );
            assert_eq!(moved.weights[now], route.weights[before], "{name}");
        }
        seen += 1;
    }
    assert!(seen > 15);
}

#[test]
fn noise_is_for_training_and_differs_by_step_and_seed() {
    for name in ["noisy", "tutel-noise:16", "switch-jitter:0.9"] {
        let k = if name.starts_with("switch") { 1 } else { 2 };
        let gate = gate(config(name, 16, k), 4);
        let batch = Batch::new(5, 40, gate.config());
        let logits =
            |context: GateContext<'_>| gate.route_in(&batch.x, 40, &context).unwrap().logits;
        let context = batch.context();
        let quiet = GateContext {
            training: false,
            ..context
        };
        let clean = gate.route(&batch.x, 40, None).unwrap().logits;
        assert_eq!(logits(quiet), clean, "{name}");
        assert_ne!(logits(context), clean, "{name}");
        let other = [
            GateContext { step: 4, ..context },
            GateContext {
                seed: 12,
                ..context
            },
            GateContext {
                layer: 0,
                ..context
            },
        ];
        for other in other {
            assert_ne!(logits(other), logits(context), "{name}");
        }
    }
}
