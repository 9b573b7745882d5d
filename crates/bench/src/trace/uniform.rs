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
    /// experts `E·(1-p)^T` and entropy `-E·E[s·ln s]`, `s` the expert's share, follow from that
    /// exactly. For gini, `(E-1)/E · E|x-y| / (2·mean)`, and the maximum, the loads x, y of
    /// different experts are taken for independent; that they add up to the choices widens
    /// `|x-y|` by `√(E/(E-1))`, which is put in.
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
        let (lowest, pmf) = binomial(tokens, (mean / tokens as f64).min(1.0));
        let (mut cumulated, mut spread, mut max, mut entropy) = (0.0, 0.0, lowest as f64, 0.0);
        let mut idle = 0.0;
        for (x, probability) in (lowest..).zip(&pmf) {
            cumulated += probability;
            let below = cumulated.min(1.0);
            // E|x-y| = 2 Σ F(1-F), E[max] = Σ (1 - F^E).
            spread += 2.0 * below * (1.0 - below);
            max += 1.0 - below.powf(e);
            match x {
                0 => idle = e * probability,
                x => {
                    let share = x as f64 / choices as f64;
                    entropy -= e * probability * share * share.ln();
                }
            }
        }
        let together = match experts {
            1 => 0.0,
            _ => ((e - 1.0) / e).sqrt(),
        };
        Self {
            gini: together * spread / (2.0 * mean),
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
    (lowest as u64, pmf)
}
