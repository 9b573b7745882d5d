//! What may be wrong with a trace.

use std::fmt;
use std::path::Path;

/// A trace that cannot be used, read or written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file system said no.
    #[error("trace {file}: {source}")]
    Io {
        /// Path of the file.
        file: String,
        /// What it said.
        source: std::io::Error,
    },
    /// Something in it is not what it should be.
    #[error(
        "trace{}: {}{field} is {held}, expected {expected}",
        Before(" ", file),
        After(place, ": ")
    )]
    Wrong {
        /// Path of the file; empty for a trace that no file holds.
        file: String,
        /// Line, or step, layer and token; empty where the whole trace is meant.
        place: String,
        /// What is wrong.
        field: &'static str,
        /// What it held.
        held: String,
        /// What would be right.
        expected: String,
    },
}

// === impl TraceError ===

impl TraceError {
    pub(crate) fn io(file: &Path, source: std::io::Error) -> Self {
        let file = file.display().to_string();
        Self::Io { file, source }
    }

    pub(crate) fn wrong(
        place: impl Into<String>,
        field: &'static str,
        held: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Self {
        Self::Wrong {
            file: String::new(),
            place: place.into(),
            field,
            held: held.to_string(),
            expected: expected.to_string(),
        }
    }

    /// Whether the trace is of another shape than what was asked for: its header does not fit.
    #[must_use]
    pub fn is_shape(&self) -> bool {
        matches!(self, Self::Wrong { place, .. } if place == "header")
    }

    /// Names the file, where none is named yet.
    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        if let Self::Wrong { file, .. } = &mut self
            && file.is_empty()
        {
            *file = path.display().to_string();
        }
        self
    }
}

/// Text after something that only stands before text.
struct Before<'a>(&'a str, &'a str);
/// Text before something that only stands after text.
struct After<'a>(&'a str, &'a str);

impl fmt::Display for Before<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            "" => Ok(()),
            text => write!(f, "{}{text}", self.0),
        }
    }
}

impl fmt::Display for After<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            text => write!(f, "{text}{}", self.1),
        }
    }
}
