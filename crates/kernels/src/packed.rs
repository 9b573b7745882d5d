//! Weights laid out for streaming.

use std::fmt;

use crate::{Format, KernelError, bf16_to_f32, f32_to_bf16};

#[cfg(test)]
mod tests;

/// Columns (outputs) of a panel: two 512-bit registers of f32.
pub(crate) const PANEL: usize = 32;

/// Inner positions that packing transposes at a time: 32 lines of 64 × 4 B stay in the L1 cache.
const PACK_BLOCK: usize = 64;

/// Weights `W` of a linear layer, `[out, inner]`, laid out once for [`crate::matmul`].
///
/// The outputs are cut into panels of 32. A panel is stored inner-major: for every inner position
/// the weights of its 32 outputs side by side, so that a product reads the whole matrix once and in
/// ascending addresses. The last panel is padded with zeros.
pub struct PackedMatrix {
    out: usize,
    inner: usize,
    storage: Storage,
}

/// Panel after panel, `inner` lines each.
pub(crate) enum Storage {
    F32(Vec<LineF32>),
    Bf16(Vec<LineBf16>),
}

/// The weights of one inner position for the 32 outputs of a panel: two cache lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct LineF32(pub(crate) [f32; PANEL]);

/// The same in bf16, one cache line. Word `i` holds output `i` in its lower and output `16 + i` in
/// its upper half: a shift and a mask widen a register of words, with no shuffle.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct LineBf16(pub(crate) [u32; PANEL / 2]);

/// What packing and the portable kernel need to know of a line.
pub(crate) trait Line: Copy {
    /// A value as it is handed over.
    type Value: Copy;

    /// A line of zeros.
    const ZERO: Self;

    /// Stores the weight of output `column` of the panel.
    fn set(&mut self, column: usize, value: Self::Value);

    /// The 16 weights of the panel's lower (`half == 0`) or upper outputs, widened.
    fn half(&self, half: usize) -> [f32; PANEL / 2];
}

// === impl PackedMatrix ===

impl PackedMatrix {
    /// Packs f32 weights `[out, inner]` (nn.Linear layout) and keeps them as f32.
    ///
    /// # Errors
    ///
    /// [`KernelError::WeightSize`] if `w` does not hold `out * inner` values.
    pub fn from_f32(w: &[f32], out: usize, inner: usize) -> Result<Self, KernelError> {
        check(Format::F32, w.len().saturating_mul(4), out, inner)?;
        let storage = Storage::F32(pack(out, inner, |index| w[index]));
        Ok(Self {
            out,
            inner,
            storage,
        })
    }

    /// Packs weights `[out, inner]` given as bf16 bits and keeps them as bf16.
    ///
    /// # Errors
    ///
    /// [`KernelError::WeightSize`] if `w` does not hold `out * inner` values.
    pub fn from_bf16_bits(w: &[u16], out: usize, inner: usize) -> Result<Self, KernelError> {
        check(Format::Bf16, w.len().saturating_mul(2), out, inner)?;
        let storage = Storage::Bf16(pack(out, inner, |index| w[index]));
        Ok(Self {
            out,
            inner,
            storage,
        })
    }

    /// Packs weights `[out, inner]` given as f32 and keeps them as `format`, rounded to it.
    ///
    /// # Errors
    ///
    /// [`KernelError::WeightSize`] if `w` does not hold `out * inner` values.
    pub fn from_f32_as(
        format: Format,
        w: &[f32],
        out: usize,
        inner: usize,
    ) -> Result<Self, KernelError> {
        if format == Format::F32 {
            return Self::from_f32(w, out, inner);
        }
        check(Format::F32, w.len().saturating_mul(4), out, inner)?;
        let storage = Storage::Bf16(pack(out, inner, |index| f32_to_bf16(w[index])));
        Ok(Self {
            out,
            inner,
            storage,
        })
    }

    /// Packs weights `[out, inner]` from the little-endian bytes of a checkpoint, which may be
    /// unaligned, and keeps their format.
    ///
    /// # Errors
    ///
    /// [`KernelError::WeightSize`] if `bytes` does not hold `out * inner` values of `format`.
    pub fn from_le_bytes(
        format: Format,
        bytes: &[u8],
        out: usize,
        inner: usize,
    ) -> Result<Self, KernelError> {
        check(format, bytes.len(), out, inner)?;
        let storage = match format {
            Format::F32 => Storage::F32(pack(out, inner, |index| {
                let at = &bytes[4 * index..4 * index + 4];
                f32::from_le_bytes([at[0], at[1], at[2], at[3]])
            })),
            Format::Bf16 => Storage::Bf16(pack(out, inner, |index| {
                let at = &bytes[2 * index..2 * index + 2];
                u16::from_le_bytes([at[0], at[1]])
            })),
        };
        Ok(Self {
            out,
            inner,
            storage,
        })
    }

    /// Number of outputs.
    #[must_use]
    pub fn out(&self) -> usize {
        self.out
    }

    /// Length of the inner dimension: values of an input row.
    #[must_use]
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// How the weights are stored.
    #[must_use]
    pub fn format(&self) -> Format {
        match self.storage {
            Storage::F32(_) => Format::F32,
            Storage::Bf16(_) => Format::Bf16,
        }
    }

    /// Bytes of the weights, `out * inner * format.bytes()`; the padding of the last panel is not
    /// counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.out * self.inner * self.format().bytes()
    }

    /// The weights as f32 in nn.Linear layout, `[out, inner]`: the inverse of packing.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.storage {
            Storage::F32(lines) => self.unpack(lines),
            Storage::Bf16(lines) => self.unpack(lines),
        }
    }

    fn unpack<L: Line>(&self, lines: &[L]) -> Vec<f32> {
        let mut w = vec![0.0; self.out * self.inner];
        if w.is_empty() {
            return w;
        }
        for (output, row) in w.chunks_exact_mut(self.inner).enumerate() {
            let (panel, column) = (output / PANEL, output % PANEL);
            let (half, lane) = (column / (PANEL / 2), column % (PANEL / 2));
            let lines = &lines[panel * self.inner..][..self.inner];
            for (value, line) in row.iter_mut().zip(lines) {
                *value = line.half(half)[lane];
            }
        }
        w
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }
}

impl fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedMatrix")
            .field("out", &self.out)
            .field("inner", &self.inner)
            .field("format", &self.format())
            .finish()
    }
}

/// Compares the bytes handed over with those that the shape needs.
fn check(format: Format, actual: usize, out: usize, inner: usize) -> Result<(), KernelError> {
    let expected = out
        .checked_mul(inner)
        .and_then(|values| values.checked_mul(format.bytes()))
        .ok_or(KernelError::WeightOverflow { out, inner })?;
    if actual == expected {
        Ok(())
    } else {
        Err(KernelError::WeightSize {
            out,
            inner,
            format,
            expected,
            actual,
        })
    }
}

/// Transposes `[out, inner]` values, read by their row-major index, into panels.
fn pack<L: Line>(out: usize, inner: usize, value: impl Fn(usize) -> L::Value) -> Vec<L> {
    let mut lines = vec![L::ZERO; out.div_ceil(PANEL) * inner];
    if inner == 0 {
        return lines;
    }
    for (panel, lines) in lines.chunks_exact_mut(inner).enumerate() {
        let first = panel * PANEL;
        let width = PANEL.min(out - first);
        for (block, lines) in lines.chunks_mut(PACK_BLOCK).enumerate() {
            for column in 0..width {
                let start = (first + column) * inner + block * PACK_BLOCK;
                for (offset, line) in lines.iter_mut().enumerate() {
                    line.set(column, value(start + offset));
                }
            }
        }
    }
    lines
}

// === impl Line ===

impl Line for LineF32 {
    type Value = f32;

    const ZERO: Self = Self([0.0; PANEL]);

    #[inline(always)]
    fn set(&mut self, column: usize, value: f32) {
        self.0[column] = value;
    }

    #[inline(always)]
    fn half(&self, half: usize) -> [f32; PANEL / 2] {
        let (lower, upper) = self.0.split_at(PANEL / 2);
        let values = if half == 0 { lower } else { upper };
        std::array::from_fn(|lane| values[lane])
    }
}

impl Line for LineBf16 {
    type Value = u16;

    const ZERO: Self = Self([0; PANEL / 2]);

    #[inline(always)]
    fn set(&mut self, column: usize, value: u16) {
        let word = &mut self.0[column % (PANEL / 2)];
        *word = if column < PANEL / 2 {
            *word & 0xffff_0000 | u32::from(value)
        } else {
            *word & 0x0000_ffff | u32::from(value) << 16
        };
    }

    #[inline(always)]
    fn half(&self, half: usize) -> [f32; PANEL / 2] {
        self.0.map(|word| {
            let bits = if half == 0 {
                word as u16
            } else {
                (word >> 16) as u16
            };
            bf16_to_f32(bits)
        })
    }
}
