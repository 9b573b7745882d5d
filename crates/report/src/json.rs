//! The report as a file.

use crate::ReportError;
use crate::check::check;
use expertmesh_telemetry::{Report, SCHEMA};

/// The report as indented JSON that ends with a newline.
///
/// # Errors
///
/// [`ReportError::NonFinite`] names the first figure that is NaN or infinite: JSON would turn it
/// into a `null` that looks like "does not apply".
pub fn json(report: &Report) -> Result<String, ReportError> {
    if let Some(path) = report.non_finite() {
        return Err(ReportError::NonFinite { path });
    }
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    Ok(text)
}

/// Reads what [`json`] wrote, or a later version of the same schema: unknown keys are ignored.
///
/// # Errors
///
/// [`ReportError::Schema`] when the text names another schema, [`ReportError::Json`] when it is
/// no report at all, [`ReportError::Field`] when lists in it do not belong together or a figure is
/// what it cannot be.
pub fn parse(text: &str) -> Result<Report, ReportError> {
    // The schema first: a report of another schema fails on some field of its own, and that
    // message would send its reader looking in the wrong place.
    let value: serde_json::Value = serde_json::from_str(text)?;
    match value.get("schema").and_then(serde_json::Value::as_str) {
        Some(found) if found != SCHEMA => Err(ReportError::Schema {
            found: found.to_owned(),
            expected: SCHEMA,
        }),
        _ => {
            let report: Report = serde_json::from_value(value)?;
            check(&report)?;
            Ok(report)
        }
    }
}
