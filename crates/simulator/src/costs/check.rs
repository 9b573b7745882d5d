//! Whether every figure of a profile is what it should be, and where a file says so.

use crate::costs::{Costs, ExpertTable};
use crate::error::SimError;

/// A thousand seconds: what takes longer is a mistake, and sums of it leave the clock's range.
const MOST_NS: f64 = 1e12;
/// Threads that take turns more often do nothing else.
const LEAST_SLICE_NS: f64 = 1000.0;

/// A figure that is none.
pub(super) struct Wrong {
    /// Its path: `combine.byte_ns`, `experts.tables.0`.
    path: String,
    /// What it holds, and what was expected.
    reason: String,
}

// === impl Wrong ===

impl Wrong {
    fn new(path: impl Into<String>, reason: String) -> Self {
        let path = path.into();
        Self { path, reason }
    }

    /// The sentence, with the line of `text` that holds the figure if it is found.
    pub(super) fn told(&self, text: &str) -> SimError {
        let line = line_of(text, &self.path).map_or(String::new(), |line| format!("line {line}: "));
        SimError::Costs(format!("{line}{self}"))
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` {}", self.path, self.reason)
    }
}

impl From<Wrong> for SimError {
    fn from(wrong: Wrong) -> Self {
        Self::Costs(wrong.to_string())
    }
}

/// What the reader of TOML says, in one sentence.
pub(super) fn syntax(text: &str, error: &toml::de::Error) -> SimError {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let before = &text.as_bytes()[..at];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let reason = error.message().trim().replace('\n', ", ");
    SimError::Costs(format!("line {line}: {reason}"))
}

/// Checks that every figure is a time.
pub(super) fn check(costs: &Costs) -> Result<(), Wrong> {
    let is_time = |value: f64| (0.0..=MOST_NS).contains(&value);
    if let Some((path, held)) = times(costs).find(|(_, held)| !is_time(*held)) {
        let reason = format!("holds {held}, expected 0 to {MOST_NS:e} nanoseconds");
        return Err(Wrong::new(path, reason));
    }
    if costs.on_cores && costs.slice_ns < LEAST_SLICE_NS {
        let held = costs.slice_ns;
        let reason = format!("holds {held}, expected at least {LEAST_SLICE_NS} nanoseconds");
        return Err(Wrong::new("slice_ns", reason));
    }
    let share = costs.experts.bandwidth_share;
    if !(share > 0.0 && share <= 1.0) {
        let reason = format!("holds {share}, expected above 0 and at most 1");
        return Err(Wrong::new("experts.bandwidth_share", reason));
    }
    let mut tables = costs.experts.tables.iter().enumerate();
    tables.try_for_each(|(at, table)| check_table(at, table))
}

fn check_table(at: usize, table: &ExpertTable) -> Result<(), Wrong> {
    let wrong = |field: &str, reason: String| {
        let of = format!("hidden {}, ffn {}", table.hidden, table.ffn);
        Wrong::new(
            format!("experts.tables.{at}.{field}"),
            format!("of {of} {reason}"),
        )
    };
    if table.points.is_empty() {
        return Err(wrong("points", "is empty, expected [rows, ns]".to_owned()));
    }
    for (field, points) in [("points", &table.points), ("beside", &table.beside)] {
        let mut before = 0;
        for (rows, ns) in points {
            if *rows <= before {
                let reason = format!("holds {rows} rows behind {before}, expected more, from 1 on");
                return Err(wrong(field, reason));
            }
            if !(*ns > 0.0 && *ns <= MOST_NS) {
                let expected = format!("above 0 and at most {MOST_NS:e}");
                let reason = format!("holds {ns} ns for {rows} rows, expected {expected}");
                return Err(wrong(field, reason));
            }
            before = *rows;
        }
    }
    Ok(())
}

/// Every figure that is a time, by its path.
fn times(costs: &Costs) -> impl Iterator<Item = (String, f64)> {
    let lines = [
        ("check", costs.check),
        ("plan", costs.plan),
        ("shard_plan", costs.shard_plan),
        ("pack", costs.pack),
        ("write", costs.write),
        ("read", costs.read),
        ("local", costs.local),
        ("reply", costs.reply),
        ("collect", costs.collect),
    ];
    let single = [
        ("wake_ns", costs.wake_ns),
        ("pool_ns", costs.pool_ns),
        ("slice_ns", costs.slice_ns),
        ("timer_ns", costs.timer_ns),
        ("gate.fixed_ns", costs.gate.fixed_ns),
        ("gate.token_ns", costs.gate.token_ns),
        ("gate.flop_ns", costs.gate.flop_ns),
        ("combine.fixed_ns", costs.combine.fixed_ns),
        ("combine.row_ns", costs.combine.row_ns),
        ("combine.byte_ns", costs.combine.byte_ns),
        ("experts.batch_ns", costs.experts.batch_ns),
        ("experts.byte_ns", costs.experts.byte_ns),
    ];
    let of_lines = lines.into_iter().flat_map(|(name, line)| {
        let parts = [("fixed_ns", line.fixed_ns), ("unit_ns", line.unit_ns)];
        parts.map(|(part, held)| (format!("{name}.{part}"), held))
    });
    let single = single
        .into_iter()
        .map(|(name, held)| (name.to_owned(), held));
    single.chain(of_lines)
}

/// The line, from 1, that holds `path`, or what it is part of.
fn line_of(text: &str, path: &str) -> Option<usize> {
    let (mut table, mut tables) = (String::new(), 0);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.starts_with('[') && line.contains(',') {
            // Points of a table, not its head.
            continue;
        }
        if let Some(name) = line.strip_prefix("[[") {
            let name = name.split(']').next().unwrap_or_default().trim();
            table = format!("{name}.{tables}");
            tables += 1;
        } else if let Some(name) = line.strip_prefix('[') {
            table = name.split(']').next().unwrap_or_default().trim().to_owned();
        } else if let Some((key, _)) = line.split_once('=') {
            let key = key.trim();
            let full = match table.as_str() {
                "" => key.to_owned(),
                table => format!("{table}.{key}"),
            };
            let rest = path.strip_prefix(&full);
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
                return Some(number);
            }
        }
    }
    None
}
