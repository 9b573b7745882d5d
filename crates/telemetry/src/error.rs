//! What this crate refuses.

/// A record, a name or a byte string that does not fit what it is for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// Bytes that are no histogram of this crate.
    #[error(
        "histogram bytes: {field} is {found}, expected {expected}; send what Histogram::to_bytes \
         made"
    )]
    HistogramBytes {
        /// The part of the encoding that is wrong.
        field: &'static str,
        /// What it held.
        found: String,
        /// What it has to hold.
        expected: String,
    },
    /// A list whose length differs from what the run announced.
    #[error("{field} has {found} entries, expected {expected}; one run keeps one shape")]
    Length {
        /// The list, for example `matrix[2]`.
        field: String,
        /// Its length.
        found: usize,
        /// The length that the run started with.
        expected: usize,
    },
    /// An expert whose fates do not add up to its assigned choices.
    #[error(
        "per_expert[{expert}]: assigned is {assigned}, but computed + rerouted + dropped + \
         skipped + lost is {fates}; every choice needs exactly one fate"
    )]
    NotConserved {
        /// Index of the expert.
        expert: usize,
        /// Choices that the gate made for it.
        assigned: u64,
        /// Sum of its five fates.
        fates: u64,
    },
    /// A name that is not in the vocabulary of its field.
    #[error("{field} is \"{found}\", expected one of {expected}")]
    UnknownName {
        /// What was being named.
        field: &'static str,
        /// The name that was given.
        found: String,
        /// The names that exist.
        expected: String,
    },
    /// Records of two runs that cannot be one.
    #[error("endpoints are {found}, expected {expected}; merge recorders of one cluster only")]
    Endpoints {
        /// Names in the recorder that was to be merged.
        found: String,
        /// Names in the recorder that it was to be merged into.
        expected: String,
    },
    /// A lane of a trace that contradicts itself or its trace.
    #[error("lanes[{lane}].{field} is {found}, expected {expected}; drop the trace or mend it")]
    Lane {
        /// Position of the lane.
        lane: usize,
        /// The field that is wrong.
        field: &'static str,
        /// What it held.
        found: u64,
        /// What it has to hold.
        expected: String,
    },
}
