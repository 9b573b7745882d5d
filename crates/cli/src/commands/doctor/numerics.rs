//! Whether this processor computes the bits that every other one does.

use expertmesh_kernels::{NUMERICS, PackedMatrix, f32_to_bf16, kernel_name, math, matmul};

use crate::commands::doctor::{Finding, Verdict};

/// Rows, outputs and inner size of the product: no multiples of a vector or of a tile.
const SHAPE: (usize, usize, usize) = (7, 19, 131);

/// A product by the kernels against the definition of their class: one ascending chain of fused
/// multiply-adds for each element.
pub(super) fn kernel() -> Finding {
    let check = "matrix kernel";
    let (rows, out, inner) = SHAPE;
    let x = values(rows * inner, 3);
    let w = values(out * inner, 5);
    for (format, weights) in [("f32", w.clone()), ("bf16", rounded(&w))] {
        let packed = match format {
            "f32" => PackedMatrix::from_f32(&weights, out, inner),
            _ => {
                let bits: Vec<u16> = weights.iter().map(|value| f32_to_bf16(*value)).collect();
                PackedMatrix::from_bf16_bits(&bits, out, inner)
            }
        };
        let mut y = vec![0.0; rows * out];
        let computed = packed.and_then(|packed| matmul(&x, &packed, &mut y));
        if let Err(error) = computed {
            return Finding::new(check, Verdict::Fail, format!("{format}: {error}"));
        }
        let differs = y.iter().enumerate().position(|(at, value)| {
            let row = &x[at / out * inner..][..inner];
            let column = &weights[at % out * inner..][..inner];
            let chain = row
                .iter()
                .zip(column)
                .fold(0.0_f32, |sum, (a, b)| a.mul_add(*b, sum));
            chain.to_bits() != value.to_bits()
        });
        if let Some(at) = differs {
            let detail = format!(
                "{} in {format}: element {at} differs from {NUMERICS}; report this machine",
                kernel_name()
            );
            return Finding::new(check, Verdict::Fail, detail);
        }
    }
    let detail = format!("{}, bit for bit {NUMERICS} in f32 and bf16", kernel_name());
    Finding::ok(check, detail)
}

/// `exp` of the kernels against the system's, which is known to be close.
pub(super) fn transcendentals() -> Finding {
    let check = "transcendentals";
    let worst = (-800..800)
        .map(|step| step as f32 / 10.0)
        .map(|x| {
            let exact = f64::from(x).exp();
            (f64::from(math::exp(x)) - exact).abs() / exact
        })
        .fold(0.0, f64::max);
    let detail = format!("exp is within {worst:.1e} of the exact value");
    if worst < 4e-7 {
        Finding::ok(check, detail)
    } else {
        Finding::new(check, Verdict::Fail, detail)
    }
}

/// Numbers in (-1, 1) without a pattern that a vector's width would divide.
fn values(count: usize, step: u32) -> Vec<f32> {
    let mut state = step;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

fn rounded(values: &[f32]) -> Vec<f32> {
    values
        .iter()
        .map(|value| expertmesh_kernels::bf16_round(*value))
        .collect()
}
