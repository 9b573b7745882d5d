//! The highest keys of a row.
//!
//! The row is cut into columns: key `i` is in column `i % C`. Each column has a highest key, and the
//! k-th highest of these is a threshold that at least k keys reach, and with random keys few more:
//! 10.6 of 256 on average for k = 8 and 16 columns. Those few are listed, in ascending order, and
//! sorted by counting.

use std::hint::black_box;

use super::higher;
use super::lanes::{LANES, Lanes, for_each_place, for_every_lanes, reached_by};

/// [`highest`] selects at most this many keys of a row.
pub const MAX_HIGHEST: usize = 16;

/// The rows of [`highest`] have at most this many keys.
pub const MAX_WIDTH: usize = 1024;

/// Keys whose comparisons are the bits of one word.
const WORD: usize = u64::BITS as usize;

/// Keys that are listed at most; more of them (a row with many equal keys) go through a chain.
const LISTED: usize = 32;

for_every_lanes! {
    /// Fills `indices` `[rows, k]` with the indices of the `k` highest keys of every row of `width`
    /// keys, highest first, ties to the lower index. No key is NaN.
    ///
    /// # Panics
    ///
    /// If `width` is 0 or above [`MAX_WIDTH`], `k` is 0, above [`MAX_HIGHEST`] or above `width`, or
    /// the slices do not hold the same number of whole rows.
    pub fn highest<L>(keys: &[f32], width: usize, k: usize, indices: &mut [u32]) {
        assert!((1..=MAX_WIDTH).contains(&width), "rows of {width} keys");
        assert!((1..=MAX_HIGHEST.min(width)).contains(&k), "{k} of {width}");
        let rows = keys.len() / width;
        assert_eq!((rows * width, rows * k), (keys.len(), indices.len()), "rows");
        // The shapes of the steps below are constants, in words; shorter rows are padded.
        match (width.div_ceil(WORD), k) {
            (1, ..=8) => rows_of::<L, 1, 16>(keys, width, k, indices),
            (2, ..=8) => rows_of::<L, 2, 16>(keys, width, k, indices),
            (..=4, ..=8) => rows_of::<L, 4, 16>(keys, width, k, indices),
            (_, ..=8) => rows_of::<L, 16, 16>(keys, width, k, indices),
            (..=4, _) => rows_of::<L, 4, 32>(keys, width, k, indices),
            _ => rows_of::<L, 16, 32>(keys, width, k, indices),
        }
    }
}

/// [`highest`] for rows of at most `WORDS` words and at most `COLUMNS / 2` of a row: with fewer
/// columns the threshold would be lower, with more its search would take longer.
#[inline(always)]
fn rows_of<L: Lanes, const WORDS: usize, const COLUMNS: usize>(
    keys: &[f32],
    width: usize,
    k: usize,
    indices: &mut [u32],
) {
    let mut padded = [[f32::NEG_INFINITY; WORD]; WORDS];
    for (row, indices) in keys.chunks_exact(width).zip(indices.chunks_exact_mut(k)) {
        let row = row.as_chunks().0.first_chunk::<WORDS>().unwrap_or_else(|| {
            // What comes after the row loses every tie.
            padded.as_flattened_mut()[..width].copy_from_slice(row);
            &padded
        });
        select::<L, WORDS, COLUMNS>(row, indices);
    }
}

/// [`highest`] for one row.
#[inline(always)]
fn select<L: Lanes, const WORDS: usize, const COLUMNS: usize>(
    row: &[[f32; WORD]; WORDS],
    indices: &mut [u32],
) {
    let (chunks, _) = row.as_flattened().as_chunks::<LANES>();
    if COLUMNS == LANES && L::pick(chunks, indices) {
        return;
    }
    by_words::<L, WORDS, COLUMNS>(row, indices);
}

/// [`select`] for every instruction set and any keys.
#[inline(always)]
fn by_words<L: Lanes, const WORDS: usize, const COLUMNS: usize>(
    row: &[[f32; WORD]; WORDS],
    indices: &mut [u32],
) {
    let (chunks, _) = row.as_flattened().as_chunks::<LANES>();
    let threshold = if COLUMNS == LANES {
        reached_by::<L, LANES>(&L::columns(chunks), indices.len())
    } else {
        let mut columns = [f32::NEG_INFINITY; COLUMNS];
        for chunk in row.as_flattened().as_chunks::<COLUMNS>().0 {
            for (column, &key) in columns.iter_mut().zip(chunk) {
                *column = higher(*column, key);
            }
        }
        reached_by::<L, COLUMNS>(&columns, indices.len())
    };
    let mut passed = [0_u64; WORDS];
    let mut found = 0;
    for (bits, word) in passed.iter_mut().zip(row) {
        for (at, keys) in word.as_chunks::<LANES>().0.iter().enumerate() {
            *bits |= u64::from(L::reach(keys, threshold)) << (LANES * at);
        }
        // Or the compiler collects the words in a vector, bit by bit.
        *bits = black_box(*bits);
        found += bits.count_ones() as usize;
    }
    match found {
        ..=LANES => order::<L, WORDS, LANES>(row, &passed, found, indices),
        _ if found <= LISTED => order::<L, WORDS, LISTED>(row, &passed, found, indices),
        _ => chain(row.as_flattened(), &passed, indices),
    }
}

/// Orders the `found` keys that pass, at most `N`.
#[inline(always)]
fn order<L: Lanes, const WORDS: usize, const N: usize>(
    row: &[[f32; WORD]; WORDS],
    passed: &[u64; WORDS],
    found: usize,
    indices: &mut [u32],
) {
    let mut list = [0_u32; WORD];
    let mut chosen = [f32::NEG_INFINITY; WORD];
    let mut end = 0;
    for (at, &bits) in passed.iter().enumerate() {
        let mut bits = bits;
        let mut take = |bits: u64| {
            let bit = bits.trailing_zeros() as usize % WORD;
            list[end % WORD] = index(WORD * at + bit);
            chosen[end % WORD] = row[at][bit];
            end += usize::from(bits != 0);
            bits & bits.wrapping_sub(1)
        };
        // Most words have a few bits. Taking four without asking whether they are there spares a
        // mispredicted branch for most words; what was not there is overwritten.
        for _ in 0..4 {
            bits = take(bits);
        }
        while bits != 0 {
            bits = take(bits);
        }
    }
    let mut keys = [f32::NEG_INFINITY; N];
    for (at, (key, &chosen)) in keys.iter_mut().zip(&chosen).enumerate() {
        *key = if at < found { chosen } else { *key };
    }
    // Written from behind: of equal keys, which have one place, the first stays there.
    let mut ordered = [u32::MAX; N];
    let places = L::count_higher(&keys);
    for (&place, &index) in places.iter().zip(&list).rev() {
        ordered[place as usize % N] = index;
    }
    // And the places after it stay empty.
    if ordered[..indices.len()].contains(&u32::MAX) {
        for_each_place::<L, N>(&keys, |place, at| ordered[place % N] = list[at]);
    }
    indices.copy_from_slice(&ordered[..indices.len()]);
}

/// A row has at most [`MAX_WIDTH`] keys.
fn index(at: usize) -> u32 {
    at as u32
}

/// Orders any number of keys that pass: each falls through a chain of the highest so far.
#[inline(never)]
fn chain(keys: &[f32], words: &[u64], indices: &mut [u32]) {
    let mut slots = [0_u64; MAX_HIGHEST];
    for (first, &word) in (0_u32..).step_by(WORD).zip(words) {
        let mut bits = word;
        while bits != 0 {
            let index = first + bits.trailing_zeros();
            let mut falling = rank(keys[index as usize], index);
            for slot in &mut slots {
                (*slot, falling) = (falling.max(*slot), falling.min(*slot));
            }
            bits &= bits - 1;
        }
    }
    for (index, &rank) in indices.iter_mut().zip(&slots) {
        *index = !(rank as u32);
    }
}

/// One number that orders by key first, then by falling index; never 0. `key` is not NaN.
#[inline]
#[must_use]
pub fn rank(key: f32, index: u32) -> u64 {
    // Adding 0 makes one key of -0 and 0. The bits of a positive float are ordered like it; those
    // of a negative one the other way round.
    let bits = (key + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    };
    u64::from(ordered) << 32 | u64::from(!index)
}

#[cfg(test)]
pub(super) use self::highest::on as highest_on;
