//! How evenly work is spread.

use super::first_bad;
use serde::{Deserialize, Serialize};

/// Spread of the choices that reached for each expert, null and masked ones left out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// Gini coefficient of the counts: 0 when all are equal, `1 − 1/E` when one has everything.
    pub gini: f64,
    /// Largest count over the mean count: 1 when all are equal, `E` when one has everything.
    pub max_over_mean: f64,
    /// Shannon entropy of the shares in nats: `ln E` when all are equal, 0 when one has
    /// everything.
    pub entropy: f64,
    /// Experts without a choice.
    pub idle_experts: u64,
    /// Workers that computed no choice; `None` where nobody counted by worker.
    pub idle_workers: Option<u64>,
}

// === impl Balance ===

impl Balance {
    /// Balance of `counts[expert]` and, if known, of `workers[worker]`.
    ///
    /// Without a single choice the first three figures are 0.
    pub fn of(counts: &[u64], workers: Option<&[u64]>) -> Self {
        let idle = |counts: &[u64]| counts.iter().filter(|count| **count == 0).count() as u64;
        let total: f64 = counts.iter().map(|count| *count as f64).sum();
        let (mut gini, mut max_over_mean, mut entropy) = (0.0, 0.0, 0.0);
        if total > 0.0 {
            let n = counts.len() as f64;
            let mut ascending = counts.to_vec();
            ascending.sort_unstable();
            // G = 2·Σ i·x_i / (n·Σ x) − (n+1)/n, x ascending, i from 1: half the relative mean
            // absolute difference without its n² terms.
            let ranked: f64 = ascending
                .iter()
                .enumerate()
                .map(|(i, x)| (i + 1) as f64 * *x as f64)
                .sum();
            gini = (2.0 * ranked / (n * total) - (n + 1.0) / n).max(0.0);
            max_over_mean = ascending.last().map_or(0.0, |max| *max as f64 * n / total);
            entropy = ascending
                .iter()
                .filter(|count| **count > 0)
                .map(|count| *count as f64 / total)
                // Adding 0.0 turns the −0.0 of a single share into 0.0.
                .map(|share| -share * share.ln() + 0.0)
                .sum();
        }
        Self {
            gini,
            max_over_mean,
            entropy,
            idle_experts: idle(counts),
            idle_workers: workers.map(idle),
        }
    }

    pub(super) fn non_finite(&self) -> Option<String> {
        first_bad([
            ("balance.gini", Some(self.gini)),
            ("balance.max_over_mean", Some(self.max_over_mean)),
            ("balance.entropy", Some(self.entropy)),
        ])
    }
}
