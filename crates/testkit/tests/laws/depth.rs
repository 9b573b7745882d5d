//! Mixture-of-depths: who goes round a layer costs nothing and adds nothing.

use std::sync::Arc;

use expertmesh_coordinator::{StepInput, StepOutput};
use expertmesh_kernels::{Format, bf16_round};
use expertmesh_routing::{
    AdmitContext, CapacityConfig, DepthRouter, Fate, Overflow, OverflowLedger, admit,
};
use expertmesh_testkit::{Cluster, ClusterSpec, Golden, Model, Parts, inputs, tensor};

use crate::common::{EXCHANGES, same_bits, small};

const TOKENS: usize = 24;
const SEQUENCE: usize = 8;
const CAPACITY: f64 = 0.4;

/// A router's weights, far from zero so that scores differ.
pub(crate) fn weights(seed: u64, hidden: usize) -> Vec<f32> {
    inputs(seed, 1, hidden, Format::F32)
}

pub(crate) fn router(seed: u64, hidden: usize) -> Arc<DepthRouter> {
    Arc::new(DepthRouter::new(weights(seed, hidden), CAPACITY).unwrap())
}

/// Scores in f64 and whoever is among the highest of its sequence, by counting those above:
/// eq. 1 of the paper.
pub(crate) fn who_passes(
    weights: &[f32],
    x: &[f32],
    sequence: usize,
    padding: &[bool],
) -> Vec<bool> {
    let score = |row: &[f32]| -> f64 {
        let products = row.iter().zip(weights);
        products.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
    };
    let scores: Vec<f64> = x.chunks(weights.len()).map(score).collect();
    let mut passes = Vec::new();
    for (at, scores) in scores.chunks(sequence).enumerate() {
        let padding = &padding[at * sequence..][..scores.len()];
        let real = padding.iter().filter(|one| !**one).count();
        // As many whole tokens as are below this are its ceiling.
        let most = CAPACITY * real as f64;
        for (token, score) in scores.iter().enumerate() {
            let above = (0..scores.len()).filter(|other| {
                let (other, before) = (*other, *other < token);
                !padding[other] && (scores[other] > *score || scores[other] == *score && before)
            });
            passes.push(!padding[token] && (above.count() as f64) < most);
        }
    }
    passes
}

fn padding() -> Vec<bool> {
    (0..TOKENS).map(|token| token % 7 == 3).collect()
}

fn batch(dtype: Format, hidden: usize) -> Vec<f32> {
    inputs(21, TOKENS, hidden, dtype)
}

async fn step(spec: ClusterSpec, x: &[f32], hidden: usize, padding: Vec<bool>) -> StepOutput {
    let cluster = Cluster::start(spec).await;
    let input = StepInput {
        sequence: SEQUENCE,
        ..StepInput::padded(Some(padding))
    };
    let step = cluster.coordinator().forward_in(tensor(x, hidden), input);
    let step = step.await.unwrap();
    let traffic = cluster.coordinator().traffic().await.unwrap();
    let carried: u64 = traffic.iter().map(|link| link.message_bytes).sum();
    assert_eq!(
        carried,
        step.traffic.ledger.total().bytes,
        "ledger = transport"
    );
    step
}

/// The layer by hand: only those who pass, each choice by itself, times the score.
fn by_hand(model: &Model, x: &[f32], passes: &[bool], router: &[f32]) -> Vec<f32> {
    let parts = Parts::load(model.source.as_ref());
    let hidden = parts.spec.hidden;
    let bf16 = parts.spec.router.dtype == Format::Bf16;
    let skip: Vec<bool> = passes.iter().map(|passes| !passes).collect();
    let route = parts.route(x, Some(&skip));
    let config = CapacityConfig::default();
    let admission = admit(&route, &config, &AdmitContext::default()).unwrap();
    let mut y = parts.forward(Format::F32, x, &route, &admission);
    for (token, row) in y.chunks_mut(hidden).enumerate() {
        // The score as the layer makes it: one chain of fused multiply-adds.
        let state = &x[token * hidden..(token + 1) * hidden];
        let score = state
            .iter()
            .zip(router)
            .fold(0.0_f32, |sum, (x, w)| x.mul_add(*w, sum));
        for value in row {
            *value = match (passes[token], bf16) {
                (false, _) => 0.0,
                (true, false) => score * *value,
                (true, true) => bf16_round(score * *value),
            };
        }
    }
    y
}

#[tokio::test]
async fn who_passes_is_computed_and_weighed_and_the_others_are_zero() {
    for dtype in [Format::F32, Format::Bf16] {
        let model = small(dtype);
        let x = batch(dtype, 64);
        let router_weights = weights(5, 64);
        let passes = who_passes(&router_weights, &x, SEQUENCE, &padding());
        let expected = by_hand(&model, &x, &passes, &router_weights);
        for exchange in EXCHANGES {
            for workers in 1..=4 {
                let mut spec = ClusterSpec::new(model.clone(), workers).exchange(exchange);
                spec.depth = Some(router(5, 64));
                let step = step(spec, &x, 64, padding()).await;
                let what = format!("{dtype}, {workers} workers, {exchange}");
                assert_eq!(step.depth.as_ref().unwrap().passes, passes, "{what}");
                same_bits(step.output.as_slice().unwrap(), &expected, &what);
                step.overflow.check_conservation().unwrap();
                let totals = step.overflow.totals();
                assert_eq!(totals.assigned, 2 * TOKENS as u64, "{what}");
                let outside = passes.iter().filter(|passes| !**passes).count();
                assert_eq!(totals.skipped, 2 * outside as u64, "{what}");
                for (choice, fate) in step.admission.fates.iter().enumerate() {
                    assert_eq!(*fate == Fate::Skipped, !passes[choice / 2], "{what}");
                }
            }
        }
    }
}

/// What travels for a batch of which most go round is what travels for the others alone.
#[tokio::test]
async fn nothing_travels_for_who_goes_round() {
    let x = batch(Format::F32, 64);
    let passes = who_passes(&weights(5, 64), &x, SEQUENCE, &[false; TOKENS]);
    let inside = (0..TOKENS).filter(|token| passes[*token]);
    let alone: Vec<f32> = inside
        .flat_map(|token| x[token * 64..][..64].to_vec())
        .collect();
    for exchange in EXCHANGES {
        let plain = ClusterSpec::new(small(Format::F32), 3).exchange(exchange);
        let mut deep = plain.clone();
        deep.depth = Some(router(5, 64));
        let deep = step(deep, &x, 64, vec![false; TOKENS]).await;
        let cluster = Cluster::start(plain).await;
        let expected = cluster.forward(&alone).await.unwrap();
        assert_eq!(deep.traffic.ledger, expected.traffic.ledger, "{exchange}");
    }
}

/// A shared expert adds nothing to whoever goes round, and its row is what it was to the others.
#[tokio::test]
async fn the_shared_expert_leaves_out_who_goes_round() {
    let model = Golden::open("qwen2_moe", Format::F32).model;
    let hidden = model.source.spec().hidden;
    assert!(model.source.spec().shared.is_some());
    let x = batch(Format::F32, hidden);
    let router_weights = weights(5, hidden);
    let passes = who_passes(&router_weights, &x, SEQUENCE, &padding());
    let expected = by_hand(&model, &x, &passes, &router_weights);
    for exchange in EXCHANGES {
        let mut spec = ClusterSpec::new(model.clone(), 2).exchange(exchange);
        spec.depth = Some(router(5, hidden));
        let step = step(spec, &x, hidden, padding()).await;
        same_bits(
            step.output.as_slice().unwrap(),
            &expected,
            "with a shared expert",
        );
    }
}

/// Choices of whoever goes round use no capacity: the ledger is that of the others alone, but for
/// what is skipped.
#[tokio::test]
async fn who_goes_round_uses_no_capacity() {
    let x = batch(Format::F32, 64);
    let mut spec = ClusterSpec::new(small(Format::F32), 2);
    spec.capacity = CapacityConfig {
        factor: Some(0.75),
        overflow: Overflow::DropPosition,
        ..CapacityConfig::default()
    };
    spec.depth = Some(router(5, 64));
    let capacity = spec.capacity;
    let deep = step(spec, &x, 64, vec![false; TOKENS]).await;
    let passes = &deep.depth.as_ref().unwrap().passes;
    let inside = (0..TOKENS).filter(|token| passes[*token]);
    let alone: Vec<f32> = inside
        .flat_map(|token| x[token * 64..][..64].to_vec())
        .collect();
    let route = Parts::load(small(Format::F32).source.as_ref()).route(&alone, None);
    let admission = admit(&route, &capacity, &AdmitContext::default()).unwrap();
    let context = AdmitContext::default();
    let expected = OverflowLedger::tally(&route, &admission, &capacity, &context).unwrap();
    assert_eq!(deep.overflow.capacity, expected.capacity);
    assert!(expected.totals().dropped > 0, "a case that says something");
    let counts = deep.overflow.per_expert.iter().zip(&expected.per_expert);
    for (got, expected) in counts {
        assert_eq!(
            (got.computed, got.dropped),
            (expected.computed, expected.dropped)
        );
    }
}

#[tokio::test]
async fn a_router_of_another_width_is_refused() {
    let mut spec = ClusterSpec::new(small(Format::F32), 1);
    spec.depth = Some(router(5, 32));
    let connected = spec.connect(vec!["127.0.0.1:1".to_owned()]).await;
    let error = connected.map(drop).unwrap_err().to_string();
    assert_eq!(error, "`depth hidden` holds 32, expected 64, the layer's");
}
