//! What the tests of several networks share: values, a naive model, and the laws of every expert.

use expertmesh_kernels::{Format, PackedMatrix, math};

use crate::{Activation, Expert, ExpertError, Scratch};

/// Reproducible values in (-1, 1), exact in `dtype`.
pub(crate) fn values(count: usize, seed: u64, dtype: Format) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695);
            let value = (state >> 40) as f32 / 8_388_608.0 - 1.0;
            round(value, dtype)
        })
        .collect()
}

/// Rounding by another implementation than the one under test.
pub(crate) fn round(value: f32, dtype: Format) -> f32 {
    match dtype {
        Format::F32 => value,
        Format::Bf16 => half::bf16::from_f32(value).to_f32(),
    }
}

pub(crate) fn packed(w: &[f32], out: usize, inner: usize, dtype: Format) -> PackedMatrix {
    PackedMatrix::from_f32_as(dtype, w, out, inner).unwrap()
}

/// `w x` for one row, by the definition of the product.
pub(crate) fn linear(x: &[f32], w: &[f32]) -> Vec<f32> {
    w.chunks_exact(x.len())
        .map(|w| {
            x.iter()
                .zip(w)
                .fold(0.0, |sum: f32, (x, w)| x.mul_add(*w, sum))
        })
        .collect()
}

pub(crate) fn linear_f64(x: &[f64], w: &[f32]) -> Vec<f64> {
    w.chunks_exact(x.len())
        .map(|w| x.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum())
        .collect()
}

pub(crate) fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => math::silu(x),
        Activation::Relu => math::relu(x),
        Activation::Gelu => math::gelu(x),
        Activation::GeluTanh => math::gelu_tanh(x),
        Activation::Relu2 => math::relu(x) * math::relu(x),
    }
}

pub(crate) fn run(expert: &dyn Expert, x: &[f32], scratch: &mut Scratch) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len()];
    expert.forward(x, &mut y, scratch).unwrap();
    y
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Rows alone, by seven and by 300 (which crosses the blocks) have the same bits; a warm scratch
/// stays where it is; rows of other shapes are errors.
pub(crate) fn obeys_the_laws(expert: &dyn Expert, dtype: Format) {
    let hidden = expert.hidden();
    let x = values(300 * hidden, 77, dtype);
    let mut scratch = Scratch::default();
    let batch = run(expert, &x, &mut scratch);
    let warm = (scratch.first.place(), scratch.second.place());
    for (start, rows) in [
        (0, 1),
        (149, 1),
        (299, 1),
        (0, 7),
        (146, 7),
        (293, 7),
        (20, 129),
    ] {
        let part = start * hidden..(start + rows) * hidden;
        let alone = run(expert, &x[part.clone()], &mut scratch);
        assert_eq!(bits(&alone), bits(&batch[part]), "rows {start}+{rows}");
    }
    assert_eq!((scratch.first.place(), scratch.second.place()), warm);
    assert!(run(expert, &[], &mut scratch).is_empty());

    let mut y = vec![0.0; 2 * hidden];
    for (x, y_len) in [
        (hidden + 1, 2 * hidden),
        (hidden, 2 * hidden),
        (hidden + 1, hidden + 1),
    ] {
        let error = expert
            .forward(&vec![0.0; x], &mut y[..y_len], &mut scratch)
            .unwrap_err();
        assert!(matches!(error, ExpertError::Rows { .. }), "{error}");
    }
}

/// FNV-1a over the bits.
pub(crate) fn digest(values: &[f32]) -> u64 {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}
