use super::*;
use crate::testing::{bits, linear, obeys_the_laws, packed, round, run, values};
use crate::{Expert, Scratch, SwigluBiases, SwigluExpert};

const HIDDEN: usize = 40;
const FFN: usize = 48;

fn expert(clamp: Clamp, biases: bool, dtype: Format) -> SwigluExpert {
    let matrix = |seed, out, inner| packed(&values(out * inner, seed, dtype), out, inner, dtype);
    let expert = SwigluExpert::new(
        matrix(1, FFN, HIDDEN),
        matrix(2, FFN, HIDDEN),
        matrix(3, HIDDEN, FFN),
        Activation::Silu,
        dtype,
    )
    .unwrap()
    .clamped(clamp);
    if !biases {
        return expert;
    }
    let biases = SwigluBiases {
        gate: values(FFN, 4, dtype),
        up: values(FFN, 5, dtype),
        down: values(HIDDEN, 6, dtype),
    };
    expert.biased(biases).unwrap()
}

/// The factors of the middle, from the formulas of the type's documentation.
fn factors(clamp: Clamp, g: f32, u: f32, dtype: Format) -> (f32, f32) {
    let silu = |g: f32| round(math::silu(g), dtype);
    match clamp {
        Clamp::None => (silu(g), u),
        Clamp::Before { limit } => (silu(g.min(limit)), u.clamp(-limit, limit)),
        Clamp::After { limit } => (silu(g).min(limit), u.clamp(-limit, limit)),
        Clamp::Swish { limit, alpha } => {
            let g = g.min(limit);
            let share = round(math::sigmoid(round(alpha * g, dtype)), dtype);
            let u = round(u.clamp(-limit, limit) + 1.0, dtype);
            (round(g * share, dtype), u)
        }
    }
}

const CLAMPS: [Clamp; 4] = [
    Clamp::None,
    Clamp::Before { limit: 1.5 },
    Clamp::After { limit: 0.75 },
    Clamp::Swish {
        limit: 1.25,
        alpha: 1.702,
    },
];

#[test]
fn every_form_rounds_where_it_says() {
    for dtype in [Format::F32, Format::Bf16] {
        for clamp in CLAMPS {
            for biases in [false, true] {
                let add = |value: f32, bias: f32| {
                    let value = round(value, dtype);
                    if biases {
                        round(value + bias, dtype)
                    } else {
                        value
                    }
                };
                let x = values(5 * HIDDEN, 7, dtype);
                let y = run(&expert(clamp, biases, dtype), &x, &mut Scratch::default());
                let expected: Vec<f32> = x
                    .chunks_exact(HIDDEN)
                    .flat_map(|x| {
                        let gates = linear(x, &values(FFN * HIDDEN, 1, dtype));
                        let ups = linear(x, &values(FFN * HIDDEN, 2, dtype));
                        let gate_bias = values(FFN, 4, dtype);
                        let up_bias = values(FFN, 5, dtype);
                        let between: Vec<f32> = (0..FFN)
                            .map(|i| {
                                let g = add(gates[i], gate_bias[i]);
                                let u = add(ups[i], up_bias[i]);
                                let (g, u) = factors(clamp, g, u, dtype);
                                round(g * u, dtype)
                            })
                            .collect();
                        let down = linear(&between, &values(FFN * HIDDEN, 3, dtype));
                        let sums = down.into_iter().zip(values(HIDDEN, 6, dtype));
                        sums.map(|(y, bias)| add(y, bias)).collect::<Vec<_>>()
                    })
                    .collect();
                assert_eq!(bits(&y), bits(&expected), "{clamp:?} {biases} {dtype}");
            }
        }
    }
}

#[test]
fn limits_are_met_on_the_stated_sides() {
    let apply = |clamp: Clamp, g: f32, u: f32| {
        let (mut gate, mut up) = ([g], [u]);
        clamp.apply(Activation::Relu, Format::F32, &mut gate, &mut up);
        (gate[0], up[0])
    };
    let before = Clamp::Before { limit: 2.0 };
    assert_eq!(apply(before, 5.0, 5.0), (2.0, 2.0));
    assert_eq!(apply(before, -5.0, -5.0), (0.0, -2.0));
    assert_eq!(apply(Clamp::After { limit: 2.0 }, 5.0, -5.0), (2.0, -2.0));
    assert_eq!(apply(Clamp::None, 5.0, -5.0), (5.0, -5.0));
    let swish = Clamp::Swish {
        limit: 2.0,
        alpha: 0.0,
    };
    // sigmoid(0) is a half; the gate has no lower limit.
    assert_eq!(apply(swish, 5.0, 5.0), (1.0, 3.0));
    assert_eq!(apply(swish, -5.0, -5.0), (-2.5, -1.0));
    // 0.3 is no bf16 number.
    let rounded = Clamp::After { limit: 0.3 }.rounded(Format::Bf16);
    assert_eq!(
        rounded,
        Clamp::After {
            limit: 0.300_781_25
        }
    );
}

#[test]
fn rows_do_not_depend_on_the_batch() {
    for dtype in [Format::F32, Format::Bf16] {
        for clamp in CLAMPS {
            obeys_the_laws(&expert(clamp, true, dtype), dtype);
        }
    }
}

#[test]
fn biases_count_and_must_fit() {
    let with = expert(Clamp::None, true, Format::Bf16).weight_bytes();
    let without = expert(Clamp::None, false, Format::Bf16).weight_bytes();
    assert_eq!(with - without, (2 * FFN + HIDDEN) * 2);
    let biases = SwigluBiases {
        gate: vec![0.0; FFN],
        up: vec![0.0; FFN + 1],
        down: vec![0.0; HIDDEN],
    };
    let error = expert(Clamp::None, false, Format::F32)
        .biased(biases)
        .unwrap_err();
    assert!(
        error.to_string().starts_with("up_bias: got 49 values"),
        "{error}"
    );
}
