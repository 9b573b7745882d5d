//! Who is chosen: experts for every token of a step, by pattern.

use expertmesh_kernels::math;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::workload::pattern::Pattern;
use crate::workload::rows::generator;

/// The stream that ranks experts; steps count up from 0 and warm-up down from the end, so neither
/// comes here.
const RANKS: u64 = 1 << 63;

/// Draws choices.
#[derive(Debug, Clone)]
pub(super) struct Chooser {
    top_k: usize,
    /// Experts by rank, the hottest first: a seeded order, so that the hottest is not always on
    /// the first worker.
    ranked: Vec<u32>,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Balanced,
    /// Weight of each rank.
    Zipf(Vec<f32>),
    /// Share of tokens that the first rank is among the choices of.
    Hot(f64),
}

// === impl Chooser ===

impl Chooser {
    /// A chooser for `experts` of which each token takes `top_k`, which is in `1..=experts`.
    pub(super) fn new(pattern: Pattern, experts: usize, top_k: usize, seed: u64) -> Self {
        let mut ranked: Vec<u32> = (0..u32::try_from(experts).unwrap_or(u32::MAX)).collect();
        shuffle(&mut generator(seed, RANKS), &mut ranked);
        let rule = match pattern {
            Pattern::Balanced | Pattern::Normal => Rule::Balanced,
            Pattern::Hot { share } => Rule::Hot(share),
            Pattern::Zipf { exponent } => {
                let weight = |rank: usize| math::exp(-(exponent as f32) * math::log(rank as f32));
                Rule::Zipf((1..=experts).map(weight).collect())
            }
        };
        Self {
            top_k,
            ranked,
            rule,
        }
    }

    /// `[tokens, k]` distinct experts of every token, in slot order.
    pub(super) fn choose(&self, random: &mut ChaCha8Rng, tokens: usize) -> Vec<u32> {
        let mut chosen = Vec::with_capacity(tokens * self.top_k);
        let mut deck = Deck::default();
        let mut weights = Vec::new();
        for _ in 0..tokens {
            let hand = chosen.len();
            match &self.rule {
                Rule::Balanced => {
                    for _ in 0..self.top_k {
                        let card = deck.draw(random, &self.ranked, &chosen[hand..]);
                        chosen.push(card);
                    }
                }
                Rule::Zipf(by_rank) => {
                    weights.clone_from(by_rank);
                    for _ in 0..self.top_k {
                        let rank = draw_weighted(random, &weights);
                        weights[rank] = 0.0;
                        chosen.push(self.ranked[rank]);
                    }
                }
                Rule::Hot(share) => {
                    let (hot, others) = self.ranked.split_at(1);
                    // A token that takes every expert takes the hot one too.
                    if others.len() < self.top_k || unit(random) < *share {
                        chosen.push(hot[0]);
                    }
                    while chosen.len() < hand + self.top_k {
                        let card = deck.draw(random, others, &chosen[hand..]);
                        chosen.push(card);
                    }
                }
            }
        }
        chosen
    }

    /// Expected share of all choices that go to the first rank.
    pub(super) fn claimed_share(&self) -> f64 {
        let k = self.top_k as f64;
        let experts = self.ranked.len();
        let among_a_tokens_choices = match &self.rule {
            Rule::Balanced => k / experts as f64,
            Rule::Hot(_) if experts == self.top_k => 1.0,
            Rule::Hot(share) => *share,
            Rule::Zipf(weights) => first_is_drawn(weights, self.top_k),
        };
        among_a_tokens_choices / k
    }
}

/// Probability that the first item is among `k` draws without replacement.
///
/// Items whose exponential clocks (rates `weights`) ring first are such draws (Efraimidis and
/// Spirakis 2006), so the probability is that fewer than `k` others ring before the first item:
/// an integral over its ringing time, here over its distribution `u = 1 - exp(-w t)`.
fn first_is_drawn(weights: &[f32], k: usize) -> f64 {
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

/// Cards dealt from shuffled decks: every expert once before any comes twice, except that a card
/// that is in the hand already waits for the next hand.
#[derive(Debug, Default)]
struct Deck {
    cards: Vec<u32>,
}

// === impl Deck ===

impl Deck {
    /// A card that is not in `hand`; `all` has more cards than `hand`.
    fn draw(&mut self, random: &mut ChaCha8Rng, all: &[u32], hand: &[u32]) -> u32 {
        loop {
            let free = self.cards.iter().rposition(|card| !hand.contains(card));
            if let Some(at) = free {
                return self.cards.remove(at);
            }
            let mut fresh = all.to_vec();
            shuffle(random, &mut fresh);
            // Cards that wait stay on top.
            fresh.append(&mut self.cards);
            self.cards = fresh;
        }
    }
}

/// Fisher–Yates, written out: a library's shuffle may draw differently in its next version.
fn shuffle(random: &mut ChaCha8Rng, items: &mut [u32]) {
    for last in (1..items.len()).rev() {
        let other = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
        items.swap(last, other as usize);
    }
}

/// An index with probability proportional to its weight; not all weights are zero.
fn draw_weighted(random: &mut ChaCha8Rng, weights: &[f32]) -> usize {
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let mut left = unit(random) * total;
    let mut last = 0;
    for (at, weight) in weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0.0)
    {
        left -= f64::from(*weight);
        if left < 0.0 {
            return at;
        }
        // Rounding may leave a rest beyond the end, which is the last one's.
        last = at;
    }
    last
}

/// Uniform in [0, 1), 53 bits.
fn unit(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}
