use proptest::prelude::*;

use super::*;
use crate::Format;

/// A few bits of everything: magnitudes of 2⁻²⁰ to 2²⁰, both signs, some zeros.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mixed = (state >> 7) ^ (state >> 19);
            let exponent = 107 + mixed % 41;
            let bits = (state & 0x8000_0000) | exponent << 23 | (state >> 3 & 0x007f_ffff);
            if mixed.is_multiple_of(29) {
                0.0
            } else {
                f32::from_bits(bits)
            }
        })
        .collect()
}

/// The definition: one ascending chain for each element.
fn by_definition(x: &[f32], w: &PackedMatrix, rows: usize) -> Vec<f32> {
    let (weights, inner) = (w.to_f32(), w.inner());
    let mut y = Vec::with_capacity(rows * w.out());
    for row in 0..rows {
        for output in 0..w.out() {
            y.push((0..inner).fold(0.0f32, |sum, position| {
                x[row * inner + position].mul_add(weights[output * inner + position], sum)
            }));
        }
    }
    y
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

/// Runs a product into memory that held something else before.
fn run(isa: Isa, x: &[f32], w: &PackedMatrix, rows: usize) -> Vec<f32> {
    let mut y = vec![f32::NAN; rows * w.out()];
    matmul_on(isa, x, w, &mut y).unwrap();
    y
}

#[test]
fn every_kernel_computes_the_chain_to_the_bit() {
    // One weight, less than half a panel, exactly half, one panel, odd ends, more than one block.
    let shapes = [
        (1, 1),
        (5, 3),
        (16, 9),
        (17, 40),
        (32, 8),
        (33, 17),
        (77, 300),
        (300, 77),
        (35, 2500),
    ];
    for (out, inner) in shapes {
        for format in [Format::F32, Format::Bf16] {
            let w = values(out * inner, 1);
            let w = PackedMatrix::from_f32_as(format, &w, out, inner).unwrap();
            for rows in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 17] {
                let x = values(rows * inner, 2);
                let expected = bits(&by_definition(&x, &w, rows));
                for isa in Isa::available() {
                    let y = run(isa, &x, &w, rows);
                    assert_eq!(
                        bits(&y),
                        expected,
                        "{isa:?} {format} [{out}, {inner}] x {rows}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    for (out, inner) in [(77, 300), (300, 77), (33, 1500)] {
        for format in [Format::F32, Format::Bf16] {
            let w = values(out * inner, 3);
            let w = PackedMatrix::from_f32_as(format, &w, out, inner).unwrap();
            let x = values(300 * inner, 4);
            let batch = run(Isa::best(), &x, &w, 300);
            for isa in Isa::available().filter(|&isa| isa != Isa::Portable) {
                assert_eq!(bits(&run(isa, &x, &w, 300)), bits(&batch), "{isa:?}");
            }
            for (start, rows) in [
                (0, 1),
                (3, 1),
                (299, 1),
                (0, 7),
                (150, 7),
                (293, 7),
                (10, 130),
            ] {
                for isa in Isa::available().filter(|&isa| isa != Isa::Portable || rows < 8) {
                    let part = run(isa, &x[start * inner..(start + rows) * inner], &w, rows);
                    let expected = &batch[start * out..(start + rows) * out];
                    assert_eq!(
                        bits(&part),
                        bits(expected),
                        "{isa:?} {format} {start}+{rows}"
                    );
                }
            }
        }
    }
}

#[test]
fn infinities_and_nans_follow_the_chain() {
    let (out, inner, rows) = (40, 33, 9);
    let mut weights = values(out * inner, 5);
    let mut x = values(rows * inner, 6);
    weights[7] = f32::INFINITY;
    weights[500] = f32::NAN;
    weights[900] = f32::MAX;
    x[40] = f32::NEG_INFINITY;
    x[100] = f32::NAN;
    x[200] = f32::from_bits(1);
    let w = PackedMatrix::from_f32(&weights, out, inner).unwrap();
    let expected = bits(&by_definition(&x, &w, rows));
    for isa in Isa::available() {
        assert_eq!(bits(&run(isa, &x, &w, rows)), expected, "{isa:?}");
    }
}

#[test]
fn subnormal_sums_are_kept() {
    let w = PackedMatrix::from_f32(&[f32::MIN_POSITIVE; 2], 1, 2).unwrap();
    for isa in Isa::available() {
        assert_eq!(
            run(isa, &[0.25, 0.125], &w, 1),
            [f32::MIN_POSITIVE * 0.375],
            "{isa:?}"
        );
    }
}

#[test]
fn an_empty_inner_dimension_gives_zeros() {
    let w = PackedMatrix::from_f32(&[], 3, 0).unwrap();
    let mut y = [f32::NAN; 6];
    matmul(&[], &w, &mut y).unwrap();
    assert_eq!(y, [0.0; 6]);
    let w = PackedMatrix::from_f32(&[], 0, 3).unwrap();
    matmul(&[1.0; 6], &w, &mut []).unwrap();
}

#[test]
fn operands_of_other_shapes_are_errors() {
    let w = PackedMatrix::from_f32(&[0.0; 6], 2, 3).unwrap();
    let mut y = [0.0; 4];
    for (x, y_len) in [
        (5, 4),
        (7, 4),
        (6, 3),
        (6, 2),
        (0, 4),
        (6, 0),
        (3, 4),
        (3, 3),
    ] {
        let error = matmul(&vec![0.0; x], &w, &mut y[..y_len]).unwrap_err();
        assert_eq!(
            error,
            KernelError::ProductShape {
                out: 2,
                inner: 3,
                x,
                y: y_len
            }
        );
    }
    let none = PackedMatrix::from_f32(&[], 0, 0).unwrap();
    assert!(matmul(&[1.0], &none, &mut []).is_err());
    let tall = PackedMatrix::from_f32(&[], 0, 3).unwrap();
    assert!(matmul(&[1.0; 4], &tall, &mut []).is_err());
}

#[test]
fn tiles_cover_every_row_once_and_are_never_tiny() {
    for most in [4, 6, 8] {
        for rows in 0..100 {
            let mut next = 0;
            for tile in tiles(rows, most) {
                assert_eq!(tile.start, next);
                assert!((1..=most).contains(&tile.len()));
                assert!(
                    rows <= most || tile.len() >= most / 2,
                    "{rows} rows: {tile:?}"
                );
                next = tile.end;
            }
            assert_eq!(next, rows);
        }
    }
}

#[test]
fn a_block_asks_for_every_line_of_the_next_one_once() {
    for (length, exact) in [(64, true), (1024, true), (1022, false), (1, true)] {
        let lines = vec![0u8; 2 * length];
        let task = Tile {
            x: &[],
            x_stride: 0,
            lines: &lines[..length],
            y_stride: 0,
            width: 0,
            begins: true,
            prefetches: true,
        };
        let mut asked = vec![0; length + STREAMS];
        for position in 0..length {
            asked[task.next_block(position).addr() - lines.as_ptr().addr() - length] += 1;
        }
        // A length that the streams do not divide leaves a few lines to the hardware.
        let once = asked[..length].iter().filter(|&&times| times == 1).count();
        assert!(if exact {
            once == length
        } else {
            once + 2 * STREAMS > length
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_shape_computes_the_chain(
        out in 1usize..70,
        inner in 1usize..140,
        rows in 1usize..20,
        seed: u32,
        bf16: bool,
    ) {
        let format = if bf16 { Format::Bf16 } else { Format::F32 };
        let w = values(out * inner, seed);
        let w = PackedMatrix::from_f32_as(format, &w, out, inner).unwrap();
        let x = values(rows * inner, seed ^ 1);
        let expected = bits(&by_definition(&x, &w, rows));
        for isa in Isa::available() {
            prop_assert_eq!(bits(&run(isa, &x, &w, rows)), expected.clone(), "{:?}", isa);
        }
    }
}
