//! Lanes as a file: a trace for each run of a report.

use crate::ReportError;
use expertmesh_telemetry::Trace;
use serde::{Deserialize, Serialize};

/// The schema that this version writes.
pub const LANES_SCHEMA: &str = "expertmesh.lanes/1";

/// What a file of lanes holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    schema: String,
    /// In the order of the report's runs; a run without lanes has an empty trace.
    runs: Vec<Trace>,
}

/// Traces, in the order of the runs of their report, as JSON that ends with a newline.
///
/// # Errors
///
/// [`ReportError::Json`], which whole numbers and names do not give.
pub fn lanes_json(traces: &[Trace]) -> Result<String, ReportError> {
    let file = File {
        schema: LANES_SCHEMA.to_owned(),
        runs: traces.to_vec(),
    };
    let mut text = serde_json::to_string(&file)?;
    text.push('\n');
    Ok(text)
}

/// Reads what [`lanes_json`] wrote; unknown keys are ignored.
///
/// # Errors
///
/// [`ReportError::Schema`] for a file of another schema, [`ReportError::Json`] for one that holds no
/// lanes, [`ReportError::Trace`] for lanes that contradict themselves.
pub fn parse_lanes(text: &str) -> Result<Vec<Trace>, ReportError> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    match value.get("schema").and_then(serde_json::Value::as_str) {
        Some(found) if found != LANES_SCHEMA => {
            return Err(ReportError::Schema {
                found: found.to_owned(),
                expected: LANES_SCHEMA,
            });
        }
        _ => {}
    }
    let file: File = serde_json::from_value(value)?;
    for (run, trace) in file.runs.iter().enumerate() {
        trace
            .check()
            .map_err(|error| ReportError::Trace { run, error })?;
    }
    Ok(file.runs)
}
