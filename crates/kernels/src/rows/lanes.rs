//! Comparisons of sixteen keys with one, whose answers are bits.
//!
//! Plain Rust has no word for it, and what compilers make of a loop is many times slower; so each
//! instruction set has its own, and the kernels around them are generic.

use super::{Runs, higher};

/// Keys that are compared by one call.
pub(super) const LANES: usize = 16;

/// Rows that go through [`Lanes::pick_of_runs`] together.
pub(super) const TOGETHER: usize = 8;

/// The comparisons of one instruction set. No key is NaN.
pub(super) trait Lanes {
    /// Which keys are `other` or higher, the first in the lowest bit.
    fn reach(keys: &[f32; LANES], other: f32) -> u16;

    /// Which keys are higher than `other`.
    fn exceed(keys: &[f32; LANES], other: f32) -> u16;

    /// The highest key of each of 16 columns: key `i` of a row is in column `i % 16`.
    #[inline(always)]
    fn columns(row: &[[f32; LANES]]) -> [f32; LANES] {
        let mut columns = [f32::NEG_INFINITY; LANES];
        for chunk in row {
            for (column, &key) in columns.iter_mut().zip(chunk) {
                *column = higher(*column, key);
            }
        }
        columns
    }

    /// The first `indices.len()` places of the order of `row`'s keys, the highest first, if they are
    /// soon found: no two of them equal, and few other keys that come close. Else false.
    #[inline(always)]
    fn pick(row: &[[f32; LANES]], indices: &mut [u32]) -> bool {
        let _ = (row, indices);
        false
    }

    /// Whether [`pick_of_runs`](Self::pick_of_runs) ever finds an answer.
    const PICKS_OF_RUNS: bool = false;

    /// As [`pick`](Self::pick) for at most [`TOGETHER`] rows and the best of their runs of `LINES`
    /// lines, as [`highest_of_runs`](super::highest_of_runs) finds them: of every row that has its
    /// answer the bits of the runs that stay.
    #[inline(always)]
    fn pick_of_runs<const LINES: usize>(
        rows: &[[[f32; LANES]; LINES]],
        runs: &Runs,
        k: usize,
        indices: &mut [u32],
    ) -> [Option<u8>; TOGETHER] {
        let _ = (rows, runs, k, indices);
        [None; TOGETHER]
    }

    /// For every key the number of `keys` that are higher, `N` being 16 or 32.
    #[inline(always)]
    fn count_higher<const N: usize>(keys: &[f32; N]) -> [u32; N] {
        let (chunks, _) = keys.as_chunks::<LANES>();
        keys.map(|key| {
            let bits = |chunk| Self::exceed(chunk, key).count_ones();
            chunks.iter().map(bits).sum()
        })
    }
}

/// What the target's baseline has.
pub(super) struct Portable;

/// A key that at least `k` of `keys` reach, `k` being 1 to `N`.
#[inline(always)]
pub(super) fn reached_by<L: Lanes, const N: usize>(keys: &[f32; N], k: usize) -> f32 {
    let mut ordered = [f32::NAN; N];
    for (&key, higher) in keys.iter().zip(L::count_higher(keys)) {
        ordered[higher as usize % N] = key;
    }
    // Equal keys have one place, and leave those after it empty.
    let places = ordered[..k].iter().rev();
    places
        .copied()
        .find(|key| !key.is_nan())
        .unwrap_or(f32::NEG_INFINITY)
}

/// Where every key stands when the highest comes first and equal keys stay in their order: calls
/// `put(place, index)` for each. The places are `0..N`, each once; `N` is 16 or 32.
#[inline(always)]
pub(super) fn for_each_place<L: Lanes, const N: usize>(
    keys: &[f32; N],
    mut put: impl FnMut(usize, usize),
) {
    let (chunks, _) = keys.as_chunks::<LANES>();
    for (index, &key) in keys.iter().enumerate() {
        let (mut reach, mut exceed) = (0, 0);
        for (at, chunk) in chunks.iter().enumerate() {
            reach |= u32::from(L::reach(chunk, key)) << (LANES * at);
            exceed |= u32::from(L::exceed(chunk, key)) << (LANES * at);
        }
        // An equal key stands before this one if its index is lower.
        let lower = (1 << index) - 1;
        let before = reach & lower | exceed & !lower;
        put(before.count_ones() as usize, index);
    }
}

// === impl Portable ===

impl Lanes for Portable {
    #[inline(always)]
    fn reach(keys: &[f32; LANES], other: f32) -> u16 {
        bits(keys, |key| key >= other)
    }

    #[inline(always)]
    fn exceed(keys: &[f32; LANES], other: f32) -> u16 {
        bits(keys, |key| key > other)
    }
}

#[inline(always)]
fn bits(keys: &[f32; LANES], is: impl Fn(f32) -> bool) -> u16 {
    let mut bits = 0;
    for keys in keys.rchunks_exact(8) {
        let mut bytes = [0; 8];
        for (byte, key) in bytes.iter_mut().zip(keys) {
            *byte = u8::from(is(*key));
        }
        // Multiplying gathers the eight bytes of 0 or 1 as the bits of the highest byte.
        let gathered = u64::from_le_bytes(bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        bits = bits << 8 | gathered as u16;
    }
    bits
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

/// As `for_every_isa`, for a body that is generic over its [`Lanes`].
macro_rules! for_every_lanes {
    (
        $(#[$attribute:meta])*
        pub fn $name:ident<$lanes:ident>($($argument:ident: $type:ty),* $(,)?) $body:block
    ) => {
        $(#[$attribute])*
        pub fn $name($($argument: $type),*) {
            $name::on($crate::isa::Isa::best(), $($argument),*);
        }

        #[allow(unsafe_code, reason = "calls into functions with target features")]
        mod $name {
            #[allow(clippy::wildcard_imports, reason = "whatever the body needs")]
            use super::*;
            use $crate::isa::Isa;
            #[cfg(target_arch = "x86_64")]
            use $crate::rows::lanes::x86::{Avx2, Avx512};
            use $crate::rows::lanes::{Lanes, Portable};

            #[inline(always)]
            fn body<$lanes: Lanes>($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,popcnt")]
            fn avx512($($argument: $type),*) {
                body::<Avx512>($($argument),*);
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi1,popcnt")]
            fn avx2($($argument: $type),*) {
                body::<Avx2>($($argument),*);
            }

            #[inline]
            pub(in crate::rows) fn on(isa: Isa, $($argument: $type),*) {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: a value `Isa::Avx512` exists only where the CPU has these features.
                    Isa::Avx512 => unsafe { avx512($($argument),*) },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: a value `Isa::Avx2` exists only where the CPU has these features.
                    Isa::Avx2 => unsafe { avx2($($argument),*) },
                    Isa::Portable => body::<Portable>($($argument),*),
                }
            }
        }
    };
}

pub(super) use for_every_lanes;
