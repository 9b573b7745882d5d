//! Noise on inputs and logits, and lotteries.

use expertmesh_kernels::{Format, PackedMatrix};

use super::{
    Batch, HIDDEN, assert_close, config, gate, numbers, ranked, softmax, transparent, wide,
};
use crate::{
    Gate, GateContext, GateNoise, Jitter, RouterConfig,
    noise::{NoiseKey, Purpose},
};

const KEY: NoiseKey = NoiseKey {
    seed: 11,
    step: 3,
    layer: 2,
};

fn softplus(value: f64) -> f64 {
    value.exp().ln_1p()
}

fn product(x: &[f32], weight: &[f32]) -> f64 {
    wide(x).iter().zip(wide(weight)).map(|(x, w)| x * w).sum()
}

#[test]
fn noisy_top_k_is_shazeers_formula() {
    let (e, k, tokens) = (7, 3, 11);
    let (weight, noise_weight) = (numbers(1, e * HIDDEN, 1.0), numbers(2, e * HIDDEN, 1.0));
    let packed = |weight: &[f32]| PackedMatrix::from_f32(weight, e, HIDDEN).unwrap();
    let gate = Gate::new(config("noisy:0.01", e, k), packed(&weight), None, None).unwrap();
    let gate = gate.with_noise_weight(packed(&noise_weight)).unwrap();
    let batch = Batch::new(3, tokens, gate.config());
    let route = gate.route_in(&batch.x, tokens, &batch.context()).unwrap();
    for token in 0..tokens {
        let x = &batch.x[token * HIDDEN..][..HIDDEN];
        let noisy: Vec<f64> = (0..e)
            .map(|expert| {
                let of = |weight: &[f32]| product(x, &weight[expert * HIDDEN..][..HIDDEN]);
                let normal = KEY
                    .stream(Purpose::LogitNoise)
                    .normal(token as u64, expert as u32);
                of(&weight) + f64::from(normal) * (softplus(of(&noise_weight)) + 0.01)
            })
            .collect();
        let chosen = &ranked(&noisy)[..k];
        assert_eq!(&route.experts[token * k..][..k], chosen);
        // KeepTopK, then softmax.
        let kept: Vec<f64> = chosen
            .iter()
            .map(|&expert| noisy[expert as usize])
            .collect();
        for (weight, expected) in route.weights[token * k..].iter().zip(softmax(&kept)) {
            assert_close(*weight, expected);
        }
    }
}

#[test]
fn tutels_noise_has_its_deviation() {
    let (e, tokens, scale) = (8, 4000, 2.0);
    let gate = transparent(config("tutel-noise:2", e, 2));
    let context = GateContext {
        training: true,
        ..GateContext::default()
    };
    let route = gate
        .route_in(&vec![0.0; tokens * e], tokens, &context)
        .unwrap();
    let count = (tokens * e) as f64;
    let mean: f64 = wide(&route.logits).iter().sum::<f64>() / count;
    let square: f64 = wide(&route.logits).iter().map(|x| x * x).sum::<f64>() / count;
    let expected = scale / e as f64;
    // Six standard errors of mean and variance.
    assert!(mean.abs() < 6.0 * expected / count.sqrt(), "{mean}");
    let variance = expected * expected;
    let error = (square - variance).abs();
    assert!(error < 6.0 * variance * (2.0 / count).sqrt(), "{square}");
}

#[test]
fn jitter_scales_the_gates_input_and_the_experts_if_they_see_it() {
    let jittered = |experts_see| RouterConfig {
        noise: GateNoise {
            jitter: Some(Jitter {
                eps: 0.25,
                experts_see,
            }),
            ..GateNoise::default()
        },
        ..config("topk", 6, 2)
    };
    let (seen, unseen) = (gate(jittered(true), 1), gate(jittered(false), 1));
    let batch = Batch::new(2, 9, seen.config());
    let context = GateContext {
        first_token: 70,
        ..batch.context()
    };
    let rows = seen.expert_rows(&batch.x, &context).unwrap();
    for (at, (row, x)) in rows.iter().zip(&batch.x).enumerate() {
        let (token, element) = (70 + (at / HIDDEN) as u64, (at % HIDDEN) as u32);
        let uniform = f64::from(KEY.stream(Purpose::Jitter).uniform(token, element));
        let factor = 0.75 + 0.5 * uniform;
        assert!((0.75..1.25).contains(&factor));
        assert_close(*row, f64::from(*x) * factor);
    }
    let plain = gate(config("topk", 6, 2), 1).route(&rows, 9, None).unwrap();
    for gate in [&seen, &unseen] {
        let route = gate.route_in(&batch.x, 9, &context).unwrap();
        assert_eq!(route.logits, plain.logits);
    }
    assert_eq!(unseen.expert_rows(&batch.x, &context), None);
    let quiet = GateContext {
        training: false,
        ..context
    };
    assert_eq!(seen.expert_rows(&batch.x, &quiet), None);
}

#[test]
fn jittered_rows_of_a_bf16_model_are_bf16() {
    let noise = GateNoise {
        jitter: Some(Jitter {
            eps: 0.1,
            experts_see: true,
        }),
        ..GateNoise::default()
    };
    let config = RouterConfig {
        noise,
        ..RouterConfig::switch(4, Format::Bf16)
    };
    let gate = gate(config, 1);
    let context = GateContext {
        training: true,
        ..GateContext::default()
    };
    let rows = gate.expert_rows(&[1.0; HIDDEN], &context).unwrap();
    let rounded = |value: &f32| expertmesh_kernels::bf16_round(*value) == *value;
    assert!(rows.iter().all(rounded));
    assert_ne!(rows, [1.0; HIDDEN]);
}

#[test]
fn a_sample_is_the_highest_of_logits_and_gumbel_noise() {
    let (e, tokens) = (9, 20);
    for (name, k) in [("rsample", 3), ("sampled-second", 2)] {
        let gate = gate(config(name, e, k), 1);
        let batch = Batch::new(4, tokens, gate.config());
        let route = gate.route_in(&batch.x, tokens, &batch.context()).unwrap();
        let purpose = match name {
            "rsample" => Purpose::RSample,
            _ => Purpose::SecondExpert,
        };
        for token in 0..tokens {
            let logits = wide(&route.logits[token * e..][..e]);
            let mut noisy = logits.clone();
            for (expert, noisy) in noisy.iter_mut().enumerate() {
                *noisy += f64::from(KEY.stream(purpose).gumbel(token as u64, expert as u32));
            }
            let expected: Vec<u32> = match name {
                "rsample" => ranked(&noisy)[..k].to_vec(),
                _ => {
                    let first = ranked(&logits)[0];
                    noisy[first as usize] = f64::NEG_INFINITY;
                    vec![first, ranked(&noisy)[0]]
                }
            };
            let chosen = &route.experts[token * k..][..k];
            assert_eq!(chosen, expected);
            // The noise is in the choice alone.
            let scores = softmax(&logits);
            let of: Vec<f64> = expected.iter().map(|&e| scores[e as usize]).collect();
            let divisor = if name == "rsample" {
                1.0
            } else {
                of.iter().sum()
            };
            for (weight, score) in route.weights[token * k..].iter().zip(&of) {
                assert_close(*weight, score / divisor);
            }
        }
    }
}

#[test]
fn the_first_of_a_sample_is_a_sample_of_the_softmax() {
    let logits = [0.0, 1.0, -1.0, 0.5];
    let tokens = 4000;
    let gate = transparent(config("rsample", 4, 1));
    let route = gate.route(&logits.repeat(tokens), tokens, None).unwrap();
    for (expert, p) in softmax(&wide(&logits)).into_iter().enumerate() {
        let share = route.demand()[expert] as f64 / tokens as f64;
        let error = (p * (1.0 - p) / tokens as f64).sqrt();
        assert!((share - p).abs() < 5.0 * error, "{share}, expected {p}");
    }
}

#[test]
fn the_second_expert_stays_by_a_lottery_of_its_weight() {
    let (e, tokens) = (5, 60);
    for name in ["gshard-random", "fastmoe-gshard"] {
        let gate = gate(config(name, e, 2), 1);
        let batch = Batch::new(4, tokens, gate.config());
        let route = gate.route_in(&batch.x, tokens, &batch.context()).unwrap();
        let mut alone = 0;
        for token in 0..tokens {
            let scores = softmax(&wide(&route.logits[token * e..][..e]));
            let best = &ranked(&scores)[..2];
            let [first, second] = [scores[best[0] as usize], scores[best[1] as usize]];
            let share = second / (first + second);
            let ticket = KEY.stream(Purpose::SecondExpert).uniform(token as u64, 0);
            let kept = 1 + usize::from(2.0 * share > f64::from(ticket));
            let of = route.choices_of(token);
            assert_eq!(route.experts[of.clone()], best[..kept]);
            // The first keeps the weight that it had beside the second.
            assert_close(route.weights[of.start], 1.0 - share);
            alone += usize::from(kept == 1);
        }
        assert!((1..tokens).contains(&alone), "{alone}");
    }
    // Certain ends: an equal share always stays, a share of 0 never does.
    let sure = transparent(config("gshard-random", 2, 2));
    let route = sure.route(&[0.0; 200], 100, None).unwrap();
    assert_eq!(route.choices(), 200);
    let never = transparent(config("gshard-random", 2, 2));
    let route = never.route(&[200.0, -200.0].repeat(50), 50, None).unwrap();
    assert_eq!(route.choices(), 50);
}
