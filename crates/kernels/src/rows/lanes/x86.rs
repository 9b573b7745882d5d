//! The comparisons of AVX-512 and AVX2.
#![allow(unsafe_code, reason = "vector loads and CPU features")]

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GE_OQ, _CMP_GT_OQ, _mm256_cmp_ps, _mm256_loadu_ps, _mm256_movemask_ps,
    _mm256_set1_ps, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_cmplt_epu32_mask, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mask_add_epi32, _mm512_mask_compress_ps,
    _mm512_mask_i32scatter_epi32, _mm512_mask_permutexvar_ps, _mm512_mask_reduce_add_epi32,
    _mm512_mask_reduce_min_ps, _mm512_maskz_compress_epi32, _mm512_max_ps, _mm512_min_ps,
    _mm512_permute_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_si512,
    _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_storeu_ps, _mm512_storeu_si512,
};

use std::hint::black_box;

use super::{LANES, Lanes, TOGETHER};
use crate::rows::{MAX_WIDTH, Runs};

/// Named by functions alone that `for_every_lanes` compiles for AVX-512.
pub(in crate::rows) struct Avx512;
/// Named by functions alone that `for_every_lanes` compiles for AVX2.
pub(in crate::rows) struct Avx2;

impl Lanes for Avx512 {
    #[inline(always)]
    fn reach(keys: &[f32; LANES], other: f32) -> u16 {
        // SAFETY: who names this type was compiled for AVX-512F.
        unsafe { compare_16::<_CMP_GE_OQ>(keys, other) }
    }

    #[inline(always)]
    fn exceed(keys: &[f32; LANES], other: f32) -> u16 {
        // SAFETY: as above.
        unsafe { compare_16::<_CMP_GT_OQ>(keys, other) }
    }

    #[inline(always)]
    fn columns(row: &[[f32; LANES]]) -> [f32; LANES] {
        // SAFETY: as above.
        unsafe { columns_16(row) }
    }

    #[inline(always)]
    fn pick(row: &[[f32; LANES]], indices: &mut [u32]) -> bool {
        // SAFETY: as above.
        unsafe { pick_16(row, indices) }
    }

    const PICKS_OF_RUNS: bool = true;

    #[inline(always)]
    fn pick_of_runs<const LINES: usize>(
        rows: &[[[f32; LANES]; LINES]],
        runs: &Runs,
        k: usize,
        indices: &mut [u32],
    ) -> [Option<u8>; TOGETHER] {
        // SAFETY: as above.
        unsafe { pick_of_8_runs(rows, runs, k, indices) }
    }

    #[inline(always)]
    fn count_higher<const N: usize>(keys: &[f32; N]) -> [u32; N] {
        // SAFETY: as above.
        unsafe { count_higher_16(keys) }
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn reach(keys: &[f32; LANES], other: f32) -> u16 {
        // SAFETY: who names this type was compiled for AVX2.
        unsafe { compare_twice_8::<_CMP_GE_OQ>(keys, other) }
    }

    #[inline(always)]
    fn exceed(keys: &[f32; LANES], other: f32) -> u16 {
        // SAFETY: as above.
        unsafe { compare_twice_8::<_CMP_GT_OQ>(keys, other) }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn compare_16<const HOW: i32>(keys: &[f32; LANES], other: f32) -> u16 {
    _mm512_cmp_ps_mask::<HOW>(loaded(keys), _mm512_set1_ps(other))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn columns_16(row: &[[f32; LANES]]) -> [f32; LANES] {
    stored(highest_of_columns(row))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn highest_of_columns(row: &[[f32; LANES]]) -> __m512 {
    // Two chains, because each maximum waits for the one before it.
    let mut highest = [_mm512_set1_ps(f32::NEG_INFINITY); 2];
    let (pairs, last) = row.as_chunks::<2>();
    for pair in pairs {
        for (highest, keys) in highest.iter_mut().zip(pair) {
            *highest = _mm512_max_ps(*highest, loaded(keys));
        }
    }
    for keys in last {
        highest[0] = _mm512_max_ps(highest[0], loaded(keys));
    }
    _mm512_max_ps(highest[0], highest[1])
}

#[target_feature(enable = "avx512f")]
#[inline]
fn count_higher_16<const N: usize>(keys: &[f32; N]) -> [u32; N] {
    // From memory a key is broadcast by its load; the compiler would spare the load, and spend
    // two shuffles instead.
    let keys = black_box(keys);
    let mut counts = [0; N];
    let (chunks, _) = keys.as_chunks::<LANES>();
    for (counts, chunk) in counts.as_chunks_mut::<LANES>().0.iter_mut().zip(chunks) {
        let higher = higher_than(loaded(chunk), keys);
        // SAFETY: an array of 16 words is as long as the store.
        unsafe { _mm512_storeu_si512(counts.as_mut_ptr().cast(), higher) };
    }
    counts
}

/// For every lane of `than` the number of `keys` that are higher.
#[target_feature(enable = "avx512f")]
#[inline]
fn higher_than(than: __m512, keys: &[f32]) -> __m512i {
    let mut higher = _mm512_setzero_si512();
    // A constant would be made of the mask, at the price of an instruction.
    let one = black_box(_mm512_set1_epi32(1));
    for &key in keys {
        let mask = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(_mm512_set1_ps(key), than);
        higher = _mm512_mask_add_epi32(higher, mask, higher, one);
    }
    higher
}

/// The indices of the keys of a row, line by line: a load spares the CPU two additions.
static INDICES: Indices = Indices::new();

#[repr(align(64))]
struct Indices([[u32; LANES]; MAX_WIDTH / LANES]);

/// Keys that reach a threshold, side by side, and their indices. After them come keys of `-inf`, and
/// at last what was written before.
#[derive(Clone, Copy)]
struct Few {
    keys: [f32; 2 * LANES],
    indices: [u32; 2 * LANES],
    /// More than [`LANES`] where not all are here.
    found: usize,
}

/// [`Lanes::pick`]
#[target_feature(enable = "avx512f,popcnt")]
#[inline]
fn pick_16(row: &[[f32; LANES]], indices: &mut [u32]) -> bool {
    if indices.len() > LANES {
        return false;
    }
    let threshold = reached_by(highest_of_columns(row), indices.len());
    let mut few = Few::default();
    few.gather(row.as_chunks::<1>().0, 0..row.len(), threshold);
    few.order(indices)
}

/// [`Lanes::pick_of_runs`]: each step is made for all rows before the next, or a row would spend its
/// time waiting for its own results.
#[target_feature(enable = "avx512f,popcnt,bmi1")]
#[inline]
fn pick_of_8_runs<const LINES: usize>(
    rows: &[[[f32; LANES]; LINES]],
    runs: &Runs,
    k: usize,
    indices: &mut [u32],
) -> [Option<u8>; TOGETHER] {
    let (n, keep) = (runs.n, runs.keep);
    let mut answers = [None; TOGETHER];
    if n > 8 || keep > n || keep * LINES < 2 || k > LANES {
        return answers;
    }
    let rows = || rows.chunks_exact(n);
    let mut kept = [0_u8; TOGETHER];
    for (kept, row) in kept.iter_mut().zip(rows()) {
        let best = two_highest_of_8(row);
        let ranks = if runs.by_two {
            _mm512_add_ps(best.first, best.second)
        } else {
            best.first
        };
        let higher = higher_than(ranks, &black_box(&stored(ranks))[..8]);
        *kept = (below(higher, keep) & ((1 << n) - 1)) as u8;
    }
    let mut places = [[0_usize; 8]; TOGETHER];
    let mut thresholds = [0.0; TOGETHER];
    for (at, row) in rows().take(TOGETHER).enumerate() {
        let mut bits = u32::from(kept[at]);
        for place in &mut places[at][..keep] {
            // 32, if equal ranks share a place and there are too few: any run will do.
            *place = (bits.trailing_zeros() as usize).min(n - 1);
            bits &= bits.wrapping_sub(1);
        }
        let mut columns = [_mm512_set1_ps(f32::NEG_INFINITY); LINES];
        for &run in &places[at][..keep] {
            for (column, line) in columns.iter_mut().zip(&row[run]) {
                *column = _mm512_max_ps(*column, loaded(line));
            }
        }
        let none = _mm512_set1_ps(f32::NEG_INFINITY);
        let columns = columns.into_iter().fold(none, |a, b| _mm512_max_ps(a, b));
        thresholds[at] = reached_by(columns, k);
    }
    let mut few = [Few::default(); TOGETHER];
    for (at, row) in rows().take(TOGETHER).enumerate() {
        few[at].gather(row, places[at][..keep].iter().copied(), thresholds[at]);
    }
    for (at, indices) in indices.chunks_exact_mut(k).take(TOGETHER).enumerate() {
        let ordered = few[at].order(indices);
        // Equal ranks share a place; and keys that are filled may be among the highest.
        let alone = kept[at].count_ones() as usize == keep && thresholds[at] > runs.fill;
        answers[at] = (ordered && alone).then_some(kept[at]);
    }
    answers
}

impl Indices {
    const fn new() -> Self {
        let mut lines = [[0; LANES]; MAX_WIDTH / LANES];
        let mut at = 0;
        while at < MAX_WIDTH {
            lines[at / LANES][at % LANES] = at as u32;
            at += 1;
        }
        Self(lines)
    }
}

impl Default for Few {
    fn default() -> Self {
        Self {
            keys: [0.0; 2 * LANES],
            indices: [0; 2 * LANES],
            found: 0,
        }
    }
}

impl Few {
    /// Takes the keys of `runs` of `row` that reach `threshold`.
    #[target_feature(enable = "avx512f,popcnt")]
    #[inline]
    fn gather<const LINES: usize>(
        &mut self,
        row: &[[[f32; LANES]; LINES]],
        runs: impl Iterator<Item = usize>,
        threshold: f32,
    ) {
        let threshold = _mm512_set1_ps(threshold);
        let none = _mm512_set1_ps(f32::NEG_INFINITY);
        let mut found = 0;
        for run in runs {
            for (line, at) in row[run].iter().zip(run * LINES..) {
                let line = loaded(line);
                let passed = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(line, threshold);
                // SAFETY: a line of the table is as long as the load; `found` is at most 16, and
                // the arrays have 16 elements from there. What is too much is overwritten by the
                // next line.
                unsafe {
                    let index = &INDICES.0[at % INDICES.0.len()];
                    let index = _mm512_loadu_si512(index.as_ptr().cast());
                    let keys = self.keys.as_mut_ptr().add(found);
                    _mm512_storeu_ps(keys, _mm512_mask_compress_ps(none, passed, line));
                    let indices = self.indices.as_mut_ptr().add(found).cast();
                    _mm512_storeu_si512(indices, _mm512_maskz_compress_epi32(passed, index));
                }
                found += passed.count_ones() as usize;
                if found > LANES {
                    self.found = found;
                    return;
                }
            }
        }
        self.found = found;
    }

    /// Writes the indices of the highest keys, or returns false where it cannot.
    #[target_feature(enable = "avx512f,popcnt")]
    #[inline]
    fn order(&self, indices: &mut [u32]) -> bool {
        let k = indices.len();
        // Of a known number of comparisons the compiler would make all at once, and run out of
        // masks.
        let keys = black_box(&self.keys[..LANES]);
        // SAFETY: half of the array is as long as the load.
        let together = unsafe { _mm512_loadu_ps(keys.as_ptr()) };
        let ranks = higher_than(together, keys);
        let first = below(ranks, k);
        // Equal keys have one rank, and leave the places after it empty: then either more than k
        // ranks are below k, or their sum is less.
        let sum = _mm512_mask_reduce_add_epi32(first, ranks);
        let places = word(k * (k - 1) / 2);
        if self.found > LANES || first.count_ones() as usize != k || sum != places {
            return false;
        }
        // SAFETY: the array is longer than the load; ranks of the mask are below k, the length.
        unsafe {
            let from = _mm512_loadu_si512(self.indices.as_ptr().cast());
            _mm512_mask_i32scatter_epi32::<4>(indices.as_mut_ptr().cast(), first, ranks, from);
        }
        true
    }
}

/// Of 16 `keys` the k-th highest: the lowest of those that fewer than k are higher than.
#[target_feature(enable = "avx512f")]
#[inline]
fn reached_by(keys: __m512, k: usize) -> f32 {
    let higher = higher_than(keys, black_box(&stored(keys)));
    _mm512_mask_reduce_min_ps(below(higher, k), keys)
}

/// Which of `ranks` are below `k`, at most 16.
#[target_feature(enable = "avx512f")]
#[inline]
fn below(ranks: __m512i, k: usize) -> u16 {
    _mm512_cmplt_epu32_mask(ranks, _mm512_set1_epi32(word(k)))
}

/// The highest and the second highest key of each of 8 neighbourhoods, in some of the lanes.
#[derive(Clone, Copy)]
struct Best {
    first: __m512,
    second: __m512,
}

/// The two highest keys of each run, in the lanes of their order; `-inf` past the last run. The lanes
/// of a run are folded into half as many, three times together with those of another run, so that
/// registers stay full.
#[target_feature(enable = "avx512f")]
#[inline]
fn two_highest_of_8<const LINES: usize>(runs: &[[[f32; LANES]; LINES]]) -> Best {
    let none = _mm512_set1_ps(f32::NEG_INFINITY);
    let none_yet = Best {
        first: none,
        second: none,
    };
    // The usual number is a constant, so that everything stays in registers.
    let best = match runs.first_chunk::<8>() {
        Some(runs) => runs.each_ref().map(|run| two_highest_of_lanes(run)),
        None => {
            let mut best = [none_yet; 8];
            for (best, run) in best.iter_mut().zip(runs) {
                *best = two_highest_of_lanes(run);
            }
            best
        }
    };
    let [a, b, c, d, e, f, g, h] = best;
    let [ab, cd, ef, gh] = [[a, b], [c, d], [e, f], [g, h]].map(|[a, b]| {
        let (low, high) = (split::<0x44>(a, b), split::<0xee>(a, b));
        met(low, high)
    });
    let [abcd, efgh] = [[ab, cd], [ef, gh]].map(|[a, b]| {
        let (even, odd) = (split::<0x88>(a, b), split::<0xdd>(a, b));
        met(even, odd)
    });
    let pairs = met(
        split_fours::<0x44>(abcd, efgh),
        split_fours::<0xee>(abcd, efgh),
    );
    let swapped = Best {
        first: _mm512_permute_ps::<0xb1>(pairs.first),
        second: _mm512_permute_ps::<0xb1>(pairs.second),
    };
    let one = met(pairs, swapped);
    // Every four lanes are two of one of the first four runs and two of one of the others.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    Best {
        first: _mm512_mask_permutexvar_ps(none, 0xff, order, one.first),
        second: _mm512_mask_permutexvar_ps(none, 0xff, order, one.second),
    }
}

/// The two highest keys of a run in each lane.
#[target_feature(enable = "avx512f")]
#[inline]
fn two_highest_of_lanes<const LINES: usize>(run: &[[f32; LANES]; LINES]) -> Best {
    let mut best = Best {
        first: loaded(&run[0]),
        second: _mm512_set1_ps(f32::NEG_INFINITY),
    };
    for (at, line) in run.iter().enumerate().skip(1) {
        let line = loaded(line);
        let loser = _mm512_min_ps(best.first, line);
        best.second = match at {
            1 => loser,
            _ => _mm512_max_ps(best.second, loser),
        };
        best.first = _mm512_max_ps(best.first, line);
    }
    best
}

/// The two highest of two neighbourhoods, lane by lane.
#[target_feature(enable = "avx512f")]
#[inline]
fn met(a: Best, b: Best) -> Best {
    let loser = _mm512_min_ps(a.first, b.first);
    Best {
        first: _mm512_max_ps(a.first, b.first),
        second: _mm512_max_ps(loser, _mm512_max_ps(a.second, b.second)),
    }
}

/// Quarters of `a`, then of `b`.
#[target_feature(enable = "avx512f")]
#[inline]
fn split<const WHICH: i32>(a: Best, b: Best) -> Best {
    Best {
        first: _mm512_shuffle_f32x4::<WHICH>(a.first, b.first),
        second: _mm512_shuffle_f32x4::<WHICH>(a.second, b.second),
    }
}

/// Of every quarter two lanes of `a`, then two of `b`.
#[target_feature(enable = "avx512f")]
#[inline]
fn split_fours<const WHICH: i32>(a: Best, b: Best) -> Best {
    Best {
        first: _mm512_shuffle_ps::<WHICH>(a.first, b.first),
        second: _mm512_shuffle_ps::<WHICH>(a.second, b.second),
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn loaded(keys: &[f32; LANES]) -> __m512 {
    // SAFETY: an array of 16 floats is as long as the load.
    unsafe { _mm512_loadu_ps(keys.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn stored(keys: __m512) -> [f32; LANES] {
    let mut array = [0.0; LANES];
    // SAFETY: an array of 16 floats is as long as the store.
    unsafe { _mm512_storeu_ps(array.as_mut_ptr(), keys) };
    array
}

#[target_feature(enable = "avx2")]
#[inline]
fn compare_twice_8<const HOW: i32>(keys: &[f32; LANES], other: f32) -> u16 {
    let other = _mm256_set1_ps(other);
    let mut bits = 0_u32;
    for (at, half) in keys.as_chunks::<8>().0.iter().enumerate() {
        // SAFETY: an array of 8 floats is as long as the load.
        let half = unsafe { _mm256_loadu_ps(half.as_ptr()) };
        let mask = _mm256_movemask_ps(_mm256_cmp_ps::<HOW>(half, other));
        bits |= mask.cast_unsigned() << (8 * at);
    }
    bits as u16
}

/// An index or a count of a row's keys.
fn word(value: usize) -> i32 {
    (value as u32).cast_signed()
}
