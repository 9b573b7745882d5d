//! What can be wrong with an expert or its rows.

use std::error::Error;

use expertmesh_kernels::KernelError;

/// Why an expert cannot be built, loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpertError {
    /// A weight matrix whose shape does not fit the others.
    #[error(
        "weights {field}: got shape {actual:?}, expected {expected:?} ([out, inner]); \
         check that gate, up and down are not swapped"
    )]
    WeightShape {
        /// Which matrix: `gate`, `up`, `down`, `shared_gate` or `latent_out`.
        field: &'static str,
        /// `[out, inner]` as handed over.
        actual: [usize; 2],
        /// `[out, inner]` that fits the other matrices.
        expected: [usize; 2],
    },
    /// A bias whose length is not the number of outputs of its matrix.
    #[error("{field}: got {actual} values, expected one for each of {expected} outputs")]
    BiasLength {
        /// `gate_bias`, `up_bias` or `down_bias`.
        field: &'static str,
        /// Values handed over.
        actual: usize,
        /// Outputs of the matrix.
        expected: usize,
    },
    /// A dimension that must not be zero.
    #[error("{field} is 0, expected at least 1")]
    ZeroDimension {
        /// `hidden` or `ffn`.
        field: &'static str,
    },
    /// Rows that are not whole, or not as many in as out.
    #[error(
        "expert with hidden size {hidden}: x holds {x} values and y {y}; \
         expected the same whole number of rows in both"
    )]
    Rows {
        /// Hidden size of the expert.
        hidden: usize,
        /// Values in `x`.
        x: usize,
        /// Values in `y`.
        y: usize,
    },
    /// A name that is not one of an enum's.
    #[error("unknown {field} {name:?}; expected one of {expected}")]
    UnknownName {
        /// `activation` or `expert kind`.
        field: &'static str,
        /// What was given.
        name: String,
        /// The names there are.
        expected: &'static str,
    },
    /// An expert that the source does not have.
    #[error("expert {expert} does not exist; this layer has experts 0 to {}", experts.saturating_sub(1))]
    NoSuchExpert {
        /// The index asked for.
        expert: usize,
        /// Number of experts of the layer.
        experts: usize,
    },
    /// A source that could not load an expert; its own error says why.
    #[error("expert {expert} could not be loaded")]
    Load {
        /// The index asked for.
        expert: usize,
        /// Why, in the words of the source.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A compute pool that could not be started.
    #[error("compute pool: {0}")]
    Pool(String),
    /// A kernel's refusal.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}
