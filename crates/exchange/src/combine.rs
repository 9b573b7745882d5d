//! How results are added up.

use expertmesh_kernels::{Format, axpy_row, round_bf16};

/// The rounding points of a layer's combine.
///
/// `out = Σ_slot w·y`, in slot order, in f32; with a shared expert, `out + shared`. Where the
/// model's format is bf16 each rounds once, as the grouped implementation of the reference does;
/// a gate weight that is itself bf16 also rounds each product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CombineRule {
    /// Format of the result rows on the wire.
    pub row_format: Format,
    /// Format of the model's activations: that of the outputs.
    pub dtype: Format,
    /// The gate weight has the model's format: products are rounded to it.
    pub weight_in_dtype: bool,
}

// === impl CombineRule ===

impl CombineRule {
    /// Adds `weight × row` to the accumulator `[hidden]`.
    pub fn add(&self, weight: f32, row: &[u8], accumulator: &mut [f32]) {
        let round_product = self.dtype == Format::Bf16 && self.weight_in_dtype;
        axpy_row(self.row_format, weight, row, accumulator, round_product);
    }

    /// Rounds the sum and adds the shared expert's row `[hidden]`, if there is one.
    pub fn finish(&self, accumulator: &mut [f32], shared: Option<&[f32]>) {
        self.round(accumulator);
        if let Some(shared) = shared {
            for (out, value) in accumulator.iter_mut().zip(shared) {
                *out += value;
            }
            self.round(accumulator);
        }
    }

    fn round(&self, values: &mut [f32]) {
        if self.dtype == Format::Bf16 {
            round_bf16(values);
        }
    }
}
