//! Seeded hidden states that make the real gate choose with a wanted skew.
//!
//! The rows of a synthetic layer's gate are orthonormal, so a token row that is a sum of gate rows
//! makes the gate choose exactly those experts: `x = Σ a_i · gate[e_i] + noise`, with `a_i`
//! falling by slot. Who is chosen is drawn first (`choose`), the rows follow from it (`rows`).
//! With more experts than hidden values gate rows overlap and the gate may choose otherwise, so
//! the measured skew ([`Skew`]) always comes from the routes, and stands beside the claim.
//!
//! A step's rows are a function of (workload, seed, step): every step has a ChaCha8 stream.

mod choose;
mod pattern;
mod rows;
mod skew;
#[cfg(test)]
mod tests;

pub use pattern::Pattern;
pub use skew::Skew;

use crate::workload::choose::Chooser;
use crate::workload::rows::{add_gate_rows, fill_normal, generator};

/// Dimensions of a layer, and of the batches that are made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadShape {
    /// Token rows of a step, T.
    pub tokens: usize,
    /// Elements of a row, H.
    pub hidden: usize,
    /// Experts of the layer, E.
    pub experts: usize,
    /// Choices of a token, k.
    pub top_k: usize,
}

/// A workload that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("workload {workload}: {field} is {held}, expected {expected}")]
pub struct WorkloadError {
    workload: String,
    field: &'static str,
    held: String,
    expected: String,
}

/// Where the token rows of every step come from.
#[derive(Debug, Clone)]
pub struct Workload {
    name: String,
    shape: WorkloadShape,
    seed: u64,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    /// Sums of gate rows `[E, H]`.
    Steered { chooser: Chooser, gate: Vec<f32> },
    /// Independent values, whatever the gate makes of them.
    Normal,
    /// The same rows `[T, H]` in every step.
    Fixed {
        rows: Vec<f32>,
        padding: Option<Vec<bool>>,
    },
}

// === impl Workload ===

impl Workload {
    /// Rows that follow `pattern`; all but [`Pattern::Normal`] need the `gate` `[E, H]` of the
    /// layer, with orthonormal rows.
    ///
    /// # Errors
    /// [`WorkloadError`]: no tokens, more choices than experts, a gate of another shape, or a
    /// pattern that needs a gate without one.
    pub fn new(
        pattern: Pattern,
        shape: WorkloadShape,
        seed: u64,
        gate: Option<Vec<f32>>,
    ) -> Result<Self, WorkloadError> {
        let wrong = |field, held: String, expected: String| {
            Err(WorkloadError {
                workload: pattern.to_string(),
                field,
                held,
                expected,
            })
        };
        let WorkloadShape {
            tokens,
            hidden,
            experts,
            top_k,
        } = shape;
        if tokens == 0 {
            return wrong("tokens", "0".to_owned(), "at least 1".to_owned());
        }
        if top_k == 0 || top_k > experts {
            let expected = format!("1 to {experts}, the number of experts");
            return wrong("top_k", top_k.to_string(), expected);
        }
        let source = match (pattern, gate) {
            (Pattern::Normal, _) => Source::Normal,
            (_, Some(gate)) if gate.len() == experts * hidden => Source::Steered {
                chooser: Chooser::new(pattern, experts, top_k, seed),
                gate,
            },
            (_, Some(gate)) => {
                let expected = format!("{experts} rows of {hidden}");
                return wrong("gate", format!("{} values", gate.len()), expected);
            }
            (_, None) => {
                let held = "that of a checkpoint".to_owned();
                let expected = "that of a synthetic layer, whose rows are orthonormal; use \
                                workload normal, or a file of hidden states";
                return wrong("gate", held, expected.to_owned());
            }
        };
        Ok(Self {
            name: pattern.to_string(),
            shape,
            seed,
            source,
        })
    }

    /// The same `rows` `[T, H]` in every step, `padding` `[T]` marking rows that are skipped.
    ///
    /// `name` says where they are from.
    ///
    /// # Errors
    /// [`WorkloadError`] if `rows` or `padding` do not fit `shape`.
    pub fn fixed(
        name: impl Into<String>,
        shape: WorkloadShape,
        rows: Vec<f32>,
        padding: Option<Vec<bool>>,
    ) -> Result<Self, WorkloadError> {
        let name = name.into();
        let wrong = |field, held: usize, expected: usize| WorkloadError {
            workload: name.clone(),
            field,
            held: format!("{held} values"),
            expected: expected.to_string(),
        };
        let expected = shape.tokens * shape.hidden;
        if rows.len() != expected {
            return Err(wrong("rows", rows.len(), expected));
        }
        if let Some(padding) = &padding
            && padding.len() != shape.tokens
        {
            return Err(wrong("padding", padding.len(), shape.tokens));
        }
        Ok(Self {
            name,
            shape,
            seed: 0,
            source: Source::Fixed { rows, padding },
        })
    }

    /// What it is, for reports: a pattern or a file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dimensions of a step.
    pub fn shape(&self) -> WorkloadShape {
        self.shape
    }

    /// Puts the rows `[T, H]` of `step` into `rows`, whose memory is reused.
    pub fn fill(&self, step: u64, rows: &mut Vec<f32>) {
        let WorkloadShape { tokens, hidden, .. } = self.shape;
        rows.clear();
        let mut random = generator(self.seed, step);
        match &self.source {
            Source::Fixed { rows: fixed, .. } => rows.extend_from_slice(fixed),
            Source::Normal => fill_normal(&mut random, tokens * hidden, rows),
            Source::Steered { chooser, gate } => {
                let chosen = chooser.choose(&mut random, tokens);
                add_gate_rows(&mut random, &chosen, self.shape, gate, rows);
            }
        }
    }

    /// The rows `[T, H]` of `step` in memory of their own.
    pub fn rows(&self, step: u64) -> Vec<f32> {
        let mut rows = Vec::new();
        self.fill(step, &mut rows);
        rows
    }

    /// `[T]`, true for padding.
    pub fn padding(&self) -> Option<&[bool]> {
        match &self.source {
            Source::Fixed { padding, .. } => padding.as_deref(),
            Source::Normal | Source::Steered { .. } => None,
        }
    }

    /// The share of all choices that the hottest expert is expected to get, where the pattern
    /// says so.
    pub fn claimed_share(&self) -> Option<f64> {
        match &self.source {
            Source::Steered { chooser, .. } => Some(chooser.claimed_share()),
            Source::Normal | Source::Fixed { .. } => None,
        }
    }
}
