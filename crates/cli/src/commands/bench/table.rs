//! The table of `bench dispatch`.

use std::fmt::Write as _;

use expertmesh_exchange::ExchangeKind;
use expertmesh_report::human;
use expertmesh_telemetry::Run;

/// One number of tokens, over all restarts.
pub(crate) struct Point {
    tokens: usize,
    exchange_p50: Option<f64>,
    exchange_p99: Option<f64>,
    floor_p50: Option<f64>,
    payload_bytes: u64,
    steps: u64,
    /// Ascending.
    ratios: Vec<f64>,
    limit: Option<f64>,
}

// === impl Point ===

impl Point {
    pub(crate) fn new(tokens: usize, run: &Run, mut ratios: Vec<f64>, limit: Option<f64>) -> Self {
        ratios.sort_by(f64::total_cmp);
        Self {
            tokens,
            exchange_p50: run.latency_us.exchange.p50,
            exchange_p99: run.latency_us.exchange.p99,
            floor_p50: run.latency_us.floor.and_then(|floor| floor.p50),
            payload_bytes: run.communication.payload_bytes,
            steps: run.load.steps,
            ratios,
            limit,
        }
    }

    fn median(&self) -> Option<f64> {
        let count = self.ratios.len();
        let upper = *self.ratios.get(count / 2)?;
        if count % 2 == 1 {
            return Some(upper);
        }
        Some((self.ratios[count / 2 - 1] + upper) / 2.0)
    }

    /// Whether the ratio is above its limit, or too few steps leave no ratio to hold against it.
    pub(crate) fn misses(&self) -> bool {
        self.limit
            .is_some_and(|limit| self.median().is_none_or(|ratio| ratio > limit))
    }

    pub(crate) fn miss(&self) -> String {
        let limit = self.limit.unwrap_or_default();
        match self.median() {
            Some(ratio) => {
                format!(
                    "{} tokens: ratio {ratio:.2} is above --max-ratio {limit}",
                    self.tokens
                )
            }
            None => format!(
                "{} tokens: too few steps for a median, and so no ratio to hold against \
                 --max-ratio {limit}; use --steps 20 or more",
                self.tokens
            ),
        }
    }
}

/// The points as lines of at most 100 columns.
pub(crate) fn render(
    points: &[Point],
    exchange: ExchangeKind,
    workers: usize,
    restarts: usize,
) -> String {
    let mut text = format!(
        "dispatch: {exchange}, {workers} workers, {restarts} restarts; the floor sends the same \
         messages without the work\n\n"
    );
    let _ = writeln!(
        text,
        "{:>8}  {:>12}  {:>12}  {:>12}  {:>14}  {:>6}  {:<15} limit",
        "tokens", "exchange p50", "exchange p99", "floor p50", "payload a step", "ratio", "[range]"
    );
    for point in points {
        let range = match (point.ratios.first(), point.ratios.last()) {
            (Some(low), Some(high)) => format!("[{low:.2}, {high:.2}]"),
            _ => human::NONE.to_owned(),
        };
        let limit = match point.limit {
            Some(limit) if point.misses() => format!("{limit:.2} missed"),
            Some(limit) => format!("{limit:.2} met"),
            None => String::new(),
        };
        let line = format!(
            "{:>8}  {:>12}  {:>12}  {:>12}  {:>14}  {:>6}  {range:<15} {limit}",
            point.tokens,
            human::maybe_duration(point.exchange_p50),
            human::maybe_duration(point.exchange_p99),
            human::maybe_duration(point.floor_p50),
            human::bytes(point.payload_bytes / point.steps.max(1)),
            point
                .median()
                .map_or_else(|| human::NONE.to_owned(), |ratio| format!("{ratio:.2}")),
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
