//! Who is chosen: experts for every token of a step, by pattern.

use expertmesh_kernels::math;
use rand_chacha::ChaCha8Rng;

use crate::draw::{generator, shuffle, unit, weighted};
use crate::workload::heat::{BURST, Heat, MOVING, set_size};
use crate::workload::locality::Locality;
use crate::workload::pattern::Pattern;
use crate::workload::ranks::Ranks;

/// The stream that ranks experts; steps count up from 0 and warm-up down from the end, so neither
/// comes here.
const RANKS: u64 = 1 << 63;

/// Draws choices.
#[derive(Debug, Clone)]
pub(super) struct Chooser {
    pub(super) top_k: usize,
    pub(super) rule: Rule,
}

/// Experts by rank are in a seeded order, so that the hottest is not always on the first worker.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    /// These experts alike, the others never.
    Balanced(Vec<u32>),
    /// Experts by rank, the hottest first, and the weight of each rank.
    Zipf(Vec<u32>, Vec<f32>),
    /// Experts of which the first is hot, and the share of tokens that choose it.
    Hot(Vec<u32>, f64),
    Heat(Heat),
    /// The heat in the last of so many steps, balanced in the others.
    Burst(Heat, u64),
    Locality(Locality),
}

// === impl Chooser ===

impl Chooser {
    /// A chooser for `experts` of which each token takes `top_k`, which is in `1..=experts`.
    /// [`Pattern::Normal`] is taken for balanced.
    pub(super) fn new(
        pattern: Pattern,
        experts: usize,
        top_k: usize,
        ranks: &Ranks,
        seed: u64,
    ) -> Self {
        let indices = 0..u32::try_from(experts).unwrap_or(u32::MAX);
        let mut ranked: Vec<u32> = indices.clone().collect();
        shuffle(&mut generator(seed, RANKS), &mut ranked);
        // A seeded expert to begin with, and the rank that it decides on.
        let start = ranked.first().map_or(0, |&expert| expert as usize);
        let size = set_size(experts, top_k);
        let heat = |order: Vec<u32>, places: Vec<usize>, share, steps| Heat {
            top_k,
            order,
            places,
            size,
            share,
            steps,
            jumps: false,
            name: "hot set".to_owned(),
        };
        let in_order = || indices.clone().collect::<Vec<u32>>();
        let rule = match pattern {
            Pattern::Balanced | Pattern::Normal | Pattern::SourceRagged => Rule::Balanced(ranked),
            Pattern::Hot { share } => Rule::Hot(ranked, share),
            Pattern::Zipf { exponent } => {
                let weight = |rank: usize| math::exp(-(exponent as f32) * math::log(rank as f32));
                Rule::Zipf(ranked, (1..=experts).map(weight).collect())
            }
            Pattern::HotExperts { share } => {
                // All neighbours: the set does not go round the end.
                let place = start % (experts - size + 1);
                Rule::Heat(heat(in_order(), vec![place], share, 0))
            }
            Pattern::SpreadHot { share } => {
                let mut order = in_order();
                order.rotate_left(start);
                let (hot, rest): (Vec<_>, Vec<_>) =
                    (0..experts).partition(|at| (0..size).any(|nth| nth * experts / size == *at));
                let order = hot.into_iter().chain(rest).map(|at| order[at]).collect();
                Rule::Heat(heat(order, vec![0], share, 0))
            }
            Pattern::HotRank { share } => {
                let rank = start % ranks.count();
                let hot = ranks.experts_of(rank);
                Rule::Heat(Heat {
                    places: vec![hot.first().map_or(0, |&first| first as usize)],
                    size: hot.len(),
                    name: format!("experts of rank {rank}"),
                    ..heat(in_order(), Vec::new(), share, 0)
                })
            }
            Pattern::ZeroExpertRank => {
                let idle = ranks.experts_of(start % ranks.count());
                ranked.retain(|expert| !idle.contains(expert));
                Rule::Balanced(ranked)
            }
            Pattern::RotatingHotspot { steps } => {
                let phases = experts.div_ceil(size);
                let place = |phase| (start + phase * experts / phases) % experts;
                let places = (0..phases).map(place).collect();
                Rule::Heat(Heat {
                    jumps: phases > 1,
                    ..heat(in_order(), places, MOVING, steps)
                })
            }
            Pattern::Burst { steps } => {
                let place = start % (experts - size + 1);
                Rule::Burst(heat(in_order(), vec![place], BURST, 0), steps)
            }
            Pattern::Drift { steps } => {
                Rule::Heat(heat(ranked, (0..experts).collect(), MOVING, steps))
            }
            Pattern::Locality { probability } => {
                Rule::Locality(Locality::new(experts, top_k, probability))
            }
        };
        Self { top_k, rule }
    }

    /// `[tokens, k]` distinct experts of every token, in slot order.
    pub(super) fn choose(&self, random: &mut ChaCha8Rng, step: u64, tokens: usize) -> Vec<u32> {
        let mut chosen = Vec::with_capacity(tokens * self.top_k);
        match &self.rule {
            Rule::Balanced(experts) => self.deal(random, experts, tokens, &mut chosen),
            Rule::Zipf(ranked, by_rank) => {
                let mut weights = Vec::new();
                for _ in 0..tokens {
                    weights.clone_from(by_rank);
                    for _ in 0..self.top_k {
                        let rank = weighted(random, &weights);
                        weights[rank] = 0.0;
                        chosen.push(ranked[rank]);
                    }
                }
            }
            Rule::Hot(ranked, share) => {
                let mut deck = Deck::default();
                let (hot, others) = ranked.split_at(1);
                for _ in 0..tokens {
                    let hand = chosen.len();
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
            Rule::Heat(heat) => heat.choose(random, step, tokens, &mut chosen),
            Rule::Burst(heat, steps) => match is_burst(step, *steps) {
                true => heat.choose(random, step, tokens, &mut chosen),
                false => self.deal(random, &heat.order, tokens, &mut chosen),
            },
            Rule::Locality(locality) => locality.choose(random, tokens, &mut chosen),
        }
        chosen
    }

    /// Gives every one of `experts` as many tokens.
    fn deal(&self, random: &mut ChaCha8Rng, experts: &[u32], tokens: usize, to: &mut Vec<u32>) {
        let mut deck = Deck::default();
        for _ in 0..tokens {
            let hand = to.len();
            for _ in 0..self.top_k {
                let card = deck.draw(random, experts, &to[hand..]);
                to.push(card);
            }
        }
    }
}

/// Whether `step` is the last of its `steps`.
pub(super) fn is_burst(step: u64, steps: u64) -> bool {
    step % steps == steps - 1
}

/// Cards dealt from shuffled decks: every expert once before any comes twice, except that a card
/// that is in the hand already waits for the next hand. So loads of a step differ by at most two:
/// a deck never holds a card more than twice.
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
