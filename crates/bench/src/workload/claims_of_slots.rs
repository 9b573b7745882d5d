//! Claims about first choices, which slots tell: Zipf's law, and locality.

use crate::workload::claims::Step;
use crate::workload::locality::Locality;
use crate::workload::selftest::{Claim, bernstein, exponent};

/// Noise swaps neighbouring slots of at most this share of the tokens; see `rows`.
const SWAPPED: f64 = 0.005;

/// First choices by rank.
pub(super) struct ZipfCount<'a> {
    ranked: &'a [u32],
    weights: &'a [f32],
    /// The rank of each expert, from 0.
    rank_of: Vec<usize>,
    tokens: f64,
    /// Sum of the logarithms of the ranks, counted from 1.
    logs: f64,
}

// === impl ZipfCount ===

impl<'a> ZipfCount<'a> {
    pub(super) fn new(ranked: &'a [u32], weights: &'a [f32]) -> Self {
        let mut rank_of = vec![0; ranked.len()];
        for (rank, &expert) in ranked.iter().enumerate() {
            rank_of[expert as usize] = rank;
        }
        Self {
            ranked,
            weights,
            rank_of,
            tokens: 0.0,
            logs: 0.0,
        }
    }

    pub(super) fn hottest(&self) -> u32 {
        self.ranked.first().copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, step: &Step<'_>) {
        let first = step.rows.iter().filter_map(|row| row.first());
        for rank in first.filter_map(|&expert| self.rank_of.get(expert as usize)) {
            self.tokens += 1.0;
            self.logs += (*rank as f64 + 1.0).ln();
        }
    }

    /// The exponent that makes the first choices likeliest, which is the one whose law has their
    /// mean of ln(rank). The mean of independent tokens may be off by Bernstein's inequality; the
    /// exponents that fit the ends of that interval are the tolerance.
    pub(super) fn claim(&self, exponent: f64) -> Option<Claim> {
        let ranks = self.weights.len();
        if ranks < 2 {
            return None;
        }
        let widest = (ranks as f64).ln();
        let (mean, variance) = moments(ranks, exponent);
        let off = bernstein(self.tokens * variance, widest, 1.0) / self.tokens.max(1.0);
        let off = off + SWAPPED * widest;
        let steepest = fit(ranks, mean - off) - exponent;
        let flattest = exponent - fit(ranks, mean + off);
        let measured = (self.tokens > 0.0).then(|| fit(ranks, self.logs / self.tokens));
        let name = "exponent that fits the first choices";
        Some(Claim::new(name, exponent, measured, steepest.max(flattest)))
    }
}

/// Mean and variance of ln(rank) where rank r has weight r^-s.
fn moments(ranks: usize, s: f64) -> (f64, f64) {
    let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
    for rank in 1..=ranks {
        let log = (rank as f64).ln();
        let weight = (-s * log).exp();
        sum += weight;
        first += weight * log;
        second += weight * log * log;
    }
    let mean = first / sum;
    (mean, (second / sum - mean * mean).max(0.0))
}

/// The exponent whose law has this mean of ln(rank), between -5 and 30.
fn fit(ranks: usize, mean: f64) -> f64 {
    let (mut low, mut high) = (-5.0, 30.0);
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        // The steeper the law, the lower the mean.
        match moments(ranks, middle).0 > mean {
            true => low = middle,
            false => high = middle,
        }
    }
    (low + high) / 2.0
}

/// Pairs of consecutive tokens, and first choices.
pub(super) struct PairCount {
    pairs: f64,
    same_first: f64,
    share_in_first_two: f64,
    /// By expert.
    first: Vec<u64>,
}

// === impl PairCount ===

impl PairCount {
    pub(super) fn new(experts: usize) -> Self {
        Self {
            pairs: 0.0,
            same_first: 0.0,
            share_in_first_two: 0.0,
            first: vec![0; experts],
        }
    }

    pub(super) fn add(&mut self, step: &Step<'_>) {
        let first = step.rows.iter().filter_map(|row| row.first());
        for expert in first {
            if let Some(count) = self.first.get_mut(*expert as usize) {
                *count += 1;
            }
        }
        for pair in step.rows.windows(2) {
            let [earlier, later] = [0, 1].map(|at| &pair[at][..pair[at].len().min(2)]);
            self.pairs += 1.0;
            if earlier.first() == later.first() {
                self.same_first += 1.0;
            }
            if earlier.iter().any(|expert| later.contains(expert)) {
                self.share_in_first_two += 1.0;
            }
        }
    }

    /// Whether a pair is alike does not depend on the pairs before it: every expert has the same
    /// chance. So the pairs of a chain are independent, and its tokens are not.
    pub(super) fn claims(&self, locality: &Locality, two: bool) -> Vec<Claim> {
        let claim = |name: &str, share: f64, held: f64| {
            let pairs = self.pairs.max(1.0);
            let tolerance = bernstein(pairs * share * (1.0 - share), 1.0, 1.0) / pairs;
            let measured = (self.pairs > 0.0).then_some(held / pairs);
            Claim::new(name, share, measured, tolerance + SWAPPED)
        };
        let name = "consecutive tokens with the same first choice";
        let mut claims = vec![claim(name, locality.same_first(), self.same_first)];
        if two {
            let share = locality.share_in_first_two();
            let name = "consecutive tokens that share one of their first two";
            claims.push(claim(name, share, self.share_in_first_two));
        }
        claims.push(self.farthest(locality.keep));
        claims
    }

    /// The expert whose share of the first choices is farthest from 1/E. A chain that keeps its
    /// state with probability l has a spectral gap of 1-l; by Bernstein's inequality for Markov
    /// chains (Jiang, Sun and Fan 2018) a sum is off by more than e with a chance of at most
    /// `2·exp(-e²/2 / (n·v·(1+l)/(1-l) + 5e/(1-l)))`.
    fn farthest(&self, keep: f64) -> Claim {
        let experts = self.first.len() as f64;
        let tokens = self.first.iter().sum::<u64>() as f64;
        let even = 1.0 / experts;
        let off = |count: &u64| (*count as f64 - tokens * even).abs();
        let all = self.first.iter().enumerate();
        let worst = all.reduce(|worst, next| {
            if off(next.1) > off(worst.1) {
                next
            } else {
                worst
            }
        });
        let (expert, count) = worst.unwrap_or((0, &0));
        let gap = 1.0 - keep;
        let x = exponent(experts);
        let reach = 5.0 * x / gap;
        let variance = tokens * even * (1.0 - even) * (1.0 + keep) / gap;
        let tolerance = match gap > 0.0 {
            true => (reach + (reach * reach + 2.0 * x * variance).sqrt()) / tokens + SWAPPED,
            false => 1.0,
        };
        let measured = (tokens > 0.0).then_some(*count as f64 / tokens);
        let name = format!("share of expert {expert} of the first choices, the farthest off");
        Claim::new(name, even, measured, tolerance)
    }
}

/// Probability that the first item is among `k` draws without replacement.
///
/// Items whose exponential clocks (rates `weights`) ring first are such draws (Efraimidis and
/// Spirakis 2006), so the probability is that fewer than `k` others ring before the first item:
/// an integral over its ringing time, here over its distribution `u = 1 - exp(-w t)`.
pub(super) fn first_is_drawn(weights: &[f32], k: usize) -> f64 {
    const POINTS: u32 = 1000;
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let rates: Vec<f64> = weights
        .iter()
        .map(|weight| f64::from(*weight) / total)
        .collect();
    let Some((first, others)) = rates.split_first() else {
        return 0.0;
    };
    let mut sum = 0.0;
    let mut rung = vec![0.0; k];
    for point in 0..POINTS {
        let u = (f64::from(point) + 0.5) / f64::from(POINTS);
        let time = -(1.0 - u).ln() / first;
        // Probability of 0, 1, … k-1 others having rung.
        rung.fill(0.0);
        rung[0] = 1.0;
        for rate in others {
            let p = 1.0 - (-rate * time).exp();
            for n in (0..k).rev() {
                let before = if n == 0 { 0.0 } else { rung[n - 1] };
                rung[n] = rung[n] * (1.0 - p) + before * p;
            }
        }
        sum += rung.iter().sum::<f64>();
    }
    sum / f64::from(POINTS)
}
