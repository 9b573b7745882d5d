//! What the figures of a layer would be if every token had chosen its experts at random.

/// Expected figures of a load of E experts by T tokens that choose `choices / T` distinct ones
/// each, every set equally likely.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Uniform {
    pub(super) gini: f64,
    pub(super) max_over_mean: f64,
    pub(super) entropy: f64,
    pub(super) idle: f64,
}

/// Standard deviations about the mean beyond which a binomial has nothing to add.
const WIDTH: f64 = 12.0;

// === impl Uniform ===

impl Uniform {
    /// The load of one expert is binomial: T tries of probability `p = choices / (T·E)`. Idle
    /// experts `E·(1-p)^T` and entropy `-E·E[s·ln s]`, `s` the expert's share, follow from that.
    /// Of two experts a token adds one to the difference of the loads, or takes one off, with
    /// probability `p(1-p)·E/(E-1)` each, so the difference is a random walk of a binomial number
    /// of steps, whose mean distance gives gini, `(E-1)/E · E|x-y| / (2·mean)`. Those three are
    /// exact. For the maximum, the loads of different experts are taken for independent, which
    /// makes it a tenth too low where the mean load is near 1.
    pub(super) fn of(tokens: u64, choices: u64, experts: usize) -> Self {
        let e = experts as f64;
        let mean = choices as f64 / e;
        if choices == 0 {
            return Self {
                gini: 0.0,
                max_over_mean: 0.0,
                entropy: 0.0,
                idle: e,
            };
        }
        let p = (mean / tokens as f64).min(1.0);
        let (lowest, pmf) = binomial(tokens, p);
        let (mut cumulated, mut max, mut entropy) = (0.0, lowest as f64, 0.0);
        let mut idle = 0.0;
        for (x, probability) in (lowest..).zip(&pmf) {
            cumulated += probability;
            let below = cumulated.min(1.0);
            // E[max] = Σ (1 - F^E).
            max += 1.0 - below.powf(e);
            match x {
                0 => idle = e * probability,
                x => {
                    let share = x as f64 / choices as f64;
                    entropy -= e * probability * share * share.ln();
                }
            }
        }
        let gini = match experts {
            1 => 0.0,
            _ => {
                (e - 1.0) / e * distance(tokens, 2.0 * p * (1.0 - p) * e / (e - 1.0)) / (2.0 * mean)
            }
        };
        Self {
            gini,
            max_over_mean: max / mean,
            entropy: normalised(entropy, experts),
            idle,
        }
    }
}

/// An entropy over its highest value, `ln E`; 1 for a single expert.
pub(super) fn normalised(entropy: f64, experts: usize) -> f64 {
    match experts {
        0 | 1 => 1.0,
        experts => entropy / (experts as f64).ln(),
    }
}

/// Mean distance of a walk that in each of `tries` makes a step, up or down alike, with
/// probability `p`. After n steps the mean is `s(n)`: `s(1) = 1`, `s(2m) = s(2m-1)`,
/// `s(2m+1) = s(2m)·(2m+1)/2m`.
fn distance(tries: u64, p: f64) -> f64 {
    let (lowest, pmf) = binomial(tries, p.min(1.0));
    let (mut mean, mut s) = (0.0, 0.0);
    for n in 0..lowest + pmf.len() as u64 {
        s = match n {
            0 => 0.0,
            1 => 1.0,
            n if n % 2 == 1 => s * n as f64 / (n - 1) as f64,
            _ => s,
        };
        if let Some(probability) = n.checked_sub(lowest).and_then(|at| pmf.get(at as usize)) {
            mean += probability * s;
        }
    }
    mean
}

/// Probabilities of a binomial from its lowest value that matters on.
fn binomial(tries: u64, p: f64) -> (u64, Vec<f64>) {
    let n = tries as f64;
    if p >= 1.0 {
        return (tries, vec![1.0]);
    }
    let reach = WIDTH * (n * p * (1.0 - p)).sqrt() + WIDTH;
    let mode = ((n + 1.0) * p).floor().min(n);
    let lowest = (mode - reach).max(0.0).floor();
    let highest = (mode + reach).min(n).ceil();
    let odds = p / (1.0 - p);
    // Outwards from the mode, which is 1; the sum makes them probabilities.
    let mut down = Vec::new();
    let (mut x, mut weight) = (mode, 1.0);
    while x > lowest {
        weight *= x / ((n - x + 1.0) * odds);
        x -= 1.0;
        down.push(weight);
    }
    let mut pmf: Vec<f64> = down.into_iter().rev().collect();
    pmf.push(1.0);
    let (mut x, mut weight) = (mode, 1.0);
    while x < highest {
        weight *= (n - x) / (x + 1.0) * odds;
        x += 1.0;
        pmf.push(weight);
    }
    let sum: f64 = pmf.iter().sum();
    pmf.iter_mut().for_each(|weight| *weight /= sum);
    (whole(lowest), pmf)
}

/// A number that `floor` gave and that is not below 0.
#[expect(clippy::cast_sign_loss, reason = "it is not below 0")]
fn whole(number: f64) -> u64 {
    number as u64
}
