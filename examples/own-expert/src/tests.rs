//! The cluster against the same arithmetic without one.

use expertmesh_checkpoint::LayerSource as _;
use expertmesh_exchange::ExchangeKind;
use expertmesh_experts::Scratch;
use expertmesh_routing::{AdmitContext, CapacityConfig, Fate, Overflow, admit};
use ndarray::Array2;

use super::{HIDDEN, LowRankLayer, SEED, TOP_K, batch, experts, forward};

/// `Σ weight · expert(row)` over the admitted choices, in slot order, one row at a time.
fn reference(x: &[f32], tokens: usize, capacity: &CapacityConfig) -> (Vec<f32>, Vec<Fate>) {
    let layer = LowRankLayer::new(experts(), TOP_K, SEED);
    let route = layer.gate().unwrap().route(x, tokens, None).unwrap();
    let fates = admit(&route, capacity, &AdmitContext::default())
        .unwrap()
        .fates;
    let mut out = vec![0.0; tokens * HIDDEN];
    let mut y = [0.0; HIDDEN];
    for (token, out) in out.chunks_exact_mut(HIDDEN).enumerate() {
        let choices = token * TOP_K..(token + 1) * TOP_K;
        for choice in choices.filter(|choice| fates[*choice] == Fate::Computed) {
            let expert = layer.expert(route.experts[choice] as usize).unwrap();
            let row = &x[token * HIDDEN..(token + 1) * HIDDEN];
            expert
                .forward(row, &mut y, &mut Scratch::default())
                .unwrap();
            for (out, y) in out.iter_mut().zip(y) {
                *out += route.weights[choice] * y;
            }
        }
    }
    (out, fates)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[tokio::test]
async fn both_exchanges_give_the_bits_of_the_reference() {
    let x = batch(12);
    let drop = CapacityConfig {
        factor: Some(1.0),
        overflow: Overflow::DropWeight,
        ..CapacityConfig::default()
    };
    for capacity in [CapacityConfig::default(), drop] {
        let (expected, fates) = reference(x.as_slice().unwrap(), 12, &capacity);
        for exchange in [ExchangeKind::Star, ExchangeKind::AllToAll] {
            let step = forward(x.clone(), exchange, capacity).await.unwrap();
            let output: &Array2<f32> = &step.output;
            assert_eq!(
                bits(output.as_slice().unwrap()),
                bits(&expected),
                "{exchange}"
            );
            assert_eq!(step.admission.fates, fates, "{exchange}");
            step.overflow.check_conservation().unwrap();
            let dropped = step.overflow.totals().dropped;
            // The batch is skewed: a factor of 1 must bite, and dropless must not.
            assert_eq!(
                dropped > 0,
                capacity.factor.is_some(),
                "{exchange}: {dropped}"
            );
        }
    }
}
