//! A histogram coarse enough for a report.

use super::{Histogram, micros};
use serde::{Deserialize, Serialize};

/// Bits of a duration behind its highest one that choose its bucket.
const FINE_BITS: u32 = 4;

/// How many samples lay between which durations: what a picture of a histogram needs.
///
/// Each doubling is cut into 16 buckets of one width, so a duration is off by at most 6.25 %.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// `[buckets + 1]` ascending, µs. A bucket holds its lower edge and not its upper one.
    pub edges: Vec<f64>,
    /// `[buckets]` samples. The first and the last bucket hold some.
    pub counts: Vec<u64>,
}

// === impl Distribution ===

impl Distribution {
    /// Samples in all buckets.
    pub fn total(&self) -> u64 {
        self.counts.iter().copied().fold(0, u64::saturating_add)
    }

    /// Lower edge, upper edge and samples of each bucket.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, f64, u64)> + '_ {
        let edges = self.edges.windows(2);
        edges
            .zip(&self.counts)
            .map(|(edges, count)| (edges[0], edges[1], *count))
    }
}

// === impl Histogram ===

impl Histogram {
    /// The samples in coarse buckets; empty if there are none.
    pub fn distribution(&self) -> Distribution {
        let mut all = Distribution::default();
        let mut last = None;
        for step in self.inner.iter_recorded() {
            let at = bucket(step.value_iterated_to());
            for empty in last.map_or(at, |last| last + 1)..at {
                all.counts.push(0);
                all.edges.push(micros(lower(empty)));
            }
            if last != Some(at) {
                all.counts.push(0);
                all.edges.push(micros(lower(at)));
            }
            if let Some(count) = all.counts.last_mut() {
                *count += step.count_since_last_iteration();
            }
            last = Some(at);
        }
        all.edges.extend(last.map(|last| micros(lower(last + 1))));
        all
    }
}

/// The bucket of a duration in nanoseconds.
fn bucket(ns: u64) -> u64 {
    match ns.checked_ilog2() {
        Some(high) if high >= FINE_BITS => {
            let octave = u64::from(high - FINE_BITS);
            (octave << FINE_BITS) + (ns >> octave)
        }
        _ => ns,
    }
}

/// The shortest duration of a bucket, nanoseconds.
fn lower(bucket: u64) -> u64 {
    let fine = 1 << FINE_BITS;
    match bucket / fine {
        0 => bucket,
        octave => (fine + bucket % fine) << (octave - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_hold_their_lower_edge() {
        for at in 0..600 {
            assert_eq!(bucket(lower(at)), at);
            assert_eq!(bucket(lower(at + 1) - 1), at);
        }
        assert!((lower(401) as f64) < lower(400) as f64 * 1.0626);
    }

    #[test]
    fn every_sample_is_in_its_bucket_and_the_ends_hold_some() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.distribution(), Distribution::default());
        let samples = [900, 1_000, 1_001, 1_500, 9_999_999];
        samples.iter().for_each(|ns| histogram.record(*ns));
        let all = histogram.distribution();
        assert_eq!(all.edges.len(), all.counts.len() + 1);
        assert!(all.edges.is_sorted_by(|a, b| a < b));
        assert_eq!(all.total(), 5);
        for ns in samples {
            let us = micros(ns);
            let held = all
                .buckets()
                .find(|(from, to, _)| (*from..*to).contains(&us));
            assert!(
                held.is_some_and(|(_, _, count)| count > 0),
                "{ns} in {all:?}"
            );
        }
        assert!(all.counts[0] > 0 && all.counts.last().is_some_and(|count| *count > 0));
    }
}
