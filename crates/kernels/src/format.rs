//! Number formats of weights and rows, and the row functions of packing and combining.

use std::fmt;
use std::str::FromStr;

use crate::isa::for_every_isa;

#[cfg(test)]
mod tests;

/// How a number is stored: in a weight matrix, or in a row on the wire. Always little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE 754 binary32.
    F32,
    /// bfloat16: the upper half of an f32.
    Bf16,
}

/// A name that is not a [`Format`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown number format {name:?}; expected \"f32\" or \"bf16\"")]
pub struct ParseFormatError {
    /// What was given.
    pub name: String,
}

/// The bf16 bits nearest to `value`, ties to even. Overflow gives infinity; a NaN stays a NaN and
/// is made quiet.
#[inline]
#[must_use]
pub const fn f32_to_bf16(value: f32) -> u16 {
    (round_bits(value.to_bits()) >> 16) as u16
}

/// The f32 that bf16 `bits` stand for, exactly.
#[inline]
#[must_use]
pub const fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// `value` rounded to the nearest bf16, ties to even, as an f32.
#[inline]
#[must_use]
pub const fn bf16_round(value: f32) -> f32 {
    f32::from_bits(round_bits(value.to_bits()))
}

/// Rounds the bits of an f32 to those of the nearest bf16, in their upper half.
#[inline(always)]
const fn round_bits(bits: u32) -> u32 {
    // Adding just under half an ulp (half, when the kept part is odd) carries into the kept part
    // exactly when nearest-even rounds up. On a NaN the carry could reach infinity: quieten instead.
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
    let kept = if is_nan { bits | 0x0040_0000 } else { nearest };
    kept & 0xffff_0000
}

for_every_isa! {
    /// Rounds every value to the nearest bf16, in place.
    pub fn round_bf16(values: &mut [f32]) {
        for value in values {
            *value = bf16_round(*value);
        }
    }
}

/// Writes `src` as `format` into `dst`, little-endian.
///
/// # Panics
///
/// If `dst` does not hold exactly `src.len() * format.bytes()` bytes.
pub fn encode_row(format: Format, src: &[f32], dst: &mut [u8]) {
    check_lengths(format, dst.len(), src.len());
    match format {
        Format::F32 => encode_f32(src, dst),
        Format::Bf16 => encode_bf16(src, dst),
    }
}

/// Reads the `format` values of `src`, which may be unaligned, into `dst`.
///
/// # Panics
///
/// If `src` does not hold exactly `dst.len() * format.bytes()` bytes.
pub fn decode_row(format: Format, src: &[u8], dst: &mut [f32]) {
    check_lengths(format, src.len(), dst.len());
    match format {
        Format::F32 => decode_f32(src, dst),
        Format::Bf16 => decode_bf16(src, dst),
    }
}

/// Adds `weight` times the encoded row `src` to `acc`: multiply, round, add, round.
///
/// With `round_product` the product is rounded to bf16 before it is added. The multiplication and
/// the addition are never fused, so that the bits equal those of `acc + weight * x` computed one
/// step after the other, on every CPU.
///
/// # Panics
///
/// If `src` does not hold exactly `acc.len() * format.bytes()` bytes.
pub fn axpy_row(format: Format, weight: f32, src: &[u8], acc: &mut [f32], round_product: bool) {
    check_lengths(format, src.len(), acc.len());
    match (format, round_product) {
        (Format::F32, false) => axpy_f32(weight, src, acc),
        (Format::Bf16, false) => axpy_bf16(weight, src, acc),
        (Format::F32, true) => axpy_f32_rounded(weight, src, acc),
        (Format::Bf16, true) => axpy_bf16_rounded(weight, src, acc),
    }
}

/// Sets `out` to `weight` times the encoded row `src`, with the bits that [`axpy_row`] gives when it
/// adds to zeros: the first term of a sum, without clearing the accumulator before.
///
/// # Panics
///
/// If `src` does not hold exactly `out.len() * format.bytes()` bytes.
pub fn scale_row(format: Format, weight: f32, src: &[u8], out: &mut [f32], round_product: bool) {
    check_lengths(format, src.len(), out.len());
    match (format, round_product) {
        (Format::F32, false) => scale_f32(weight, src, out),
        (Format::Bf16, false) => scale_bf16(weight, src, out),
        (Format::F32, true) => scale_f32_rounded(weight, src, out),
        (Format::Bf16, true) => scale_bf16_rounded(weight, src, out),
    }
}

fn check_lengths(format: Format, bytes: usize, values: usize) {
    assert_eq!(
        bytes,
        values * format.bytes(),
        "{values} values of {format} in {bytes} bytes"
    );
}

fn encode_f32(src: &[f32], dst: &mut [u8]) {
    for (bytes, value) in dst.chunks_exact_mut(4).zip(src) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
}

fn decode_f32(src: &[u8], dst: &mut [f32]) {
    for (bytes, value) in src.chunks_exact(4).zip(dst) {
        *value = read_f32(bytes);
    }
}

for_every_isa! {
    fn encode_bf16(src: &[f32], dst: &mut [u8]) {
        for (bytes, value) in dst.chunks_exact_mut(2).zip(src) {
            bytes.copy_from_slice(&f32_to_bf16(*value).to_le_bytes());
        }
    }
}

for_every_isa! {
    fn decode_bf16(src: &[u8], dst: &mut [f32]) {
        for (bytes, value) in src.chunks_exact(2).zip(dst) {
            *value = read_bf16(bytes);
        }
    }
}

for_every_isa! {
    fn axpy_f32(weight: f32, src: &[u8], acc: &mut [f32]) {
        for (bytes, sum) in src.chunks_exact(4).zip(acc) {
            *sum += weight * read_f32(bytes);
        }
    }
}

for_every_isa! {
    fn axpy_bf16(weight: f32, src: &[u8], acc: &mut [f32]) {
        for (bytes, sum) in src.chunks_exact(2).zip(acc) {
            *sum += weight * read_bf16(bytes);
        }
    }
}

for_every_isa! {
    fn axpy_f32_rounded(weight: f32, src: &[u8], acc: &mut [f32]) {
        for (bytes, sum) in src.chunks_exact(4).zip(acc) {
            *sum += bf16_round(weight * read_f32(bytes));
        }
    }
}

for_every_isa! {
    fn axpy_bf16_rounded(weight: f32, src: &[u8], acc: &mut [f32]) {
        for (bytes, sum) in src.chunks_exact(2).zip(acc) {
            *sum += bf16_round(weight * read_bf16(bytes));
        }
    }
}

for_every_isa! {
    fn scale_f32(weight: f32, src: &[u8], out: &mut [f32]) {
        for (bytes, sum) in src.chunks_exact(4).zip(out) {
            // Zero is added because −0.0 would stay −0.0 without it.
            *sum = 0.0 + weight * read_f32(bytes);
        }
    }
}

for_every_isa! {
    fn scale_f32_rounded(weight: f32, src: &[u8], out: &mut [f32]) {
        for (bytes, sum) in src.chunks_exact(4).zip(out) {
            // Zero is added because −0.0 would stay −0.0 without it.
            *sum = 0.0 + bf16_round(weight * read_f32(bytes));
        }
    }
}

for_every_isa! {
    fn scale_bf16(weight: f32, src: &[u8], out: &mut [f32]) {
        for (bytes, sum) in src.chunks_exact(2).zip(out) {
            // Zero is added because −0.0 would stay −0.0 without it.
            *sum = 0.0 + weight * read_bf16(bytes);
        }
    }
}

for_every_isa! {
    fn scale_bf16_rounded(weight: f32, src: &[u8], out: &mut [f32]) {
        for (bytes, sum) in src.chunks_exact(2).zip(out) {
            // Zero is added because −0.0 would stay −0.0 without it.
            *sum = 0.0 + bf16_round(weight * read_bf16(bytes));
        }
    }
}

/// The f32 in a chunk of exactly four bytes.
#[inline(always)]
fn read_f32(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The bf16 in a chunk of exactly two bytes.
#[inline(always)]
fn read_bf16(bytes: &[u8]) -> f32 {
    bf16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
}

// === impl Format ===

impl Format {
    /// Bytes of one value.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// `"f32"` or `"bf16"`, as in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(ParseFormatError {
                name: name.to_owned(),
            }),
        }
    }
}
