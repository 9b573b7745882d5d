//! The kernel for AVX2 and FMA: 6 rows × 16 outputs of sums in 12 of 16 registers.

use std::arch::x86_64::{
    __m256, _MM_HINT_T1, _mm256_and_si256, _mm256_castsi256_ps, _mm256_fmadd_ps, _mm256_load_ps,
    _mm256_load_si256, _mm256_loadu_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_slli_epi32, _mm256_storeu_ps,
};

use super::{Product, Tile};
use crate::packed::{LineBf16, LineF32, PANEL};
use crate::prefetch::prefetch;

const ROWS: usize = 6;
const COLUMNS: usize = PANEL / 2;

/// Half a line of weights in two registers.
pub(crate) trait Load {
    /// Outputs 0..16 (`HALF == 0`) or 16..32 of the panel, widened.
    ///
    /// # Safety
    ///
    /// The CPU must have AVX2.
    unsafe fn load<const HALF: usize>(&self) -> (__m256, __m256);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn product<L: Load>(product: &Product<'_, L>, y: &mut [f32]) {
    product.for_each_tile(y, ROWS, |rows, task, y| {
        let tile = match rows {
            1 => tile::<L, 1>,
            2 => tile::<L, 2>,
            3 => tile::<L, 3>,
            4 => tile::<L, 4>,
            5 => tile::<L, 5>,
            _ => tile::<L, ROWS>,
        };
        tile(task, y);
    });
}

/// The lower outputs of the panel, then the upper ones: 32 at once would leave registers for 3 rows.
#[target_feature(enable = "avx2,fma")]
fn tile<L: Load, const M: usize>(task: &Tile<'_, L>, y: &mut [f32]) {
    half::<L, 0, M>(task, y, task.width.min(COLUMNS));
    if task.width > COLUMNS {
        half::<L, 1, M>(task, &mut y[COLUMNS..], task.width - COLUMNS);
    }
}

#[target_feature(enable = "avx2,fma")]
fn half<L: Load, const HALF: usize, const M: usize>(
    task: &Tile<'_, L>,
    y: &mut [f32],
    width: usize,
) {
    let Tile {
        x,
        x_stride,
        lines,
        y_stride,
        begins,
        ..
    } = *task;
    let prefetches = task.prefetches && HALF == 0;
    assert!(
        x.len() >= (M - 1) * x_stride + lines.len(),
        "x holds {M} rows"
    );
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    if !begins {
        for (row, sums) in sums.iter_mut().enumerate() {
            let mut values = [0.0f32; COLUMNS];
            values[..width].copy_from_slice(&y[row * y_stride..][..width]);
            // SAFETY: each half of `values` holds the 8 f32 that a register loads.
            unsafe {
                sums[0] = _mm256_loadu_ps(values[..COLUMNS / 2].as_ptr());
                sums[1] = _mm256_loadu_ps(values[COLUMNS / 2..].as_ptr());
            }
        }
    }
    for (position, line) in lines.iter().enumerate() {
        if prefetches {
            prefetch::<L, _MM_HINT_T1>(task.next_block(position));
        }
        // SAFETY: this function requires AVX2.
        let (first, second) = unsafe { line.load::<HALF>() };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `row < M` and `position < lines.len()`; the assertion above covers both.
            let value = _mm256_set1_ps(unsafe { *x.get_unchecked(row * x_stride + position) });
            sums[0] = _mm256_fmadd_ps(value, first, sums[0]);
            sums[1] = _mm256_fmadd_ps(value, second, sums[1]);
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let mut values = [0.0f32; COLUMNS];
        let (first, second) = values.split_at_mut(COLUMNS / 2);
        // SAFETY: each half of `values` holds the 8 f32 that a register stores.
        unsafe {
            _mm256_storeu_ps(first.as_mut_ptr(), sums[0]);
            _mm256_storeu_ps(second.as_mut_ptr(), sums[1]);
        }
        y[row * y_stride..][..width].copy_from_slice(&values[..width]);
    }
}

// === impl Load ===

impl Load for LineF32 {
    #[inline(always)]
    unsafe fn load<const HALF: usize>(&self) -> (__m256, __m256) {
        let half = self.0.as_ptr().wrapping_add(HALF * COLUMNS);
        // SAFETY: either half of the line is 16 f32 long and aligned to 64 bytes; the caller
        // vouches for the CPU.
        unsafe { (_mm256_load_ps(half), _mm256_load_ps(half.add(8))) }
    }
}

impl Load for LineBf16 {
    #[inline(always)]
    unsafe fn load<const HALF: usize>(&self) -> (__m256, __m256) {
        let words = self.0.as_ptr();
        // SAFETY: the line is 16 words long and aligned to 64 bytes; the caller vouches for the CPU.
        unsafe {
            let first = _mm256_load_si256(words.cast());
            let second = _mm256_load_si256(words.add(8).cast());
            let (first, second) = if HALF == 0 {
                (
                    _mm256_slli_epi32::<16>(first),
                    _mm256_slli_epi32::<16>(second),
                )
            } else {
                let upper = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
                (
                    _mm256_and_si256(first, upper),
                    _mm256_and_si256(second, upper),
                )
            };
            (_mm256_castsi256_ps(first), _mm256_castsi256_ps(second))
        }
    }
}
