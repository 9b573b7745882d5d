//! The highest keys of a row.
//!
//! Most routers choose a few of a few hundred, which a kernel does for many rows at once. What is
//! here besides serves more choices or longer rows: most keys fall to one threshold, and the few
//! that pass go through a chain of minimum and maximum, or else all are sorted.

use expertmesh_kernels::rows::{MAX_HIGHEST, MAX_WIDTH, highest, rank};

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
/// `experts` is no longer than `keys` and not empty, and no key is NaN.
pub(crate) fn top_k(keys: &[f32], experts: &mut [u32], scratch: &mut TopScratch) {
    if experts.is_empty() {
        return;
    }
    top_k_rows(keys, keys.len(), experts.len(), experts, scratch);
}

/// Fills `experts` `[rows, k]` with the indices of the highest keys of every row of `width`, as
/// [`top_k`] does for one.
pub(crate) fn top_k_rows(
    keys: &[f32],
    width: usize,
    k: usize,
    experts: &mut [u32],
    scratch: &mut TopScratch,
) {
    if k <= MAX_HIGHEST && width <= MAX_WIDTH {
        return highest(keys, width, k, experts);
    }
    let TopScratch { passed, ranks } = scratch;
    for (keys, experts) in keys.chunks_exact(width).zip(experts.chunks_exact_mut(k)) {
        match k {
            ..=MAX_HIGHEST => insert_highest::<{ MAX_HIGHEST }>(keys, experts, passed),
            _ if k <= 32 => insert_highest::<32>(keys, experts, passed),
            _ => sort_highest(keys, experts, ranks),
        }
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

/// The greater of two numbers that are not NaN, as one instruction.
fn higher(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}
