//! The kernel for AVX-512: 8 rows × 32 outputs of sums in 16 of 32 registers.

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _MM_HINT_T1, _mm512_and_si512, _mm512_castsi512_ps, _mm512_fmadd_ps,
    _mm512_load_ps, _mm512_load_si512, _mm512_loadu_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
};

use super::{Product, Tile};
use crate::packed::{LineBf16, LineF32, PANEL};
use crate::prefetch::prefetch;

const ROWS: usize = 8;

/// How far ahead of its use a line is brought from L2 to L1, in lines.
const AHEAD: usize = 24;

/// A line of weights in two registers.
pub(crate) trait Load {
    /// Outputs 0..16 and 16..32 of the panel, widened.
    ///
    /// # Safety
    ///
    /// The CPU must have AVX-512F.
    unsafe fn load(&self) -> (__m512, __m512);
}

#[target_feature(enable = "avx512f")]
pub(super) fn product<L: Load>(product: &Product<'_, L>, y: &mut [f32]) {
    product.for_each_tile(y, ROWS, |rows, task, y| {
        let tile = match rows {
            1 => tile::<L, 1>,
            2 => tile::<L, 2>,
            3 => tile::<L, 3>,
            4 => tile::<L, 4>,
            5 => tile::<L, 5>,
            6 => tile::<L, 6>,
            7 => tile::<L, 7>,
            _ => tile::<L, ROWS>,
        };
        tile(task, y);
    });
}

#[target_feature(enable = "avx512f")]
fn tile<L: Load, const M: usize>(task: &Tile<'_, L>, y: &mut [f32]) {
    let Tile {
        x,
        x_stride,
        lines,
        y_stride,
        width,
        begins,
        prefetches,
    } = *task;
    assert!(
        x.len() >= (M - 1) * x_stride + lines.len(),
        "x holds {M} rows"
    );
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    if !begins {
        for (row, sums) in sums.iter_mut().enumerate() {
            let mut values = [0.0f32; PANEL];
            values[..width].copy_from_slice(&y[row * y_stride..][..width]);
            // SAFETY: each half of `values` holds the 16 f32 that a register loads.
            unsafe {
                sums[0] = _mm512_loadu_ps(values[..PANEL / 2].as_ptr());
                sums[1] = _mm512_loadu_ps(values[PANEL / 2..].as_ptr());
            }
        }
    }
    for (position, line) in lines.iter().enumerate() {
        if prefetches {
            prefetch::<L, _MM_HINT_T1>(task.next_block(position));
        }
        prefetch::<L, _MM_HINT_T0>((&raw const *line).wrapping_add(AHEAD));
        // SAFETY: this function requires AVX-512F.
        let (lower, upper) = unsafe { line.load() };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `row < M` and `position < lines.len()`; the assertion above covers both.
            let value = _mm512_set1_ps(unsafe { *x.get_unchecked(row * x_stride + position) });
            sums[0] = _mm512_fmadd_ps(value, lower, sums[0]);
            sums[1] = _mm512_fmadd_ps(value, upper, sums[1]);
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let mut values = [0.0f32; PANEL];
        let (lower, upper) = values.split_at_mut(PANEL / 2);
        // SAFETY: each half of `values` holds the 16 f32 that a register stores.
        unsafe {
            _mm512_storeu_ps(lower.as_mut_ptr(), sums[0]);
            _mm512_storeu_ps(upper.as_mut_ptr(), sums[1]);
        }
        y[row * y_stride..][..width].copy_from_slice(&values[..width]);
    }
}

// === impl Load ===

impl Load for LineF32 {
    #[inline(always)]
    unsafe fn load(&self) -> (__m512, __m512) {
        let line = self.0.as_ptr();
        // SAFETY: the line is 32 f32 long and aligned to 64 bytes; the caller vouches for the CPU.
        unsafe { (_mm512_load_ps(line), _mm512_load_ps(line.add(PANEL / 2))) }
    }
}

impl Load for LineBf16 {
    #[inline(always)]
    unsafe fn load(&self) -> (__m512, __m512) {
        // SAFETY: the line is 64 bytes long and aligned to 64; the caller vouches for the CPU.
        unsafe {
            let words = _mm512_load_si512(self.0.as_ptr().cast());
            let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            (
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)),
                _mm512_castsi512_ps(_mm512_and_si512(words, upper)),
            )
        }
    }
}
