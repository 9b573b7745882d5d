//! What a report from a file must hold before anything is drawn of it: lists that belong together,
//! durations and rates that are none below 0. What it means is not judged.

use expertmesh_telemetry::{Distribution, Latency, Report, Run};

use crate::ReportError;

/// Checks every run.
///
/// # Errors
///
/// [`ReportError::NonFinite`] and [`ReportError::Field`] with the first field that is wrong.
pub(crate) fn check(report: &Report) -> Result<(), ReportError> {
    if let Some(path) = report.non_finite() {
        return Err(ReportError::NonFinite { path });
    }
    for (at, run) in report.runs.iter().enumerate() {
        run_of_file(run).map_err(|wrong| ReportError::Field {
            path: format!("runs[{at}].{}", wrong.path),
            found: wrong.found,
            expected: wrong.expected,
        })?;
    }
    Ok(())
}

/// A field below a run.
struct Wrong {
    path: String,
    found: String,
    expected: String,
}

// === impl Wrong ===

impl Wrong {
    fn new(path: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            found: found.into(),
            expected: expected.into(),
        }
    }

    fn entries(path: impl Into<String>, found: usize, expected: usize, why: &str) -> Self {
        let expected = format!("{expected}, {why}");
        Self::new(path, format!("has {found} entries"), expected)
    }
}

fn run_of_file(run: &Run) -> Result<(), Wrong> {
    let identity = &run.identity;
    let (groups, workers) = (identity.groups.len(), identity.workers as usize);
    if groups != 0 && groups != workers {
        let why = "one for each worker";
        return Err(Wrong::entries("identity.groups", groups, workers, why));
    }
    matrix(&run.communication.matrix_bytes, identity.endpoints.len())?;
    figures(run)?;
    let us = &run.latency_us;
    let named = [
        ("step", Some(&us.step)),
        ("exchange", Some(&us.exchange)),
        ("dispatch", Some(&us.dispatch)),
        ("combine", Some(&us.combine)),
        ("floor", us.floor.as_ref()),
    ];
    for (name, one) in named {
        one.map_or(Ok(()), |one| latency(name, one))?;
    }
    for (name, one) in &us.phases {
        latency(&format!("phases.{name}"), one)?;
    }
    for (name, one) in &us.distribution {
        distribution(&format!("latency_us.distribution.{name}"), one)?;
    }
    match run.bands.iter().find(|(_, [low, high])| low > high) {
        None => Ok(()),
        Some((path, [low, high])) => Err(Wrong::new(
            format!("bands.{path}"),
            format!("is [{low}, {high}]"),
            "the lower end first",
        )),
    }
}

/// A square of the endpoints, or nothing where nobody would read it.
fn matrix(cells: &[Vec<u64>], endpoints: usize) -> Result<(), Wrong> {
    let path = "communication.matrix_bytes";
    let why = "one for each endpoint";
    if !cells.is_empty() && cells.len() != endpoints {
        return Err(Wrong::entries(path, cells.len(), endpoints, why));
    }
    match cells.iter().position(|row| row.len() != endpoints) {
        None => Ok(()),
        Some(row) => {
            let found = cells[row].len();
            let path = format!("{path}[{row}]");
            Err(Wrong::entries(path, found, endpoints, why))
        }
    }
}

/// Figures that are never below 0.
fn figures(run: &Run) -> Result<(), Wrong> {
    let (load, overflow, balance) = (&run.load, &run.overflow, &run.balance);
    let moved = &run.communication;
    let figures = [
        ("load.offered_per_s", load.offered_per_s),
        ("load.achieved_per_s", load.achieved_per_s),
        ("load.max_lag_us", load.max_lag_us),
        ("latency_us.clock_error_us", run.latency_us.clock_error_us),
        ("communication.algbw_gbps", moved.algbw_gbps),
        ("communication.busbw_gbps", moved.busbw_gbps),
        ("overflow.capacity_factor", overflow.capacity_factor),
        ("balance.gini", Some(balance.gini)),
        ("balance.max_over_mean", Some(balance.max_over_mean)),
        ("balance.entropy", Some(balance.entropy)),
    ];
    figures
        .into_iter()
        .try_for_each(|(path, value)| not_below_0(path, value))
}

fn not_below_0(path: &str, value: Option<f64>) -> Result<(), Wrong> {
    match value {
        Some(value) if value < 0.0 => Err(Wrong::new(path, format!("is {value}"), "at least 0")),
        _ => Ok(()),
    }
}

fn latency(name: &str, latency: &Latency) -> Result<(), Wrong> {
    for (figure, value) in latency.figures() {
        not_below_0(&format!("latency_us.{name}.{figure}"), value)?;
    }
    if latency.min > latency.max {
        let expected = format!("at most max, {}", latency.max);
        let found = format!("is {}", latency.min);
        return Err(Wrong::new(
            format!("latency_us.{name}.min"),
            found,
            expected,
        ));
    }
    Ok(())
}

fn distribution(path: &str, one: &Distribution) -> Result<(), Wrong> {
    let (edges, counts) = (&one.edges, one.counts.len());
    let path = format!("{path}.edges");
    if edges.is_empty() && counts == 0 {
        return Ok(());
    }
    if edges.len() != counts + 1 {
        let why = "one more than counts";
        return Err(Wrong::entries(path, edges.len(), counts + 1, why));
    }
    let first = edges.first().copied();
    not_below_0(&format!("{path}[0]"), first)?;
    match edges.windows(2).position(|pair| pair[0] >= pair[1]) {
        None => Ok(()),
        Some(at) => Err(Wrong::new(
            format!("{path}[{}]", at + 1),
            format!("is {}", edges[at + 1]),
            format!("more than {}, the edge before it", edges[at]),
        )),
    }
}
