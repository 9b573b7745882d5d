//! Durations that can be merged across threads, workers and processes.

mod distribution;
mod encoding;
#[cfg(test)]
mod tests;

pub use self::distribution::Distribution;
use crate::TelemetryError;
use serde::{Deserialize, Serialize};

/// Longest duration that is told apart: one hour, in nanoseconds. Longer ones count as this.
pub const MAX_NS: u64 = 3_600_000_000_000;

/// Significant decimal digits of a recorded duration: a figure is off by at most 0.1 %.
pub const DIGITS: u8 = 3;

/// Samples that must lie beyond a percentile before it is stated. With fewer, one more run would
/// print another number.
pub const SAMPLES_BEYOND: u64 = 10;

/// Counts of durations, 0 ns to one hour, three significant digits.
///
/// Every histogram has the same buckets, so merging is exact: merged histograms equal one that
/// recorded all samples. It takes 264 KiB and never grows; recording touches one counter.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    inner: hdrhistogram::Histogram<u64>,
}

/// The summary of a histogram, in microseconds.
///
/// `count`, `min`, `mean` and `max` are always there (zero when nothing was recorded). A
/// percentile with fewer than [`SAMPLES_BEYOND`] samples beyond it is `None`, `null` in JSON: p50
/// takes 20 samples, p90 100, p95 200, p99 1,000 and p99.9 10,000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Shortest, µs.
    pub min: f64,
    /// Arithmetic mean, µs.
    pub mean: f64,
    /// Median, µs.
    pub p50: Option<f64>,
    /// 90th percentile, µs.
    pub p90: Option<f64>,
    /// 95th percentile, µs.
    pub p95: Option<f64>,
    /// 99th percentile, µs.
    pub p99: Option<f64>,
    /// 99.9th percentile, µs.
    pub p999: Option<f64>,
    /// Longest, µs.
    pub max: f64,
}

// === impl Latency ===

impl Latency {
    /// Every duration by its name in a report, µs.
    pub fn figures(&self) -> [(&'static str, Option<f64>); 8] {
        [
            ("min", Some(self.min)),
            ("mean", Some(self.mean)),
            ("p50", self.p50),
            ("p90", self.p90),
            ("p95", self.p95),
            ("p99", self.p99),
            ("p999", self.p999),
            ("max", Some(self.max)),
        ]
    }
}

// === impl Histogram ===

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        match hdrhistogram::Histogram::new_with_bounds(1, MAX_NS, DIGITS) {
            Ok(inner) => Self { inner },
            // The bounds are constants that the library documents as valid; a test builds one.
            Err(_) => unreachable!("constant histogram bounds are valid"),
        }
    }

    /// Counts one duration in nanoseconds; one beyond [`MAX_NS`] counts as [`MAX_NS`].
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.inner.saturating_record(ns.min(MAX_NS));
    }

    /// Adds every sample of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        // Buckets are the same by construction, which is the only way in which adding can fail.
        let added = self.inner.add(&other.inner);
        debug_assert!(added.is_ok(), "histograms share their buckets");
    }

    /// Samples counted so far.
    pub fn count(&self) -> u64 {
        self.inner.len()
    }

    /// Forgets every sample and keeps the memory.
    pub fn clear(&mut self) {
        self.inner.reset();
    }

    /// Count, extremes, mean and the percentiles that the samples support.
    pub fn summary(&self) -> Latency {
        let count = self.count();
        if count == 0 {
            return Latency::default();
        }
        let percentile = |per_mille: u64| {
            supports(count, per_mille)
                .then(|| micros(self.inner.value_at_quantile(per_mille as f64 / 1000.0)))
        };
        Latency {
            count,
            min: micros(self.inner.min()),
            mean: self.inner.mean() / 1000.0,
            p50: percentile(500),
            p90: percentile(900),
            p95: percentile(950),
            p99: percentile(990),
            p999: percentile(999),
            max: micros(self.inner.max()),
        }
    }

    /// The HdrHistogram V2 encoding, readable by every HdrHistogram library.
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::to_bytes(&self.inner)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made.
    ///
    /// # Errors
    ///
    /// [`TelemetryError::HistogramBytes`] when the bytes are cut short, are of other bounds or
    /// precision, or hold counts that no histogram of this crate can hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TelemetryError> {
        encoding::from_bytes(bytes).map(|inner| Self { inner })
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether `count` samples leave [`SAMPLES_BEYOND`] beyond the percentile, in exact arithmetic.
fn supports(count: u64, per_mille: u64) -> bool {
    count.saturating_mul(1000 - per_mille) >= SAMPLES_BEYOND * 1000
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}
