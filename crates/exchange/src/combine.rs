//! How results are added up.

use expertmesh_kernels::{Format, axpy_row, round_bf16, scale_row};

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
    /// Sets `out` `[hidden]` to `Σ weight × row` over `terms`, in their order; zeros for none.
    pub fn sum<'a>(&self, mut terms: impl Iterator<Item = (f32, &'a [u8])>, out: &mut [f32]) {
        let round_product = self.dtype == Format::Bf16 && self.weight_in_dtype;
        match terms.next() {
            None => out.fill(0.0),
            Some((weight, row)) => scale_row(self.row_format, weight, row, out, round_product),
        }
        for (weight, row) in terms {
            axpy_row(self.row_format, weight, row, out, round_product);
        }
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
