use expertmesh_kernels::{Format, PackedMatrix, bf16_round};
use proptest::prelude::*;

use super::{cases, rng, uniform};
use crate::{Gate, Logits, Norm, RouterConfig};

fn gate(config: RouterConfig, hidden: usize, seed: u64) -> (Gate, Vec<f32>) {
    let mut rng = rng(seed);
    let mut weight: Vec<f32> = (0..config.experts * hidden)
        .map(|_| uniform(&mut rng, 1.0))
        .collect();
    if config.dtype == Format::Bf16 {
        weight
            .iter_mut()
            .for_each(|value| *value = bf16_round(*value));
    }
    let packed = PackedMatrix::from_f32(&weight, config.experts, hidden).unwrap();
    (Gate::new(config, packed, None, None).unwrap(), weight)
}

#[test]
fn logits_are_rounded_as_the_router_says() {
    // 1 + 2^-9 is no bf16 number; the bias belongs to the product and is rounded with it.
    let product = 1.0 + f32::powi(2.0, -9);
    let logit = |logits, softcap, bias| {
        let config = RouterConfig {
            logits,
            softcap,
            ..RouterConfig::mixtral(1, 1, Format::Bf16)
        };
        let weight = PackedMatrix::from_f32(&[1.0], 1, 1).unwrap();
        let gate = Gate::new(config, weight, bias, None).unwrap();
        let mut out = [f32::NAN];
        gate.logits(&[product], &mut out).unwrap();
        out[0]
    };
    assert_eq!(logit(Logits::F32, None, None), product);
    assert_eq!(logit(Logits::Model, None, None), 1.0);
    assert_eq!(logit(Logits::ModelThenF32, None, None), 1.0);
    let half = Some(vec![f32::powi(2.0, -8)]);
    assert_eq!(logit(Logits::Model, None, half), 1.0 + f32::powi(2.0, -7));
    let capped = 2.0 * 0.5_f32.tanh();
    assert!((logit(Logits::ModelThenF32, Some(2.0), None) - capped).abs() < 1e-6);
    assert_eq!(logit(Logits::Model, Some(2.0), None), bf16_round(capped));
}

#[test]
fn a_batch_of_nothing_has_an_empty_route() {
    let (gate, _) = gate(RouterConfig::mixtral(4, 2, Format::F32), 3, 1);
    let route = gate.route(&[], 0, Some(&[])).unwrap();
    assert_eq!(
        (route.tokens, route.choices(), route.real_tokens()),
        (0, 0, 0)
    );
    route.check().unwrap();
}

#[test]
fn shapes_are_checked() {
    let (gate, weight) = gate(RouterConfig::mixtral(4, 2, Format::F32), 3, 1);
    let message = |result: Result<_, crate::RoutingError>| result.unwrap_err().to_string();
    let error = message(gate.route(&[0.0; 5], 2, None));
    assert_eq!(
        error,
        "hidden states: 5 elements, expected tokens x hidden = 2 x 3"
    );
    assert!(gate.route(&[0.0; 6], usize::MAX, None).is_err());
    assert!(gate.route(&[0.0; 6], 2, Some(&[true])).is_err());
    assert!(gate.logits(&[0.0; 3], &mut [0.0; 5]).is_err());

    let config = RouterConfig::mixtral(3, 2, Format::F32);
    let packed = || PackedMatrix::from_f32(&weight, 4, 3).unwrap();
    assert_eq!(
        Gate::new(config, packed(), None, None)
            .unwrap_err()
            .to_string(),
        "gate weight rows: 4, expected 3, one row for each expert"
    );
    let config = RouterConfig::mixtral(4, 2, Format::F32);
    assert!(Gate::new(config, packed(), Some(vec![0.0; 3]), None).is_err());
}

#[test]
fn an_overflowing_product_is_an_error_with_its_token() {
    let (gate, _) = gate(RouterConfig::mixtral(4, 2, Format::F32), 2, 1);
    let error = gate
        .route(&[0.0, 0.0, f32::NAN, 0.0], 2, None)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("logits[token 1][expert 0]: NaN"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_route_is_the_formula_and_its_rows_are_independent(
        experts in 1_usize..20, hidden in 1_usize..40, tokens in 1_usize..10,
        bf16: bool, seed: u64,
    ) {
        let dtype = if bf16 { Format::Bf16 } else { Format::F32 };
        let k = experts.min(2);
        let config = RouterConfig { norm: Norm::None, ..RouterConfig::mixtral(experts, k, dtype) };
        let (gate, weight) = gate(config, hidden, seed);
        let mut rng = rng(seed ^ 1);
        let x: Vec<f32> =
            (0..tokens * hidden).map(|_| bf16_round(uniform(&mut rng, 1.0))).collect();
        let route = gate.route(&x, tokens, None).unwrap();
        route.check().unwrap();
        for token in 0..tokens {
            let row = &x[token * hidden..(token + 1) * hidden];
            for expert in 0..experts {
                let column = &weight[expert * hidden..(expert + 1) * hidden];
                let chain = row.iter().zip(column).fold(0.0_f32, |sum, (x, w)| x.mul_add(*w, sum));
                let expected = if bf16 { bf16_round(chain) } else { chain };
                let logit = route.logits[token * experts + expert];
                prop_assert_eq!(logit.to_bits(), expected.to_bits());
            }
            // Alone, and so in any other company or order, a token is routed to the same bits.
            let alone = gate.route(row, 1, None).unwrap();
            prop_assert_eq!(&alone.logits, &route.logits[token * experts..(token + 1) * experts]);
            prop_assert_eq!(&alone.experts, &route.experts[token * k..(token + 1) * k]);
            prop_assert_eq!(&alone.weights, &route.weights[token * k..(token + 1) * k]);
        }
    }
}
