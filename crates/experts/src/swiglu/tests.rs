use super::*;
use crate::testing::{
    activate, bits, linear, linear_f64, obeys_the_laws, packed, round, run, values,
};

const HIDDEN: usize = 40;
const FFN: usize = 75;

struct Weights {
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}

fn weights(dtype: Format) -> Weights {
    let [gate, up, down] = [1, 2, 3].map(|seed| values(HIDDEN * FFN, seed, dtype));
    Weights { gate, up, down }
}

fn expert(w: &Weights, activation: Activation, dtype: Format) -> SwigluExpert {
    SwigluExpert::new(
        packed(&w.gate, FFN, HIDDEN, dtype),
        packed(&w.up, FFN, HIDDEN, dtype),
        packed(&w.down, HIDDEN, FFN, dtype),
        activation,
        dtype,
    )
    .unwrap()
}

#[test]
fn f32_agrees_with_f64() {
    let w = weights(Format::F32);
    let expert = expert(&w, Activation::Silu, Format::F32);
    let x = values(9 * HIDDEN, 4, Format::F32);
    let y = run(&expert, &x, &mut Scratch::default());
    for (x, y) in x.chunks_exact(HIDDEN).zip(y.chunks_exact(HIDDEN)) {
        let x: Vec<f64> = x.iter().copied().map(f64::from).collect();
        let up = linear_f64(&x, &w.up);
        let between: Vec<f64> = linear_f64(&x, &w.gate)
            .iter()
            .zip(up)
            .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
            .collect();
        for (got, expected) in y.iter().zip(linear_f64(&between, &w.down)) {
            assert!(
                (f64::from(*got) - expected).abs() < 1e-4,
                "{got} {expected}"
            );
        }
    }
}

#[test]
fn every_format_rounds_where_it_says() {
    for dtype in [Format::F32, Format::Bf16] {
        let w = weights(dtype);
        for activation in [
            Activation::Silu,
            Activation::Relu,
            Activation::Gelu,
            Activation::GeluTanh,
        ] {
            let x = values(5 * HIDDEN, 5, dtype);
            let y = run(&expert(&w, activation, dtype), &x, &mut Scratch::default());
            let expected: Vec<f32> = x
                .chunks_exact(HIDDEN)
                .flat_map(|x| {
                    let up = linear(x, &w.up);
                    let between: Vec<f32> = linear(x, &w.gate)
                        .iter()
                        .zip(up)
                        .map(|(&gate, up)| {
                            let (gate, up) = (round(gate, dtype), round(up, dtype));
                            round(round(activate(activation, gate), dtype) * up, dtype)
                        })
                        .collect();
                    linear(&between, &w.down)
                        .into_iter()
                        .map(|value| round(value, dtype))
                })
                .collect();
            assert_eq!(bits(&y), bits(&expected), "{activation} {dtype}");
        }
    }
}

#[test]
fn rows_do_not_depend_on_the_batch() {
    for dtype in [Format::F32, Format::Bf16] {
        obeys_the_laws(&expert(&weights(dtype), Activation::Silu, dtype), dtype);
    }
}

#[test]
fn size_and_work_follow_from_the_shape() {
    let expert = expert(&weights(Format::Bf16), Activation::Silu, Format::Bf16);
    assert_eq!(expert.hidden(), HIDDEN);
    assert_eq!(expert.weight_bytes(), 3 * HIDDEN * FFN * 2);
    assert_eq!(expert.flops_per_row(), (6 * HIDDEN * FFN) as u64);
}

#[test]
fn matrices_that_do_not_fit_are_named() {
    let matrix = |out, inner| packed(&vec![0.0; out * inner], out, inner, Format::F32);
    let new = |gate, up, down| {
        SwigluExpert::new(gate, up, down, Activation::Silu, Format::F32)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        new(matrix(3, 2), matrix(3, 2), matrix(3, 2)),
        "weights down: got shape [3, 2], expected [2, 3] ([out, inner]); \
         check that gate, up and down are not swapped"
    );
    assert!(new(matrix(3, 2), matrix(4, 2), matrix(2, 3)).starts_with("weights up: got shape"));
    assert_eq!(
        new(matrix(3, 0), matrix(3, 0), matrix(0, 3)),
        "hidden is 0, expected at least 1"
    );
    assert_eq!(
        new(matrix(0, 3), matrix(0, 3), matrix(3, 0)),
        "ffn is 0, expected at least 1"
    );
}
