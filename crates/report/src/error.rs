//! What this crate refuses.

use expertmesh_telemetry::TelemetryError;

/// A report that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A figure that JSON cannot hold.
    #[error("{path} is not a finite number, expected one; leave out what could not be computed")]
    NonFinite {
        /// Path of the figure.
        path: String,
    },
    /// A report of another schema.
    #[error(
        "schema is \"{found}\", expected \"{expected}\"; read it with the version that wrote it"
    )]
    Schema {
        /// The schema that the file names.
        found: String,
        /// The schema that this version reads.
        expected: &'static str,
    },
    /// Text that is no report.
    #[error("the text is not a report: {0}; give a file that --report wrote")]
    Json(#[from] serde_json::Error),
    /// A field of a file that contradicts another, or holds what it cannot.
    #[error("{path} {found}, expected {expected}; give a file that --report wrote")]
    Field {
        /// Path of the field.
        path: String,
        /// What it holds: `is -1`, `has 2 entries`.
        found: String,
        /// What it has to hold.
        expected: String,
    },
    /// Lanes that contradict themselves.
    #[error("runs[{run}].{error}")]
    Trace {
        /// Position of the run.
        run: usize,
        /// What is wrong with it.
        error: TelemetryError,
    },
    /// A matrix whose rows do not fit each other.
    #[error(
        "communication.matrix_bytes[{row}] has {found} entries, expected {expected}, one for each \
         endpoint"
    )]
    NotSquare {
        /// The row.
        row: usize,
        /// Its length.
        found: usize,
        /// Number of rows.
        expected: usize,
    },
    /// An export of nothing.
    #[error("there is no {what}; {hint}")]
    Nothing {
        /// What was to be exported.
        what: &'static str,
        /// What would work.
        hint: &'static str,
    },
}

/// Checks that a matrix has as many columns as rows.
pub(crate) fn check_square(matrix: &[Vec<u64>]) -> Result<(), ReportError> {
    let expected = matrix.len();
    match matrix.iter().position(|row| row.len() != expected) {
        None => Ok(()),
        Some(row) => Err(ReportError::NotSquare {
            row,
            found: matrix[row].len(),
            expected,
        }),
    }
}
