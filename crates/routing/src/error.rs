//! What can be wrong with a router, a batch or a ledger.

use expertmesh_kernels::KernelError;

/// Why a batch cannot be routed, admitted or counted; the message names the field, what it held
/// and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// A setting that no router or capacity can have.
    #[error("{field}: {found}, expected {expected}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What it held.
        found: String,
        /// What would be accepted.
        expected: String,
    },
    /// A slice whose length does not follow from the shape.
    #[error("{field}: {found} elements, expected {expected}")]
    Length {
        /// The slice.
        field: &'static str,
        /// Its length.
        found: usize,
        /// The length that the shape asks for, and how.
        expected: String,
    },
    /// A logit that is infinite or not a number: no order of experts follows from it.
    #[error(
        "logits[token {token}][expert {expert}]: {found}, expected a finite number; check the \
         token's hidden state"
    )]
    Logit {
        /// Token row, from 0, of the rows that were handed over.
        token: usize,
        /// Expert.
        expert: usize,
        /// What the logit was.
        found: f32,
    },
    /// The gate's formula has no finite weight for a token, as when every chosen score is zero
    /// and their sum is divided by.
    #[error(
        "gate weight[token {token}][slot {slot}]: {found}, expected a finite number; the chosen \
         scores leave the norm nothing to divide by"
    )]
    Weight {
        /// Token row, from 0, of the rows that were handed over.
        token: usize,
        /// Slot of the choice.
        slot: usize,
        /// What the weight came to.
        found: f32,
    },
    /// A route that names an expert that does not exist.
    #[error("experts[token {token}][slot {slot}]: {expert}, expected an index below {experts}")]
    NoSuchExpert {
        /// Token row, from 0.
        token: usize,
        /// Slot of the choice.
        slot: usize,
        /// What the route held.
        expert: u32,
        /// Experts of the layer.
        experts: usize,
    },
    /// A byte that is no fate.
    #[error("fate: {found}, expected 0 (computed) to 4 (lost)")]
    NoSuchFate {
        /// The byte.
        found: u8,
    },
    /// A ledger in which choices appeared or vanished.
    #[error(
        "overflow ledger, expert {expert}: {what} {assigned} assigned, {accounted} accounted \
         for, expected computed + rerouted + dropped + skipped + lost to equal assigned"
    )]
    NotConserved {
        /// The expert whose count is wrong.
        expert: usize,
        /// `choices` or `gate weight`.
        what: &'static str,
        /// What the gate assigned.
        assigned: f64,
        /// The sum over fates.
        accounted: f64,
    },
    /// The gate's product was refused.
    #[error("gate logits: {0}")]
    Kernel(#[from] KernelError),
}

// === impl RoutingError ===

impl RoutingError {
    /// The same error with `first` added to the token that it names, for callers that hand rows
    /// over in parts.
    #[must_use]
    pub fn offset_token(mut self, first: usize) -> Self {
        match &mut self {
            Self::Logit { token, .. }
            | Self::Weight { token, .. }
            | Self::NoSuchExpert { token, .. } => *token += first,
            _ => {}
        }
        self
    }

    pub(crate) fn config(
        field: &'static str,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Config {
            field,
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    /// Refuses a slice of another length than `dims` multiply to; `shape` names the dimensions.
    /// The product is checked: sizes may come from outside.
    pub(crate) fn check_length(
        field: &'static str,
        found: usize,
        dims: [usize; 2],
        shape: &str,
    ) -> Result<(), Self> {
        if dims[0].checked_mul(dims[1]) == Some(found) {
            return Ok(());
        }
        let expected = format!("{shape} = {} x {}", dims[0], dims[1]);
        Err(Self::Length {
            field,
            found,
            expected,
        })
    }
}
