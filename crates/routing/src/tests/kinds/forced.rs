//! Forced loads, cosines, and groups by the sum of their best.

use super::{Batch, HIDDEN, assert_close, config, gate, numbers, ranked, softmax, wide};
use crate::{
    Cosine, Gate, GateContext,
    noise::{NoiseKey, Purpose},
};

#[test]
fn forced_loads_differ_by_one_at_most() {
    for (e, k, tokens, first) in [
        (8, 2, 13, 0),
        (7, 3, 22, 5),
        (5, 5, 4, u64::MAX / 2),
        (9, 1, 2, 1),
    ] {
        let gate = gate(config("forced-balance", e, k), 1);
        let batch = Batch::new(2, tokens, gate.config());
        let context = GateContext {
            first_token: first,
            ..batch.context()
        };
        let route = gate.route_in(&batch.x, tokens, &context).unwrap();
        let demand = route.demand();
        let (least, most) = (demand.iter().min().unwrap(), demand.iter().max().unwrap());
        assert!(most - least <= 1, "{demand:?}");
        for (choice, &expert) in route.experts.iter().enumerate() {
            let place = u128::from(first) * k as u128 + choice as u128;
            assert_eq!(u128::from(expert), place % e as u128);
        }
        // Weights are those of the chosen experts.
        let scores = softmax(&wide(&route.logits[..e]));
        let sum: f64 = route.experts[..k].iter().map(|&e| scores[e as usize]).sum();
        assert_close(route.weights[0], scores[route.experts[0] as usize] / sum);
    }
}

#[test]
fn a_forced_skew_is_one_bias_for_all_tokens() {
    let (e, tokens) = (6, 10);
    let at = |std: &str, step| {
        let gate = gate(config(&format!("forced-skew:{std}"), e, 2), 1);
        let batch = Batch::new(2, tokens, gate.config());
        let context = GateContext {
            step,
            ..batch.context()
        };
        let mut clean = vec![0.0; tokens * e];
        gate.logits(&batch.x, &mut clean).unwrap();
        let route = gate.route_in(&batch.x, tokens, &context);
        (clean, route.unwrap().logits)
    };
    for (std, step, drawn_in) in [("2", 3, 3), ("2", 4, 4), ("-2", 3, 0), ("-2", 4, 0)] {
        let (clean, skewed) = at(std, step);
        let noise = NoiseKey {
            seed: 11,
            step: drawn_in,
            layer: 2,
        };
        let noise = noise.stream(Purpose::LogitNoise);
        for (at, (skewed, clean)) in skewed.iter().zip(&clean).enumerate() {
            let bias = 2.0 * noise.normal(u64::MAX, (at % e) as u32);
            assert_eq!(*skewed, clean + bias);
        }
    }
}

#[test]
fn a_cosine_gate_is_tutels_formula() {
    let (e, p, tokens) = (7, 4, 9);
    let (vectors, projection) = (numbers(1, e * p, 1.0), numbers(2, p * HIDDEN, 1.0));
    let bias = numbers(3, p, 1.0);
    let packed =
        |w: &[f32], out, inner| expertmesh_kernels::PackedMatrix::from_f32(w, out, inner).unwrap();
    for (temperature, scale) in [(2_f32.ln(), 2.0), (50.0, 100.0)] {
        let gate = Gate::new(config("cosine", e, 2), packed(&vectors, e, p), None, None).unwrap();
        let cosine = Cosine {
            projection: packed(&projection, p, HIDDEN),
            bias: Some(bias.clone()),
            temperature,
        };
        let gate = gate.with_cosine(cosine).unwrap();
        assert_eq!(gate.hidden(), HIDDEN);
        let x = numbers(4, tokens * HIDDEN, 1.0);
        let route = gate.route(&x, tokens, None).unwrap();
        for token in 0..tokens {
            let row = wide(&x[token * HIDDEN..][..HIDDEN]);
            let projected: Vec<f64> = (0..p)
                .map(|at| {
                    let weights = wide(&projection[at * HIDDEN..][..HIDDEN]);
                    let product: f64 = row.iter().zip(&weights).map(|(x, w)| x * w).sum();
                    product + f64::from(bias[at])
                })
                .collect();
            let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
            for expert in 0..e {
                let vector = wide(&vectors[expert * p..][..p]);
                let product: f64 = projected.iter().zip(&vector).map(|(x, w)| x * w).sum();
                let cosine = product / (length(&projected) * length(&vector));
                assert_close(route.logits[token * e + expert] / scale, cosine);
            }
        }
    }
    // A row of nothing has no direction, and all experts are equal.
    let gate = gate(config("cosine", 4, 2), 1);
    let cosine = Cosine {
        projection: packed(&numbers(1, 5 * HIDDEN, 1.0), 5, HIDDEN),
        bias: None,
        temperature: 0.0,
    };
    let route = gate
        .with_cosine(cosine)
        .unwrap()
        .route(&[0.0; HIDDEN], 1, None)
        .unwrap();
    assert_eq!((route.logits, route.experts), (vec![0.0; 4], vec![0, 1]));
}

#[test]
fn groups_are_ranked_by_the_sum_of_their_best() {
    // Six choices from 3 of 4 groups: groups count by their two best, as Megatron-LM has it.
    let (e, k, n, keep) = (16, 6, 4, 3);
    let gate = gate(config("group-limited:4,3", e, k), 1);
    let batch = Batch::new(2, 30, gate.config());
    let route = gate.route(&batch.x, 30, None).unwrap();
    for token in 0..30 {
        let scores = softmax(&wide(&route.logits[token * e..][..e]));
        let ranks: Vec<f64> = scores
            .chunks(e / n)
            .map(|group| {
                let order = ranked(group);
                order[..k / keep].iter().map(|&at| group[at as usize]).sum()
            })
            .collect();
        let kept = &ranked(&ranks)[..keep];
        let expected: Vec<u32> = ranked(&scores)
            .into_iter()
            .filter(|expert| kept.contains(&(expert / (e / n) as u32)))
            .take(k)
            .collect();
        assert_eq!(route.experts[token * k..][..k], expected);
    }
}
