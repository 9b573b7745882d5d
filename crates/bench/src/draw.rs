//! Seeded draws, written out: a library's may draw differently in its next version.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Weights are drawn from streams of the same seed; inputs must not repeat them.
const DOMAIN: u64 = 0x776f_726b_6c6f_6164;

/// The generator of one step.
pub(crate) fn generator(seed: u64, step: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ DOMAIN);
    random.set_stream(step);
    random
}

/// Fisher–Yates.
pub(crate) fn shuffle(random: &mut ChaCha8Rng, items: &mut [u32]) {
    for last in (1..items.len()).rev() {
        let other = below(random, last as u64 + 1);
        items.swap(last, other as usize);
    }
}

/// Uniform in `0..end`, up to a part in 2^64 / `end`.
pub(crate) fn below(random: &mut ChaCha8Rng, end: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(end)) >> 64) as u64
}

/// Uniform in [0, 1), 53 bits.
pub(crate) fn unit(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// An index with probability proportional to its weight; not all weights are zero.
pub(crate) fn weighted(random: &mut ChaCha8Rng, weights: &[f32]) -> usize {
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

/// Appends distinct items to `chosen`, item `i` with probability `lengths[i] / period`.
///
/// Madow's systematic sampling (1949): lay the items, in random order, end to end on a line and
/// take what lies under points that are a period apart, the first at random. No item is longer
/// than the period, so none is taken twice, and together they are k periods long, so k are taken.
/// The probabilities are exact, which drawing one after the other without replacement cannot give.
///
/// `order` names every item; it is shuffled, so that which items go together is random too.
pub(crate) fn systematic(
    random: &mut ChaCha8Rng,
    order: &mut [u32],
    lengths: &[u64],
    period: u64,
    chosen: &mut Vec<u32>,
) {
    shuffle(random, order);
    let mut point = u128::from(below(random, period));
    let mut end = 0;
    for &item in order.iter() {
        end += u128::from(lengths[item as usize]);
        if point < end {
            chosen.push(item);
            point += u128::from(period);
        }
    }
}
