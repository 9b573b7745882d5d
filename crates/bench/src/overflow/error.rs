//! How far outputs are from those that miss nothing.

use ndarray::Array2;

/// Differences from a reference, added up over steps in f64.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OutputError {
    difference: f64,
    reference: f64,
    worst_token: Option<f64>,
}

// === impl OutputError ===

impl OutputError {
    /// Adds one step: `output` and `reference` are `[tokens, hidden]`.
    pub fn add(&mut self, output: &Array2<f32>, reference: &Array2<f32>) {
        for (held, exact) in output.rows().into_iter().zip(reference.rows()) {
            let (mut difference, mut length) = (0.0, 0.0);
            for (held, exact) in held.iter().zip(exact) {
                let (held, exact) = (f64::from(*held), f64::from(*exact));
                difference += (held - exact) * (held - exact);
                length += exact * exact;
            }
            self.difference += difference;
            self.reference += length;
            if length > 0.0 {
                let error = (difference / length).sqrt();
                self.worst_token = Some(self.worst_token.map_or(error, |worst| worst.max(error)));
            }
        }
    }

    /// `‖y − y'‖₂ / ‖y'‖₂` over all steps; `None` where the reference is zero throughout.
    pub fn relative(&self) -> Option<f64> {
        (self.reference > 0.0).then(|| (self.difference / self.reference).sqrt())
    }

    /// The same of the token that is furthest off, among those whose reference is not zero.
    pub fn worst_token(&self) -> Option<f64> {
        self.worst_token
    }
}
