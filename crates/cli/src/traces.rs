//! Where a trace goes, checked before the run that would fill it; and what one brings.

use std::path::{Path, PathBuf};

use expertmesh_bench::trace::{Trace, TraceFormat};
use expertmesh_bench::workload::{Replay, ReplayShape};

use crate::error::Failure;
use crate::output::check_place;

/// The choices that a layer of `shape` replays.
///
/// # Errors
/// [`Failure::Input`] for a file that is no trace, or one of another shape, and which flags say the
/// shape.
pub(crate) fn replay(
    file: &Path,
    shape: &ReplayShape,
    is_synthetic: bool,
) -> Result<Replay, Failure> {
    Replay::read(file, shape).map_err(|error| {
        let hint = match (error.is_shape(), is_synthetic) {
            (false, _) => "",
            (true, true) => {
                "; --experts and --top-k shape a synthetic layer, --trace-layer names a layer"
            }
            (true, false) => "; --trace-layer names a layer of the trace",
        };
        Failure::input(format!("{error}{hint}"))
    })
}

/// A place for a trace.
#[derive(Debug, Clone)]
pub(crate) struct TraceFile {
    path: PathBuf,
    format: TraceFormat,
}

// === impl TraceFile ===

impl TraceFile {
    /// Checks that a file of `format`, or of what the extension of `path` says, can be put there.
    ///
    /// # Errors
    /// As [`check_place`]; a format that is not known or only read.
    pub(crate) fn at(path: &Path, format: Option<TraceFormat>) -> Result<Self, Failure> {
        check_place(path)?;
        let said = format.or_else(|| TraceFormat::of_extension(path));
        let (field, held) = match said {
            Some(format @ (TraceFormat::Moetrace | TraceFormat::Csv | TraceFormat::Parquet)) => {
                let path = path.to_path_buf();
                return Ok(Self { path, format });
            }
            Some(only_read) => ("format", format!("{only_read}, which is only read")),
            None => (
                "extension",
                path.extension().map_or_else(
                    || "none".to_owned(),
                    |extension| extension.display().to_string(),
                ),
            ),
        };
        Err(Failure::input(format!(
            "trace {}: {field} is {held}, expected moetrace, csv or parquet",
            path.display()
        )))
    }

    /// Writes `trace`, and says in a few words what was written.
    ///
    /// # Errors
    /// [`Failure::Run`] if the file cannot be written.
    pub(crate) fn write(&self, trace: &Trace) -> Result<String, Failure> {
        let written = trace.write(&self.path, Some(self.format));
        written.map_err(Failure::run)?;
        Ok(format!("{} to {}", describe(trace), self.path.display()))
    }

    /// What the file holds.
    pub(crate) fn format(&self) -> TraceFormat {
        self.format
    }
}

/// `100 steps of 1 layer, 6,400 tokens, top-2 of 8 experts`
pub(crate) fn describe(trace: &Trace) -> String {
    let header = trace.header();
    let tokens: u64 = trace
        .records()
        .iter()
        .map(|one| u64::from(one.tokens))
        .sum();
    let mut layers: Vec<u32> = trace.records().iter().map(|one| one.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    let many = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    format!(
        "{} of {}, {} token rows, top-{} of {} experts",
        many(trace.steps(), "step"),
        many(layers.len(), "layer"),
        expertmesh_report::human::count(tokens),
        header.top_k,
        header.experts
    )
}
