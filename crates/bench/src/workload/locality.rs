//! Consecutive tokens that choose alike.

use rand_chacha::ChaCha8Rng;

use crate::draw::{below, unit};

/// How much likelier the second choice is taken from the token before than the first is kept:
/// fitted so that layer 15 of Table 5 of "Mixtral of Experts" comes out in both columns, 26.4 %
/// for the first choice and 63.7 % for the first two (means over its eight data sets).
const SECOND: f64 = 1.222;

/// A Markov chain of tokens in which every expert has the same chance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Locality {
    experts: u32,
    top_k: usize,
    /// A token keeps the first choice of the one before with this probability.
    pub(super) keep: f64,
    /// A token whose first choice is none of the first two before it takes its second from them
    /// with this probability.
    second: f64,
}

// === impl Locality ===

impl Locality {
    /// Consecutive tokens share their first choice with `probability`, at least 1/E. Kept or
    /// drawn again by chance: `probability = keep + (1 - keep) / E`.
    pub(super) fn new(experts: usize, top_k: usize, probability: f64) -> Self {
        let chance = 1.0 / experts as f64;
        let keep = match experts {
            1 => 0.0,
            _ => ((probability - chance) / (1.0 - chance)).clamp(0.0, 1.0),
        };
        Self {
            experts: experts as u32,
            top_k,
            keep,
            second: (SECOND * keep).min(1.0),
        }
    }

    /// Probability that consecutive tokens have the same first choice.
    pub(super) fn same_first(&self) -> f64 {
        self.keep + (1.0 - self.keep) / f64::from(self.experts)
    }

    /// Probability that the first two choices of consecutive tokens have an expert in common;
    /// k is at least 2.
    pub(super) fn share_in_first_two(&self) -> f64 {
        let e = f64::from(self.experts);
        let by_chance = (2.0 / (e - 1.0)).min(1.0);
        let by_second = self.second + (1.0 - self.second) * by_chance;
        let by_first = (2.0 / e).min(1.0);
        self.keep + (1.0 - self.keep) * (by_first + (1.0 - by_first) * by_second)
    }

    /// Appends `[tokens, k]` experts.
    pub(super) fn choose(&self, random: &mut ChaCha8Rng, tokens: usize, chosen: &mut Vec<u32>) {
        let mut before: Option<[u32; 2]> = None;
        for _ in 0..tokens {
            let hand = chosen.len();
            let first = match before {
                Some([first, _]) if unit(random) < self.keep => first,
                _ => self.any(random),
            };
            chosen.push(first);
            if let Some(before) = before
                && self.top_k > 1
                && !before.contains(&first)
                && unit(random) < self.second
            {
                chosen.push(before[below(random, 2) as usize]);
            }
            while chosen.len() < hand + self.top_k {
                let expert = self.any(random);
                if !chosen[hand..].contains(&expert) {
                    chosen.push(expert);
                }
            }
            before = Some([first, *chosen.get(hand + 1).unwrap_or(&first)]);
        }
    }

    fn any(&self, random: &mut ChaCha8Rng) -> u32 {
        below(random, u64::from(self.experts)) as u32
    }
}
