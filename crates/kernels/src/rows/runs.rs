//! The best runs of neighbours in a row.

use super::highest::{MAX_HIGHEST, MAX_WIDTH, highest};
use super::lanes::{LANES, Lanes, Portable, TOGETHER, for_each_place, for_every_lanes};
use super::{higher, lower};

/// A row has at most this many runs.
pub const MAX_RUNS: usize = 16;

/// How the rows of [`highest_of_runs`] are cut into runs, and which of them stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Runs {
    /// Runs of a row, all of one length; 1 to [`MAX_RUNS`].
    pub n: usize,
    /// Runs that stay.
    pub keep: usize,
    /// Whether a run is ranked by the sum of its two highest keys or by its highest alone.
    pub by_two: bool,
    /// What the keys of the others become.
    pub fill: f32,
}

/// Keys that go through a tournament together: so many that its last rounds still fill registers.
const PIECE: usize = 1024;

/// Runs of a piece at most: none has fewer than 8 keys, or the piece is one row.
const PIECE_RUNS: usize = PIECE / 8;

for_every_lanes! {
    /// Ranks the runs of every row of `width` keys, and fills `indices` `[rows, k]` with the indices
    /// of the `k` highest keys after those of all but the best runs have become `fill`: highest
    /// first, ties to the lower run and the lower index. `kept` `[rows, n]` says which runs stayed.
    ///
    /// No key is NaN, and no two of a run add up to NaN.
    ///
    /// # Panics
    ///
    /// If `width` is above [`MAX_WIDTH`], `k` is 0, above [`MAX_HIGHEST`] or above `width`, or the
    /// shapes do not fit each other.
    pub fn highest_of_runs<L>(
        keys: &[f32],
        width: usize,
        k: usize,
        runs: &Runs,
        kept: &mut [bool],
        indices: &mut [u32],
    ) {
        let n = runs.n;
        assert!((1..=MAX_RUNS).contains(&n) && width.is_multiple_of(n), "{n} runs of {width} keys");
        assert!((1..=MAX_WIDTH).contains(&width), "rows of {width} keys");
        assert!((1..=MAX_HIGHEST.min(width)).contains(&k), "{k} of {width}");
        let rows = keys.len() / width;
        let shapes = (rows * width, rows * n, rows * k);
        assert_eq!(shapes, (keys.len(), kept.len(), indices.len()), "rows");
        match width / n {
            16 => of_lines::<L, 1>(keys, width, k, runs, kept, indices),
            32 => of_lines::<L, 2>(keys, width, k, runs, kept, indices),
            64 => of_lines::<L, 4>(keys, width, k, runs, kept, indices),
            _ => of_any::<L>(keys, width, k, runs, kept, indices),
        }
    }
}

/// [`highest_of_runs`] for runs of `LINES` lines.
#[inline(always)]
fn of_lines<L: Lanes, const LINES: usize>(
    keys: &[f32],
    width: usize,
    k: usize,
    runs: &Runs,
    kept: &mut [bool],
    indices: &mut [u32],
) {
    if !L::PICKS_OF_RUNS || runs.n > 8 || runs.keep >= runs.n {
        return of_any::<L>(keys, width, k, runs, kept, indices);
    }
    let (lines, _) = keys.as_chunks::<LANES>().0.as_chunks::<LINES>();
    let n = runs.n;
    let blocks = lines
        .chunks(TOGETHER * n)
        .zip(kept.chunks_mut(TOGETHER * n));
    for ((rows, kept), indices) in blocks.zip(indices.chunks_mut(TOGETHER * k)) {
        let answers = L::pick_of_runs(rows, runs, k, indices);
        let rows = rows.chunks_exact(n).zip(kept.chunks_exact_mut(n));
        let rows = rows.zip(indices.chunks_exact_mut(k));
        for (((row, kept), indices), answer) in rows.zip(answers) {
            if let Some(bits) = answer {
                let stays: [bool; 8] = std::array::from_fn(|run| bits >> run & 1 != 0);
                kept.copy_from_slice(&stays[..n]);
            } else {
                let row = row.as_flattened().as_flattened();
                equal_or_many(row, k, runs, kept, indices);
            }
        }
    }
}

/// One row with equal keys, or many that are nearly as high as the highest.
#[cold]
#[inline(never)]
fn equal_or_many(keys: &[f32], k: usize, runs: &Runs, kept: &mut [bool], indices: &mut [u32]) {
    of_any::<Portable>(keys, keys.len(), k, runs, kept, indices);
}

/// [`highest_of_runs`] for every instruction set and any keys.
#[inline(always)]
fn of_any<L: Lanes>(
    keys: &[f32],
    width: usize,
    k: usize,
    runs: &Runs,
    kept: &mut [bool],
    indices: &mut [u32],
) {
    let Runs {
        n,
        keep,
        by_two,
        fill,
    } = *runs;
    let size = width / n;
    let rank = |first: f32, second: f32| if by_two { first + second } else { first };
    let plays = size.is_power_of_two() && (8..=64).contains(&size);
    let rows = if plays { PIECE / width } else { 1 };
    let pieces = keys.chunks(rows * width).zip(kept.chunks_mut(rows * n));
    for ((keys, kept), indices) in pieces.zip(indices.chunks_mut(rows * k)) {
        let mut ranks = [f32::NEG_INFINITY; PIECE_RUNS];
        if plays {
            let (first, second) = tournament(keys, size);
            for ((to, first), second) in ranks.iter_mut().zip(first).zip(second) {
                *to = rank(first, second);
            }
        } else {
            for (to, run) in ranks.iter_mut().zip(keys.chunks_exact(size)) {
                let (first, second) = two_highest(run);
                *to = rank(first, second);
            }
        }
        let rows = keys.chunks_exact(width).zip(ranks.chunks_exact(n));
        let answers = kept.chunks_exact_mut(n).zip(indices.chunks_exact_mut(k));
        for ((keys, ranks), (kept, indices)) in rows.zip(answers) {
            keep_best::<L>(ranks, keep, kept);
            let mut filled = [fill; MAX_WIDTH];
            fill_others(keys, size, kept, &mut filled);
            highest(&filled[..width], width, k, indices);
        }
    }
}

/// Says which of a row's runs are among the `keep` best.
#[inline(always)]
fn keep_best<L: Lanes>(ranks: &[f32], keep: usize, kept: &mut [bool]) {
    let mut padded = [f32::NEG_INFINITY; MAX_RUNS];
    padded[..ranks.len()].copy_from_slice(ranks);
    let mut stays = L::count_higher(&padded).map(|higher| (higher as usize) < keep);
    if stays[..ranks.len()].iter().filter(|stays| **stays).count() != keep {
        // Equal ranks share a place; who comes first must be asked.
        for_each_place::<L, MAX_RUNS>(&padded, |place, run| stays[run] = place < keep);
    }
    kept.copy_from_slice(&stays[..ranks.len()]);
}

/// Puts the runs that are kept in the place of what fills the others. Which they are is as good as
/// random, so that asking for each would be a mispredicted branch for each.
#[inline(always)]
fn fill_others(keys: &[f32], size: usize, kept: &[bool], filled: &mut [f32; MAX_WIDTH]) {
    let runs = filled.chunks_exact_mut(size).zip(keys.chunks_exact(size));
    for ((to, run), &kept) in runs.zip(kept) {
        let mask = 0_u32.wrapping_sub(u32::from(kept));
        let masked = |(to, key): (&mut f32, &f32)| {
            *to = f32::from_bits(key.to_bits() & mask | to.to_bits() & !mask);
        };
        to.iter_mut().zip(run).for_each(masked);
    }
}

/// The highest and the second highest key of every run of 8, 16, 32 or 64 of at most [`PIECE`] keys.
///
/// All runs play at once: in each round neighbours meet, which keeps the first two of each pair.
/// The shapes are constants, so that a round is a few vector instructions.
#[inline(always)]
fn tournament(keys: &[f32], size: usize) -> ([f32; PIECE_RUNS], [f32; PIECE_RUNS]) {
    let mut padded = [0.0; PIECE];
    let keys = keys.first_chunk::<PIECE>().unwrap_or_else(|| {
        padded[..keys.len()].copy_from_slice(keys);
        &padded
    });
    let mut of_2 = Pairs::<512>::new();
    for at in 0..512 {
        let (a, b) = (keys[2 * at], keys[2 * at + 1]);
        of_2.first[at] = higher(a, b);
        of_2.second[at] = lower(a, b);
    }
    let of_4: Pairs<256> = of_2.round();
    let of_8: Pairs<128> = of_4.round();
    if size == 8 {
        return of_8.widened();
    }
    let of_16: Pairs<64> = of_8.round();
    if size == 16 {
        return of_16.widened();
    }
    let of_32: Pairs<32> = of_16.round();
    if size == 32 {
        return of_32.widened();
    }
    let of_64: Pairs<16> = of_32.round();
    of_64.widened()
}

/// The two highest keys of each of some neighbourhoods.
struct Pairs<const N: usize> {
    first: [f32; N],
    second: [f32; N],
}

impl<const N: usize> Pairs<N> {
    #[inline(always)]
    fn new() -> Self {
        Self {
            first: [0.0; N],
            second: [0.0; N],
        }
    }

    #[inline(always)]
    fn round<const HALF: usize>(&self) -> Pairs<HALF> {
        let mut best = Pairs::new();
        for at in 0..HALF {
            let (a, b) = (self.first[2 * at], self.first[2 * at + 1]);
            let (c, d) = (self.second[2 * at], self.second[2 * at + 1]);
            best.first[at] = higher(a, b);
            best.second[at] = higher(lower(a, b), higher(c, d));
        }
        best
    }

    #[inline(always)]
    fn widened(&self) -> ([f32; PIECE_RUNS], [f32; PIECE_RUNS]) {
        let mut wide = ([0.0; PIECE_RUNS], [0.0; PIECE_RUNS]);
        wide.0[..N].copy_from_slice(&self.first);
        wide.1[..N].copy_from_slice(&self.second);
        wide
    }
}

/// The highest key and the one after it (which may be equal); `-inf` where there is none. No key
/// is NaN.
#[inline]
#[must_use]
pub fn two_highest(keys: &[f32]) -> (f32, f32) {
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

#[cfg(test)]
pub(super) use self::highest_of_runs::on as highest_of_runs_on;
