//! The highest keys of a row, without a branch that depends on the keys' order.
//!
//! Keys of a random row are as good as unpredictable to a CPU, so a textbook insertion spends its
//! time on mispredicted branches. Here most keys fall to one threshold, and the few that pass go
//! through a chain of minimum and maximum.

/// Keys that are compared with the threshold at once; their answers are the bits of one word.
const WORD: usize = u64::BITS as usize;

/// Buffers of one selection.
#[derive(Debug, Clone, Default)]
pub(crate) struct TopScratch {
    /// Experts that pass the threshold.
    passed: Vec<u32>,
    /// Ranks of all experts, when a long selection is sorted.
    ranks: Vec<u64>,
}

/// Fills `experts` with the indices of the highest keys, highest first, ties to the lower index.
/// `experts` is no longer than `keys`, and no key is NaN.
pub(crate) fn top_k(keys: &[f32], experts: &mut [u32], scratch: &mut TopScratch) {
    match experts.len() {
        0..=8 => insert_highest::<8>(keys, experts, &mut scratch.passed),
        9..=16 => insert_highest::<16>(keys, experts, &mut scratch.passed),
        17..=32 => insert_highest::<32>(keys, experts, &mut scratch.passed),
        _ => sort_highest(keys, experts, &mut scratch.ranks),
    }
}

/// Selects up to `N` keys. `N` is a constant so that the slots live in registers.
fn insert_highest<const N: usize>(keys: &[f32], experts: &mut [u32], passed: &mut Vec<u32>) {
    collect_passed(keys, threshold::<N>(keys), passed);
    let mut slots = [0; N];
    for &expert in &*passed {
        let mut falling = rank(keys[expert as usize], expert);
        for slot in &mut slots {
            (*slot, falling) = (falling.max(*slot), falling.min(*slot));
        }
    }
    write_experts(&slots, experts);
}

fn sort_highest(keys: &[f32], experts: &mut [u32], ranks: &mut Vec<u64>) {
    let k = experts.len();
    ranks.clear();
    ranks.extend((0_u32..).zip(keys).map(|(expert, &key)| rank(key, expert)));
    if k < ranks.len() {
        ranks.select_nth_unstable_by(k, |a, b| b.cmp(a));
    }
    ranks[..k].sort_unstable_by(|a, b| b.cmp(a));
    write_experts(ranks, experts);
}

/// The experts of the first ranks.
fn write_experts(ranks: &[u64], experts: &mut [u32]) {
    for (expert, &rank) in experts.iter_mut().zip(ranks) {
        *expert = !(rank as u32);
    }
}

/// Lists the experts whose keys reach `threshold`, ascending.
fn collect_passed(keys: &[f32], threshold: f32, passed: &mut Vec<u32>) {
    passed.clear();
    let words = keys.chunks_exact(WORD);
    let rest = (0_u32..)
        .zip(keys)
        .skip(keys.len() - words.remainder().len());
    for (first, word) in (0_u32..).step_by(WORD).zip(words) {
        let mut bits = reach(word, threshold);
        while bits != 0 {
            passed.push(first + bits.trailing_zeros());
            bits &= bits - 1;
        }
    }
    passed.extend(
        rest.filter(|(_, key)| **key >= threshold)
            .map(|(expert, _)| expert),
    );
}

/// Which keys of a word reach `threshold`, the first in the lowest bit.
fn reach(word: &[f32], threshold: f32) -> u64 {
    let mut bits = 0;
    for keys in word.rchunks_exact(8) {
        let mut bytes = [0; 8];
        for (byte, key) in bytes.iter_mut().zip(keys) {
            *byte = u8::from(*key >= threshold);
        }
        // Multiplying gathers the eight bytes of 0 or 1 as the bits of the highest byte.
        let gathered = u64::from_le_bytes(bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        bits = bits << 8 | gathered;
    }
    bits
}

/// A key that at least `N` keys reach, if there are so many: each of the `N` columns of the row
/// has a highest key, and the lowest of these is it.
fn threshold<const N: usize>(keys: &[f32]) -> f32 {
    let mut highest = [f32::NEG_INFINITY; N];
    for chunk in keys.chunks_exact(N) {
        for (highest, &key) in highest.iter_mut().zip(chunk) {
            *highest = higher(*highest, key);
        }
    }
    highest
        .into_iter()
        .fold(f32::INFINITY, |a, b| if b < a { b } else { a })
}

/// One number that orders by key first, then by falling index; never 0.
fn rank(key: f32, expert: u32) -> u64 {
    // Adding 0 makes one key of -0 and 0. The bits of a positive float are ordered like it; those
    // of a negative one the other way round.
    let bits = (key + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    };
    u64::from(ordered) << 32 | u64::from(!expert)
}

/// The highest key and the one after it (which may be equal); `-inf` where there is none.
pub(super) fn two_highest(keys: &[f32]) -> (f32, f32) {
    const LANES: usize = 8;
    let mut first = [f32::NEG_INFINITY; LANES];
    let mut second = first;
    let chunks = keys.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            second[lane] = higher(second[lane], lower(first[lane], chunk[lane]));
            first[lane] = higher(first[lane], chunk[lane]);
        }
    }
    let lanes = first.into_iter().zip(second);
    let rest = rest.iter().map(|&key| (key, f32::NEG_INFINITY));
    lanes
        .chain(rest)
        .fold((f32::NEG_INFINITY, f32::NEG_INFINITY), |a, b| {
            (higher(a.0, b.0), higher(lower(a.0, b.0), higher(a.1, b.1)))
        })
}

/// The greater of two numbers that are not NaN, as one instruction.
fn higher(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

fn lower(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}
