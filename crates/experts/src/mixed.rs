//! The constant expert of MoE++: a row mixed with a learned vector.

use expertmesh_kernels::{Format, PackedMatrix, math, matmul};

use crate::expert::{not_zero, round_to, rows};
use crate::swiglu::check_shape;
use crate::{Expert, ExpertError, Scratch};

/// `y = a₁ x + a₂ v` with `[a₁, a₂] = softmax(W x)`, `W` `[2, hidden]` and `v` `[hidden]` (P. Jin
/// et al., "MoE++", ICLR 2025, equation 5). In f32, rounded once to the network's format.
///
/// It is cheap enough that a token's home answers for it.
#[derive(Debug)]
pub struct MixedExpert {
    mix: PackedMatrix,
    vector: Vec<f32>,
    dtype: Format,
}

// === impl MixedExpert ===

impl MixedExpert {
    /// Joins `mix` `[2, hidden]` and `vector` `[hidden]`.
    ///
    /// # Errors
    ///
    /// [`ExpertError::ZeroDimension`] if `vector` is empty, [`ExpertError::WeightShape`] if `mix`
    /// does not fit it.
    pub fn new(mix: PackedMatrix, vector: Vec<f32>, dtype: Format) -> Result<Self, ExpertError> {
        not_zero("hidden", vector.len())?;
        check_shape("mix", &mix, [2, vector.len()])?;
        Ok(Self { mix, vector, dtype })
    }
}

impl Expert for MixedExpert {
    fn hidden(&self) -> usize {
        self.vector.len()
    }

    fn weight_bytes(&self) -> usize {
        self.mix.bytes() + self.vector.len() * self.dtype.bytes()
    }

    fn flops_per_row(&self) -> u64 {
        8 * self.vector.len() as u64
    }

    fn forward(&self, x: &[f32], y: &mut [f32], _scratch: &mut Scratch) -> Result<(), ExpertError> {
        let hidden = self.hidden();
        rows(hidden, x, y)?;
        let mut shares = [0.0; 2];
        for (x, y) in x.chunks_exact(hidden).zip(y.chunks_exact_mut(hidden)) {
            matmul(x, &self.mix, &mut shares)?;
            math::softmax(&mut shares);
            for ((y, x), v) in y.iter_mut().zip(x).zip(&self.vector) {
                *y = shares[0].mul_add(*x, shares[1] * v);
            }
            round_to(self.dtype, y);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_mixed_by_a_softmax_of_its_own() {
        let mix = PackedMatrix::from_f32(&[1.0, 0.0, 0.0, 1.0], 2, 2).unwrap();
        let expert = MixedExpert::new(mix, vec![10.0, -10.0], Format::F32).unwrap();
        let x = [3.0_f32, 1.0, 0.5, 0.5];
        let mut y = [f32::NAN; 4];
        expert.forward(&x, &mut y, &mut Scratch::default()).unwrap();
        for (x, y) in x.chunks(2).zip(y.chunks(2)) {
            let (a, b) = (f64::from(x[0]).exp(), f64::from(x[1]).exp());
            let (own, other) = (a / (a + b), b / (a + b));
            let expected = [
                own * f64::from(x[0]) + other * 10.0,
                own * f64::from(x[1]) - other * 10.0,
            ];
            for (y, expected) in y.iter().zip(expected) {
                assert!((f64::from(*y) - expected).abs() < 1e-5, "{y} {expected}");
            }
        }
    }

    #[test]
    fn shapes_are_checked() {
        let mix = PackedMatrix::from_f32(&[1.0; 6], 2, 3).unwrap();
        let error = MixedExpert::new(mix, vec![0.0; 2], Format::F32).unwrap_err();
        assert!(error.to_string().contains("mix"), "{error}");
    }
}
