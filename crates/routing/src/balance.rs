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

/// [`entropy`] over that of equal counts, `ln n`: 1 when all counts are equal, 0 when one has
/// everything or nothing was counted. A single count that is not zero is as even as can be: 1.
#[must_use]
pub fn normalised_entropy(counts: &[u64]) -> f64 {
    if total(counts) == 0.0 {
        return 0.0;
    }
    if counts.len() == 1 {
        return 1.0;
    }
    entropy(counts) / (counts.len() as f64).ln()
}

/// The coefficient of variation, standard deviation over mean, of the counts as a whole population
/// (divided by `n`): 0 when all counts are equal, `sqrt(n - 1)` when one has everything. Zero when
/// nothing was counted. FastMoE's `coefficient-variation` divides by `n - 1` instead: multiply by
/// `sqrt(n / (n - 1))`.
#[must_use]
pub fn coefficient_of_variation(counts: &[u64]) -> f64 {
    let total = total(counts);
    if total == 0.0 {
        return 0.0;
    }
    let n = counts.len() as f64;
    let mean = total / n;
    let squares = counts.iter().map(|&count| (count as f64 - mean).powi(2));
    (squares.sum::<f64>() / n).sqrt() / mean
}

/// The balancedness of vLLM's expert-parallel load balancer: the mean over the highest count,
/// `1 / `[`max_over_mean`]. 1 when all counts are equal, `1/n` when one has everything, 0 when
/// nothing was counted.
#[must_use]
pub fn balancedness(counts: &[u64]) -> f64 {
    balancedness_of_layers([counts])
}

/// Balancedness of several layers as vLLM logs it: the sum of their means over the sum of their
/// highest counts, so that a layer weighs as much as its load.
#[must_use]
pub fn balancedness_of_layers<'a>(layers: impl IntoIterator<Item = &'a [u64]>) -> f64 {
    let (mut means, mut highest) = (0.0, 0.0);
    for counts in layers.into_iter().filter(|counts| !counts.is_empty()) {
        means += total(counts) / counts.len() as f64;
        highest += counts.iter().max().copied().unwrap_or_default() as f64;
    }
    if highest == 0.0 { 0.0 } else { means / highest }
}

/// FastMoE's `Lmax-over-Lmin`, `(max + 1) / (min + 1)`, the ones being there for idle experts: 1
/// when all counts are equal or there are none.
#[must_use]
pub fn max_over_min(counts: &[u64]) -> f64 {
    let plus_one = |count: Option<&u64>| count.copied().unwrap_or_default() as f64 + 1.0;
    plus_one(counts.iter().max()) / plus_one(counts.iter().min())
}

/// How many counts are zero.
#[must_use]
pub fn idle(counts: &[u64]) -> usize {
    counts.iter().filter(|&&count| count == 0).count()
}

fn total(counts: &[u64]) -> f64 {
    counts.iter().map(|&count| count as f64).sum()
}
