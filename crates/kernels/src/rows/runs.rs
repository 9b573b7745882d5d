//! The best runs of neighbours in a row.

use super::lanes::{for_each_place, for_every_lanes};
use super::{higher, lower};

/// A row has at most this many runs.
pub const MAX_RUNS: usize = 16;

/// How the rows of [`keep_runs`] are cut into runs, and which of them stay.
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

/// Runs of a piece at most: none has fewer than 8 keys.
const PIECE_RUNS: usize = PIECE / 8;

for_every_lanes! {
    /// Ranks the runs of every row of `width` keys, and overwrites the keys of those that are not
    /// among the best; ties stay with the lower run. `kept` `[rows, n]` says which were.
    ///
    /// No key is NaN, and no two of a run add up to NaN.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit each other.
    pub fn keep_runs<L>(keys: &mut [f32], width: usize, runs: &Runs, kept: &mut [bool]) {
        let Runs { n, keep, by_two, .. } = *runs;
        assert!((1..=MAX_RUNS).contains(&n) && width.is_multiple_of(n), "{n} runs of {width} keys");
        let size = width / n;
        let plays = size.is_power_of_two() && (8..=64).contains(&size) && width <= PIECE;
        let rows = if plays { PIECE / width } else { 1 };
        for (keys, kept) in keys.chunks_mut(rows * width).zip(kept.chunks_mut(rows * n)) {
            let mut ranks = [f32::NEG_INFINITY; PIECE_RUNS];
            if plays {
                let (first, second) = tournament(keys, size);
                for ((rank, first), second) in ranks.iter_mut().zip(first).zip(second) {
                    *rank = if by_two { first + second } else { first };
                }
            } else {
                for (rank, run) in ranks.iter_mut().zip(keys.chunks_exact(size)) {
                    let (first, second) = two_highest(run);
                    *rank = if by_two { first + second } else { first };
                }
            }
            let rows = keys.chunks_exact_mut(width).zip(ranks.chunks_exact(n));
            for ((keys, ranks), kept) in rows.zip(kept.chunks_exact_mut(n)) {
                let mut padded = [f32::NEG_INFINITY; MAX_RUNS];
                padded[..n].copy_from_slice(ranks);
                let mut stays = L::count_higher(&padded).map(|higher| (higher as usize) < keep);
                if stays[..n].iter().filter(|stays| **stays).count() != keep {
                    // Equal ranks share a place; who comes first must be asked.
                    for_each_place::<L, MAX_RUNS>(&padded, |place, run| stays[run] = place < keep);
                }
                kept.copy_from_slice(&stays[..n]);
                overwrite(keys, size, kept, runs.fill);
            }
        }
    }
}

/// Overwrites the runs that are not kept. Which they are is as good as random, so that asking for
/// each would be a mispredicted branch for each.
#[inline(always)]
fn overwrite(keys: &mut [f32], size: usize, kept: &[bool], fill: f32) {
    for (run, &kept) in keys.chunks_exact_mut(size).zip(kept) {
        let mask = 0_u32.wrapping_sub(u32::from(kept));
        let fill = fill.to_bits() & !mask;
        let masked = |key: &mut f32| *key = f32::from_bits(key.to_bits() & mask | fill);
        let (lines, rest) = run.as_chunks_mut::<16>();
        for line in lines {
            line.iter_mut().for_each(masked);
        }
        rest.iter_mut().for_each(masked);
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
pub(super) use self::keep_runs::on as keep_runs_on;
