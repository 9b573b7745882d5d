//! What this crate refuses.

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
}
