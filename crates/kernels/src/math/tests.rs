use proptest::prelude::*;

use super::*;
use crate::isa::Isa;

type Scalar = fn(f32) -> f32;

/// Every 9973rd f32: 430 000 values of both signs and all magnitudes, NaNs left out.
fn sweep() -> impl Iterator<Item = f32> {
    (0..=u32::MAX)
        .step_by(STRIDE)
        .map(f32::from_bits)
        .filter(|value| !value.is_nan())
}

const STRIDE: usize = 9973;

/// The distance of `got` from `exact` in ulp of the f32 nearest to `exact`.
fn ulps(got: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    if got == nearest {
        return 0.0;
    }
    if !nearest.is_finite() || !got.is_finite() {
        // Where one of the two has overflowed the other must be the largest finite number.
        let finite = if nearest.is_finite() { nearest } else { got };
        return if finite.abs() == f32::MAX {
            1.0
        } else {
            f64::INFINITY
        };
    }
    let ulp = f64::from(f32::from_bits(
        nearest.abs().to_bits().max(0x0080_0000) & 0x7f80_0000,
    )) * f64::from(f32::EPSILON);
    (f64::from(got) - exact).abs() / ulp
}

/// The largest error of `function` over the sweep, and where.
fn worst(
    values: impl Iterator<Item = f32>,
    function: Scalar,
    exact: impl Fn(f64) -> f64,
) -> (f64, f32) {
    values.fold((0.0, 0.0), |worst, x| {
        let error = ulps(function(x), exact(f64::from(x)));
        if error > worst.0 || error.is_nan() {
            (error, x)
        } else {
            worst
        }
    })
}

fn exact_sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn exact_gelu(x: f64) -> f64 {
    0.5 * x * exact_erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

fn exact_gelu_tanh(x: f64) -> f64 {
    x * exact_sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x))
}

/// The series of erf around 0, the continued fraction of erfc further out.
fn exact_erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - exact_erfc(-x);
    }
    let root = std::f64::consts::PI.sqrt();
    if x < 2.0 {
        let mut term = x;
        let mut sum = x;
        for n in 1..80 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        return 1.0 - 2.0 / root * (-x * x).exp() * sum;
    }
    let fraction = (1..200)
        .rev()
        .fold(x, |tail, n| x + 0.5 * f64::from(n) / tail);
    (-x * x).exp() / (root * fraction)
}

#[test]
fn errors_stay_within_the_stated_ulps() {
    let finite = || sweep().filter(|value| value.is_finite());
    let checks: [(&str, f64, (f64, f32)); 9] = [
        ("exp", 1.0, worst(sweep(), exp, f64::exp)),
        (
            "log",
            1.0,
            worst(sweep().filter(|&x| x >= 0.0), log, f64::ln),
        ),
        ("tanh", 2.0, worst(sweep(), tanh, f64::tanh)),
        ("sigmoid", 2.5, worst(sweep(), sigmoid, exact_sigmoid)),
        (
            "silu",
            3.0,
            worst(finite().filter(|&x| x > -85.0), silu, |x| {
                x * exact_sigmoid(x)
            }),
        ),
        (
            "softplus",
            3.0,
            worst(finite(), softplus, |x| {
                x.max(0.0) + (-x.abs()).exp().ln_1p()
            }),
        ),
        ("relu", 0.0, worst(sweep(), relu, |x| x.max(0.0))),
        ("gelu", 3.0, worst(finite(), gelu, exact_gelu)),
        (
            "gelu_tanh",
            4.0,
            worst(finite().filter(|&x| x > -1.0), gelu_tanh, exact_gelu_tanh),
        ),
    ];
    for (name, _, (error, at)) in checks {
        println!("{name}: {error:.3} ulp at {at:e}");
    }
    for (name, limit, (error, at)) in checks {
        assert!(error <= limit, "{name}: {error} ulp at {at:e}");
    }
}

#[test]
fn gelu_tanh_keeps_its_precision_in_the_negative_tail() {
    for x in sweep().filter(|&x| x < 0.0 && x > -8.0) {
        let exact = exact_gelu_tanh(f64::from(x));
        let error = (f64::from(gelu_tanh(x)) - exact).abs();
        assert!(
            error <= 1e-5 * exact.abs() + 1e-44,
            "{x}: {error:e} of {exact:e}"
        );
    }
}

#[test]
fn the_ends_of_the_range_have_their_limits() {
    const INF: f32 = f32::INFINITY;
    // Function, argument, result; compared to the bit.
    let limits: [(Scalar, f32, f32); 31] = [
        (exp, INF, INF),
        (exp, -INF, 0.0),
        (exp, 88.722_83, f32::from_bits(0x7f7f_ff84)),
        (exp, 88.722_84, INF),
        (exp, f32::MAX, INF),
        (exp, -103.972_08, f32::from_bits(1)),
        (exp, -103.98, 0.0),
        (exp, f32::MIN, 0.0),
        (exp, 0.0, 1.0),
        (exp, -0.0, 1.0),
        (log, INF, INF),
        (log, 0.0, -INF),
        (log, -0.0, -INF),
        (log, 1.0, 0.0),
        (tanh, INF, 1.0),
        (tanh, -INF, -1.0),
        (tanh, 0.0, 0.0),
        (tanh, -0.0, -0.0),
        (sigmoid, INF, 1.0),
        (sigmoid, -INF, 0.0),
        (sigmoid, 0.0, 0.5),
        (silu, INF, INF),
        (silu, f32::MAX, f32::MAX),
        (silu, f32::MIN, -0.0),
        (relu, -INF, 0.0),
        (relu, INF, INF),
        (gelu, INF, INF),
        (gelu_tanh, f32::MIN, -0.0),
        (softplus, INF, INF),
        (softplus, -INF, 0.0),
        (softplus, f32::MIN, 0.0),
    ];
    for (index, (function, x, expected)) in limits.into_iter().enumerate() {
        let got = function(x);
        assert_eq!(
            got.to_bits(),
            expected.to_bits(),
            "case {index}: f({x:e}) = {got:e}"
        );
    }
    assert!(log(-1.0).is_nan() && log(-INF).is_nan() && log(-1e-45).is_nan());
    assert!(silu(-INF).is_nan());
    for function in [
        exp, log, tanh, sigmoid, silu, relu, gelu, gelu_tanh, softplus,
    ] {
        for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001)] {
            assert!(function(nan).is_nan());
        }
    }
}

/// Bits to compare; every NaN counts as one.
fn bits(values: &[f32]) -> Vec<u32> {
    values
        .iter()
        .map(|value| {
            if value.is_nan() {
                u32::MAX
            } else {
                value.to_bits()
            }
        })
        .collect()
}

#[test]
fn a_slice_on_any_kernel_has_the_bits_of_the_scalar_function() {
    type Slice = fn(Isa, &mut [f32]);
    let functions: [(Scalar, Slice); 8] = [
        (exp, |isa, values| elementary::exp_on(isa, values)),
        (tanh, |isa, values| elementary::tanh_on(isa, values)),
        (sigmoid, |isa, values| activation::sigmoid_on(isa, values)),
        (silu, |isa, values| activation::silu_on(isa, values)),
        (softplus, |isa, values| activation::softplus_on(isa, values)),
        (relu, |isa, values| activation::relu_on(isa, values)),
        (gelu, |isa, values| activation::gelu_on(isa, values)),
        (gelu_tanh, |isa, values| {
            activation::gelu_tanh_on(isa, values)
        }),
    ];
    let values: Vec<f32> = sweep().step_by(7).chain([f32::NAN, -0.0]).collect();
    for (index, (scalar, slice)) in functions.into_iter().enumerate() {
        let expected = bits(&values.iter().map(|&x| scalar(x)).collect::<Vec<_>>());
        for isa in Isa::available() {
            let mut got = values.clone();
            slice(isa, &mut got);
            assert!(bits(&got) == expected, "function {index} on {isa:?}");
            // Every tail of a vector loop.
            for length in 0..70 {
                let mut got = values[1000..1000 + length].to_vec();
                slice(isa, &mut got);
                assert!(
                    bits(&got) == expected[1000..1000 + length],
                    "{length} values on {isa:?}"
                );
            }
        }
    }
}

#[test]
fn the_bits_are_pinned() {
    // These hold on every CPU and system. A change is a change of the numerics: results recorded
    // elsewhere stop being reproducible, so it needs a new name in `NUMERICS`.
    let digest = |function: Scalar| {
        sweep()
            .step_by(11)
            .map(function)
            .filter(|y| !y.is_nan())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, y| {
                (hash ^ u64::from(y.to_bits())).wrapping_mul(0x0000_0100_0000_01b3)
            })
    };
    let functions = [exp, log, tanh, sigmoid, silu, gelu, gelu_tanh, softplus];
    assert_eq!(
        functions.map(digest).map(|hash| format!("{hash:016x}")),
        PINNED
    );
}

/// FNV-1a hashes, in the order of the functions.
const PINNED: [&str; 8] = [
    "82d383f8a6ef697d",
    "3db774a86ef6f3cd",
    "2167fded502eed40",
    "b5d246d04daa00cd",
    "c362eb13a51c79f2",
    "b1283c54f48a576e",
    "fc8a8e637089f653",
    "54cb9e6600519405",
];

#[test]
fn softmax_of_known_scores() {
    let mut scores = [1.0, 2.0, 3.0];
    softmax(&mut scores);
    for (got, expected) in scores
        .iter()
        .zip([0.090_030_57, 0.244_728_48, 0.665_240_94])
    {
        assert!((got - expected).abs() < 1e-7);
    }
    let mut masked = [0.0, f32::NEG_INFINITY, 0.0];
    softmax(&mut masked);
    assert_eq!(masked, [0.5, 0.0, 0.5]);
    for scores in [
        [f32::NEG_INFINITY; 2],
        [f32::NAN, 1.0],
        [f32::INFINITY, 1.0],
    ] {
        let mut scores = scores;
        softmax(&mut scores);
        assert!(scores[0].is_nan(), "{scores:?}");
    }
    softmax(&mut []);
}

/// The order of additions that [`softmax`] states, one value after the other.
fn softmax_by_the_book(scores: &[f32]) -> Vec<f32> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f32> = scores.iter().map(|score| exp(score - largest)).collect();
    let mut sums: Vec<f32> = (0..16)
        .map(|lane| {
            exps.iter()
                .skip(lane)
                .step_by(16)
                .fold(0.0, |sum, e| sum + e)
        })
        .collect();
    while sums.len() > 1 {
        let upper = sums.split_off(sums.len() / 2);
        sums.iter_mut()
            .zip(upper)
            .for_each(|(lower, upper)| *lower += upper);
    }
    exps.iter().map(|e| e / sums[0]).collect()
}

#[test]
fn softmax_has_the_stated_bits_on_every_kernel() {
    let scores: Vec<f32> = sweep()
        .filter(|score| (1e-3..90.0).contains(&score.abs()))
        .collect();
    for width in (1..70).chain([256, 1000]) {
        for row in scores.chunks_exact(width).take(9) {
            let expected = softmax_by_the_book(row);
            for isa in Isa::available() {
                let mut got = row.to_vec();
                reduce::softmax_on(isa, &mut got);
                assert!(bits(&got) == bits(&expected), "{width} scores on {isa:?}");
            }
        }
    }
}

#[test]
fn logsumexp_of_known_scores() {
    assert!((logsumexp(&[1.0, 2.0, 3.0]) - 3.407_606).abs() < 1e-6);
    assert_eq!(logsumexp(&[1000.0]), 1000.0);
    assert_eq!(logsumexp(&[]), f32::NEG_INFINITY);
    assert_eq!(logsumexp(&[f32::NEG_INFINITY; 3]), f32::NEG_INFINITY);
    assert_eq!(logsumexp(&[f32::INFINITY, 0.0]), f32::INFINITY);
    assert!(logsumexp(&[0.0, f32::NAN, 1.0]).is_nan());
}

#[test]
#[should_panic(expected = "lengths of gate and up")]
fn silu_mul_needs_equal_lengths() {
    silu_mul(&mut [0.0; 2], &[0.0; 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn softmax_is_a_distribution(scores in prop::collection::vec(-90.0f32..90.0, 1..300)) {
        let mut shares = scores.clone();
        softmax(&mut shares);
        let sum: f64 = shares.iter().copied().map(f64::from).sum();
        prop_assert!((sum - 1.0).abs() < 1e-5);
        let exact: f64 = scores.iter().map(|&score| f64::from(score).exp()).sum();
        for (score, share) in scores.iter().zip(&shares) {
            let expected = f64::from(*score).exp() / exact;
            prop_assert!((f64::from(*share) - expected).abs() <= 2e-5 * expected + 1e-44);
        }
        prop_assert!((f64::from(logsumexp(&scores)) - exact.ln()).abs() < 2e-5);
    }

    #[test]
    fn products_equal_scalar_steps_on_every_kernel(
        pairs in prop::collection::vec((-30.0f32..30.0, -1e3f32..1e3), 0..90),
    ) {
        let (gate, up): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let both: Vec<f32> = gate.iter().zip(&up).map(|(gate, up)| silu(*gate) * up).collect();
        let plain: Vec<f32> = gate.iter().zip(&up).map(|(gate, up)| gate * up).collect();
        for isa in Isa::available() {
            let (mut got, mut product) = (gate.clone(), gate.clone());
            activation::silu_mul_on(isa, &mut got, &up);
            activation::mul_on(isa, &mut product, &up);
            prop_assert_eq!((&got, &product), (&both, &plain), "{:?}", isa);
        }
    }
}
