//! How results are added up.

use expertmesh_kernels::{Format, axpy_row, round_bf16, scale_row};

/// The rounding points of a layer's combine.
///
/// `out = Σ_slot w·y`, in slot order, in f32; with a shared expert, `out + shared`. Where the
/// model's format is bf16 each rounds once, as the grouped implementation of the reference does;
/// a gate weight that is itself bf16 also rounds each product. Where the weight belongs to the
/// expert's input, rows are weighted when they are packed, `R(w·x)`, and results are added up as
/// they are. Rows of experts with latent rows are added up by the same rule, `out` being projected
/// and rounded before the shared expert is added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CombineRule {
    /// Format of the result rows on the wire.
    pub row_format: Format,
    /// Format of the model's activations: that of the outputs.
    pub dtype: Format,
    /// The gate weight has the model's format: products are rounded to it.
    pub weight_in_dtype: bool,
    /// The gate weight multiplies the expert's input and not its output.
    pub weight_on_input: bool,
    /// Multiplies the rounded sum of the routed experts, before the shared expert is added.
    pub routed_scale: f32,
    /// Routed and shared experts are averaged instead of added.
    pub shared_mean: bool,
    /// Choices come in the order of their experts, and every sum is rounded: so do families whose
    /// reference is a loop over experts.
    pub one_by_one: bool,
}

// === impl CombineRule ===

impl CombineRule {
    /// The rule of most layers: weights on outputs, and no scale.
    pub fn new(row_format: Format, dtype: Format, weight_in_dtype: bool) -> Self {
        Self {
            row_format,
            dtype,
            weight_in_dtype,
            weight_on_input: false,
            routed_scale: 1.0,
            shared_mean: false,
            one_by_one: false,
        }
    }

    /// Sets `out` `[hidden]` to `Σ weight × row` over `terms`, in their order; zeros for none.
    pub fn sum<'a>(&self, terms: impl Iterator<Item = (f32, &'a [u8])>, out: &mut [f32]) {
        let round_product =
            self.dtype == Format::Bf16 && self.weight_in_dtype && !self.weight_on_input;
        let mut terms = terms.map(|(weight, row)| (self.output_weight(weight), row));
        match terms.next() {
            None => out.fill(0.0),
            Some((weight, row)) => {
                scale_row(self.row_format, weight, row, out, round_product);
                if self.one_by_one {
                    self.round(out);
                }
            }
        }
        for (weight, row) in terms {
            axpy_row(self.row_format, weight, row, out, round_product);
            if self.one_by_one {
                self.round(out);
            }
        }
    }

    /// Rounds the sum and adds the shared expert's row `[hidden]`, if there is one.
    pub fn finish(&self, accumulator: &mut [f32], shared: Option<&[f32]>) {
        self.round(accumulator);
        if self.routed_scale != 1.0 {
            let scaled = |value: &mut f32| *value *= self.routed_scale;
            accumulator.iter_mut().for_each(scaled);
            self.round(accumulator);
        }
        if let Some(shared) = shared {
            self.add_shared(accumulator, shared);
        }
    }

    /// Adds the shared expert's values to those of the routed ones, which are rounded: of any number
    /// of rows `[rows, hidden]`.
    pub fn add_shared(&self, routed: &mut [f32], shared: &[f32]) {
        for (out, value) in routed.iter_mut().zip(shared) {
            *out += value;
        }
        self.round(routed);
        if self.shared_mean {
            routed.iter_mut().for_each(|value| *value /= 2.0);
            self.round(routed);
        }
    }

    /// `row` `[hidden]` as an expert is given it for a choice of this weight.
    pub fn weigh_input(&self, weight: f32, row: &mut [f32]) {
        row.iter_mut().for_each(|value| *value *= weight);
        self.round(row);
    }

    fn output_weight(&self, weight: f32) -> f32 {
        if self.weight_on_input { 1.0 } else { weight }
    }

    fn round(&self, values: &mut [f32]) {
        if self.dtype == Format::Bf16 {
            round_bf16(values);
        }
    }
}
