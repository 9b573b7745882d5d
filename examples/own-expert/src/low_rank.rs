//! The expert that this program brings: `y = x + B relu(A x)` with matrices of low rank.

use std::sync::Arc;

use expertmesh_experts::{Activation, Expert, ExpertError, ExpertSource, Scratch};
use expertmesh_kernels::{PackedMatrix, matmul};

/// One expert. Rows pass one after another through two thin products and a sum, so a result
/// depends on its own row alone.
pub(crate) struct LowRank {
    /// `[rank, hidden]`.
    a: PackedMatrix,
    /// `[hidden, rank]`.
    b: PackedMatrix,
}

/// Where workers get the experts from: here out of a formula, elsewhere out of a file.
pub(crate) struct LowRanks {
    pub(crate) experts: usize,
    pub(crate) hidden: usize,
    pub(crate) rank: usize,
}

// === impl LowRank ===

impl Expert for LowRank {
    fn hidden(&self) -> usize {
        self.a.inner()
    }

    fn weight_bytes(&self) -> usize {
        self.a.bytes() + self.b.bytes()
    }

    fn flops_per_row(&self) -> u64 {
        4 * (self.a.inner() * self.a.out()) as u64
    }

    fn forward(&self, x: &[f32], y: &mut [f32], _: &mut Scratch) -> Result<(), ExpertError> {
        let hidden = self.hidden();
        if x.len() != y.len() || !x.len().is_multiple_of(hidden) {
            let (x, y) = (x.len(), y.len());
            return Err(ExpertError::Rows { hidden, x, y });
        }
        // The product of `kernels` gives a row the same bits alone and in any batch.
        let mut inner = vec![0.0; x.len() / hidden * self.a.out()];
        matmul(x, &self.a, &mut inner)?;
        Activation::Relu.apply(&mut inner);
        matmul(&inner, &self.b, y)?;
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
        Ok(())
    }
}

// === impl LowRanks ===

impl ExpertSource for LowRanks {
    fn load(&self, expert: usize) -> Result<Arc<dyn Expert>, ExpertError> {
        let Self {
            experts,
            hidden,
            rank,
        } = *self;
        if expert >= experts {
            return Err(ExpertError::NoSuchExpert { expert, experts });
        }
        let weight = |step: usize| -> Vec<f32> {
            (0..hidden * rank)
                .map(|at| ((at * step + expert * 5) % 17) as f32 / 64.0 - 0.125)
                .collect()
        };
        Ok(Arc::new(LowRank {
            a: PackedMatrix::from_f32(&weight(7), rank, hidden)?,
            b: PackedMatrix::from_f32(&weight(11), hidden, rank)?,
        }))
    }
}
