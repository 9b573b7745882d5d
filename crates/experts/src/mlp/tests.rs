use super::*;
use crate::testing::{activate, bits, linear, obeys_the_laws, packed, round, run, values};

const HIDDEN: usize = 33;
const FFN: usize = 64;

fn expert(biases: bool, activation: Activation, dtype: Format) -> MlpExpert {
    MlpExpert::new(
        packed(&values(HIDDEN * FFN, 1, dtype), FFN, HIDDEN, dtype),
        biases.then(|| values(FFN, 2, dtype)),
        packed(&values(HIDDEN * FFN, 3, dtype), HIDDEN, FFN, dtype),
        biases.then(|| values(HIDDEN, 4, dtype)),
        activation,
        dtype,
    )
    .unwrap()
}

#[test]
fn every_format_rounds_where_it_says() {
    for dtype in [Format::F32, Format::Bf16] {
        for (biases, activation) in [(false, Activation::Relu), (true, Activation::Gelu)] {
            let biased = |values: Vec<f32>, bias: Vec<f32>| -> Vec<f32> {
                let sums = values.iter().zip(bias);
                sums.map(|(value, bias)| if biases { value + bias } else { *value })
                    .collect()
            };
            let x = values(5 * HIDDEN, 5, dtype);
            let y = run(
                &expert(biases, activation, dtype),
                &x,
                &mut Scratch::default(),
            );
            let expected: Vec<f32> = x
                .chunks_exact(HIDDEN)
                .flat_map(|x| {
                    let up = linear(x, &values(HIDDEN * FFN, 1, dtype));
                    let between: Vec<f32> = biased(up, values(FFN, 2, dtype))
                        .into_iter()
                        .map(|up| round(activate(activation, round(up, dtype)), dtype))
                        .collect();
                    let down = linear(&between, &values(HIDDEN * FFN, 3, dtype));
                    let down = biased(down, values(HIDDEN, 4, dtype));
                    down.into_iter().map(|value| round(value, dtype))
                })
                .collect();
            assert_eq!(bits(&y), bits(&expected), "{activation} {dtype}");
        }
    }
}

#[test]
fn rows_do_not_depend_on_the_batch() {
    for dtype in [Format::F32, Format::Bf16] {
        obeys_the_laws(&expert(true, Activation::Relu, dtype), dtype);
    }
}

#[test]
fn the_identity_obeys_the_same_laws() {
    let expert = crate::IdentityExpert::new(HIDDEN).unwrap();
    obeys_the_laws(&expert, Format::F32);
    let x = values(3 * HIDDEN, 6, Format::F32);
    assert_eq!(run(&expert, &x, &mut Scratch::default()), x);
    assert_eq!((expert.weight_bytes(), expert.flops_per_row()), (0, 0));
    assert!(expert.passes_through());
    assert!(crate::IdentityExpert::new(0).is_err());
}

#[test]
fn size_and_work_follow_from_the_shape() {
    let expert = expert(true, Activation::Relu, Format::F32);
    assert_eq!(expert.weight_bytes(), (2 * HIDDEN * FFN + HIDDEN + FFN) * 4);
    assert_eq!(expert.flops_per_row(), (4 * HIDDEN * FFN) as u64);
    assert!(!expert.passes_through());
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let matrix = |out, inner| packed(&vec![0.0; out * inner], out, inner, Format::F32);
    let new = |up_bias, down, down_bias| {
        MlpExpert::new(
            matrix(3, 2),
            up_bias,
            down,
            down_bias,
            Activation::Relu,
            Format::F32,
        )
        .unwrap_err()
        .to_string()
    };
    assert!(new(None, matrix(3, 2), None).starts_with("weights down: got shape [3, 2]"));
    assert_eq!(
        new(Some(vec![0.0; 2]), matrix(2, 3), None),
        "up_bias: got 2 values, expected one for each of 3 outputs"
    );
    assert!(new(None, matrix(2, 3), Some(vec![])).starts_with("down_bias: got 0 values"));
}
