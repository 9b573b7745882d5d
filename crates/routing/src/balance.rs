//! How even a load is, in one number. Counts are choices by expert, or by worker.

/// The Gini coefficient: 0 when all counts are equal, `1 - 1/n` when one has everything. Zero
/// for no counts or none above zero.
#[must_use]
pub fn gini(counts: &[u64]) -> f64 {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    let total = total(counts);
    if total == 0.0 {
        return 0.0;
    }
    let n = sorted.len() as f64;
    let ranked: f64 = (1_u32..)
        .zip(&sorted)
        .map(|(rank, &x)| f64::from(rank) * x as f64)
        .sum();
    // Equal counts may come out below zero by rounding.
    (2.0 * ranked / (n * total) - (n + 1.0) / n).max(0.0)
}

/// The highest count over the mean: 1 when all counts are equal, `n` when one has everything.
/// Zero when nothing was counted.
#[must_use]
pub fn max_over_mean(counts: &[u64]) -> f64 {
    let total = total(counts);
    if total == 0.0 {
        return 0.0;
    }
    let max = counts.iter().max().copied().unwrap_or_default();
    max as f64 * counts.len() as f64 / total
}

/// The Shannon entropy of the counts' shares, `-Σ s·ln s`, in nats: `ln n` when all counts are
/// equal, 0 when one has everything or nothing was counted.
#[must_use]
pub fn entropy(counts: &[u64]) -> f64 {
    let total = total(counts);
    let shares = counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| count as f64 / total);
    // `0 -` rather than a sign, so that a single share gives 0 and not -0.
    0.0 - shares.map(|share| share * share.ln()).sum::<f64>()
}

/// How many counts are zero.
#[must_use]
pub fn idle(counts: &[u64]) -> usize {
    counts.iter().filter(|&&count| count == 0).count()
}

fn total(counts: &[u64]) -> f64 {
    counts.iter().map(|&count| count as f64).sum()
}
