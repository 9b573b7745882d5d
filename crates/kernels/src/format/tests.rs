use proptest::prelude::*;

use super::*;
use crate::isa::Isa;

const SPECIAL: [f32; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    1.0 + 1.0 / 256.0, // a tie, to even: down to 1.0
    1.0 + 3.0 / 256.0, // a tie, to even: up to 1.015625
    1.003_906_4,       // just above a tie
    1e-45,
];

/// Values from all over the range of bits.
fn sweep() -> impl Iterator<Item = f32> {
    (0..=u32::MAX)
        .step_by(65_521 * 3)
        .chain(SPECIAL.map(f32::to_bits))
        .map(f32::from_bits)
}

#[test]
fn rounding_equals_the_half_crate() {
    for value in sweep() {
        let expected = half::bf16::from_f32(value);
        assert_eq!(
            f32_to_bf16(value),
            expected.to_bits(),
            "{:#x}",
            value.to_bits()
        );
        assert_eq!(bf16_round(value).to_bits(), expected.to_f32().to_bits());
        assert_eq!(
            bf16_to_f32(expected.to_bits()).to_bits(),
            expected.to_f32().to_bits()
        );
    }
}

#[test]
fn a_nan_stays_a_quiet_nan() {
    for bits in [
        0x7f80_0001,
        0x7fff_ffff,
        0xff80_0001,
        0xffff_ffff,
        0x7fc0_0000,
    ] {
        let rounded = f32_to_bf16(f32::from_bits(bits));
        assert!(bf16_to_f32(rounded).is_nan());
        assert_eq!(rounded & 0x0040, 0x0040);
    }
    assert_eq!(bf16_round(f32::MAX), f32::INFINITY);
}

#[test]
fn rows_keep_their_values_through_bytes() {
    // Every length of a vector loop's tail, and a start that no number is aligned to.
    let source: Vec<f32> = sweep().take(200).chain(SPECIAL).collect();
    for length in (0..70).chain([source.len()]) {
        for format in [Format::F32, Format::Bf16] {
            let src = &source[source.len() - length..];
            let mut bytes = vec![0xaa; 1 + length * format.bytes()];
            encode_row(format, src, &mut bytes[1..]);
            let mut back = vec![0.0; length];
            decode_row(format, &bytes[1..], &mut back);
            for (value, back) in src.iter().zip(back) {
                let expected = if format == Format::F32 {
                    *value
                } else {
                    bf16_round(*value)
                };
                assert_eq!(back.to_bits(), expected.to_bits());
            }
        }
    }
}

#[test]
fn bytes_are_little_endian() {
    let mut bytes = [0; 8];
    encode_row(Format::F32, &[1.0, -2.0], &mut bytes);
    assert_eq!(bytes, [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
    let mut bytes = [0; 4];
    encode_row(Format::Bf16, &[1.0, -2.0], &mut bytes);
    assert_eq!(bytes, [0x80, 0x3f, 0, 0xc0]);
}

#[test]
fn every_kernel_writes_the_same_bytes() {
    let values: Vec<f32> = sweep().filter(|value| !value.is_nan()).collect();
    let mut expected = vec![0; 2 * values.len()];
    encode_bf16::on(Isa::Portable, &values, &mut expected);
    for isa in Isa::available() {
        let mut bytes = vec![0; expected.len()];
        encode_bf16::on(isa, &values, &mut bytes);
        assert!(bytes == expected, "{isa:?}");
        let mut decoded = vec![0.0; values.len()];
        decode_bf16::on(isa, &bytes, &mut decoded);
        let mut rounded = values.clone();
        round_bf16::on(isa, &mut rounded);
        assert!(decoded == rounded, "{isa:?}");
    }
}

#[test]
fn weighted_sums_round_after_each_step() {
    // A fused multiply-add would give 2^-46 here: the product 1 - 2^-46 must round to 1 first.
    let x = 1.0 + f32::EPSILON;
    let weight = 1.0 - f32::EPSILON;
    let mut acc = [-1.0; 40];
    let mut bytes = [0; 160];
    encode_row(Format::F32, &[x; 40], &mut bytes);
    axpy_row(Format::F32, weight, &bytes, &mut acc, false);
    assert_eq!(acc, [0.0; 40]);
}

#[test]
#[should_panic(expected = "3 values of bf16 in 7 bytes")]
fn lengths_must_agree() {
    decode_row(Format::Bf16, &[0; 7], &mut [0.0; 3]);
}

#[test]
fn names_parse_back() {
    for format in [Format::F32, Format::Bf16] {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    let error = "fp16".parse::<Format>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown number format \"fp16\"; expected \"f32\" or \"bf16\""
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn weighted_sums_equal_scalar_steps_on_every_kernel(
        weight in -4.0f32..4.0,
        rows in prop::collection::vec((-1e6f32..1e6, -1e6f32..1e6), 0..90),
    ) {
        let (x, start): (Vec<f32>, Vec<f32>) = rows.into_iter().unzip();
        for format in [Format::F32, Format::Bf16] {
            let mut bytes = vec![0; x.len() * format.bytes()];
            encode_row(format, &x, &mut bytes);
            let mut exact = vec![0.0; x.len()];
            decode_row(format, &bytes, &mut exact);
            for round_product in [false, true] {
                let expected: Vec<f32> = exact.iter().zip(&start).map(|(value, sum)| {
                    let product = weight * value;
                    sum + if round_product { bf16_round(product) } else { product }
                }).collect();
                let mut acc = start.clone();
                axpy_row(format, weight, &bytes, &mut acc, round_product);
                prop_assert_eq!(&acc, &expected);
                for isa in Isa::available() {
                    let mut acc = start.clone();
                    match (format, round_product) {
                        (Format::F32, false) => axpy_f32::on(isa, weight, &bytes, &mut acc),
                        (Format::F32, true) => axpy_f32_rounded::on(isa, weight, &bytes, &mut acc),
                        (Format::Bf16, false) => axpy_bf16::on(isa, weight, &bytes, &mut acc),
                        (Format::Bf16, true) => {
                            axpy_bf16_rounded::on(isa, weight, &bytes, &mut acc);
                        }
                    }
                    prop_assert_eq!(&acc, &expected, "{:?} {}", isa, format);
                }
            }
        }
    }
}

#[test]
fn the_first_term_has_the_bits_of_a_sum_from_zero() {
    let values = [1.5_f32, -0.0, 0.0, -3.25, 1.0e-40, f32::MAX, 0.1];
    for format in [Format::F32, Format::Bf16] {
        let mut row = vec![0; values.len() * format.bytes()];
        encode_row(format, &values, &mut row);
        for weight in [0.3_f32, -0.7, 0.0, 1.0] {
            for round in [false, true] {
                let (mut sum, mut first) = (vec![0.0; values.len()], vec![9.0; values.len()]);
                axpy_row(format, weight, &row, &mut sum, round);
                scale_row(format, weight, &row, &mut first, round);
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&sum), bits(&first), "{format} {weight} {round}");
            }
        }
    }
}
