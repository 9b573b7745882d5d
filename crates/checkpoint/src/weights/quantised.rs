//! Weights in fewer bits than a number has: MXFP4 and FP8, with the scales beside them.

use std::path::PathBuf;

use expertmesh_kernels::{Format, decode_row, f32_to_bf16};
use safetensors::Dtype;

use super::{Checked, Reader, wrong_shape};
use crate::error::CheckpointError;
use crate::layout::{Part, Stored};
use crate::tensors::{TensorFile, TensorView};

/// The sixteen numbers of FP4 E2M1: bit 3 is the sign.
const FP4: [f32; 16] = [
    0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
];

/// Elements that share a scale in MXFP4 (OCP Microscaling Formats 1.0, §5.2).
const MX_BLOCK: usize = 32;

/// The E8M0 byte that is no number.
const E8M0_NAN: u8 = 0xff;

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Bytes of the scales that belong to `part`, which is stored as `dtype`; 0 without any.
    pub(super) fn scale_bytes(&self, part: &Part, dtype: Dtype) -> Result<u64, CheckpointError> {
        match (&part.stored, dtype) {
            (Stored::Mxfp4 { scales }, _) => {
                self.mxfp4_scales(part, scales)?;
                Ok(part.elements() / MX_BLOCK as u64)
            }
            (_, Dtype::F8_E4M3) => Ok(self.fp8_scales(part)?.1.bytes.len() as u64),
            _ => Ok(0),
        }
    }

    /// The elements of an MXFP4 part as bf16 bits: the number of a nibble, the low one first, times
    /// 2^(scale - 127), which bf16 has exactly.
    pub(super) fn mxfp4(
        &self,
        part: &Part,
        blocks: &Checked<'_>,
        scales: &str,
    ) -> Result<Vec<u16>, CheckpointError> {
        let (file, scales_view) = self.mxfp4_scales(part, scales)?;
        let outside = || wrong_shape(blocks.file, blocks.view, part);
        let mut bits = Vec::with_capacity(part.out.saturating_mul(part.inner));
        for output in 0..part.out {
            // Rows are whole blocks, or the shape would not have fitted.
            let first = (part.skip + output * part.strides[0]) / MX_BLOCK;
            for block in first..first + part.inner / MX_BLOCK {
                let exponent = scales_view.bytes.get(block).copied().ok_or_else(outside)?;
                if exponent == E8M0_NAN {
                    return Err(not_a_scale(file.path().to_path_buf(), scales, block));
                }
                let scale = power_of_two(exponent);
                let from = block * (MX_BLOCK / 2);
                let bytes = blocks.view.bytes.get(from..from + MX_BLOCK / 2);
                for byte in bytes.ok_or_else(outside)? {
                    for nibble in [byte & 0xf, byte >> 4] {
                        bits.push(f32_to_bf16(FP4[usize::from(nibble)] * scale));
                    }
                }
            }
        }
        Ok(bits)
    }

    fn mxfp4_scales(
        &self,
        part: &Part,
        scales: &str,
    ) -> Result<(&'a TensorFile, TensorView<'a>), CheckpointError> {
        let (file, view) = self.store.tensor(scales)?;
        let expected = part.shape.split_last().map_or(&[][..], |(_, rest)| rest);
        if view.dtype != Dtype::U8 && view.dtype != Dtype::F8_E8M0 {
            return Err(file.wrong_dtype(scales, view.dtype, "U8 or F8_E8M0"));
        }
        if view.shape != expected || !part.inner.is_multiple_of(MX_BLOCK) {
            return Err(CheckpointError::Shape {
                tensor: scales.to_owned(),
                file: file.path().to_path_buf(),
                found: view.shape.to_vec(),
                expected: format!(
                    "{expected:?}, a scale for every {MX_BLOCK} of {} inputs",
                    part.inner
                ),
            });
        }
        Ok((file, view))
    }

    /// The elements of an F8_E4M3 part times the scales of their blocks, in f32.
    pub(super) fn fp8(
        &self,
        part: &Part,
        checked: &Checked<'_>,
    ) -> Result<Vec<f32>, CheckpointError> {
        let scales = self.fp8_scale_values(part)?;
        let [rows, columns] = self.fp8_block;
        let per_row = part.inner.div_ceil(columns);
        let mut values = Vec::with_capacity(checked.view.bytes.len());
        for (output, row) in checked.view.bytes.chunks_exact(part.inner).enumerate() {
            let scales = &scales[output / rows * per_row..][..per_row];
            for (block, scale) in row.chunks(columns).zip(scales) {
                values.extend(block.iter().map(|&byte| e4m3(byte) * scale));
            }
        }
        Ok(values)
    }

    fn fp8_scale_values(&self, part: &Part) -> Result<Vec<f32>, CheckpointError> {
        let (file, view, name) = self.fp8_scales(part)?;
        let format = match view.dtype {
            Dtype::F32 => Format::F32,
            Dtype::BF16 => Format::Bf16,
            _ => {
                let bad = view.bytes.iter().position(|&byte| byte == E8M0_NAN);
                if let Some(at) = bad {
                    return Err(not_a_scale(file.path().to_path_buf(), &name, at));
                }
                let powers = view.bytes.iter().map(|&byte| power_of_two(byte));
                return Ok(powers.collect());
            }
        };
        let mut scales = vec![0.0; view.bytes.len() / format.bytes()];
        decode_row(format, view.bytes, &mut scales);
        Ok(scales)
    }

    /// `X.weight_scale_inv` of `X.weight`: one number a block.
    fn fp8_scales(
        &self,
        part: &Part,
    ) -> Result<(&'a TensorFile, TensorView<'a>, String), CheckpointError> {
        let name = format!("{}_scale_inv", part.tensor);
        let (file, view) = self.store.tensor(&name)?;
        if !matches!(
            view.dtype,
            Dtype::F32 | Dtype::BF16 | Dtype::U8 | Dtype::F8_E8M0
        ) {
            return Err(file.wrong_dtype(&name, view.dtype, "F32, BF16, U8 or F8_E8M0"));
        }
        let [rows, columns] = self.fp8_block;
        let expected = [part.out.div_ceil(rows), part.inner.div_ceil(columns)];
        if view.shape != expected {
            return Err(CheckpointError::Shape {
                tensor: name,
                file: file.path().to_path_buf(),
                found: view.shape.to_vec(),
                expected: format!(
                    "{expected:?}, a scale for every {rows} by {columns} of {} by {} weights",
                    part.out, part.inner
                ),
            });
        }
        Ok((file, view, name))
    }
}

fn not_a_scale(file: PathBuf, tensor: &str, at: usize) -> CheckpointError {
    CheckpointError::Value {
        tensor: tensor.to_owned(),
        file,
        found: format!("255 at element {at}"),
        expected: "E8M0 scales, 0 to 254",
    }
}

/// The E8M0 number 2^(byte - 127).
fn power_of_two(byte: u8) -> f32 {
    match byte {
        // The one power that is no normal number.
        0 => f32::from_bits(1 << 22),
        _ => f32::from_bits(u32::from(byte) << 23),
    }
}

/// The F8 E4M3 number (its finite form, without infinities) of a byte.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (byte >> 3 & 0xf, f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        // 2^-6 times eighths.
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * power_of_two(exponent + 120),
    };
    if byte >> 7 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_has_its_known_numbers() {
        for (byte, value) in [
            (0x00, 0.0),
            (0x01, 0.001_953_125),
            (0x07, 0.013_671_875),
            (0x08, 0.015_625),
            (0x38, 1.0),
            (0x39, 1.125),
            (0xb8, -1.0),
            (0x7e, 448.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(e4m3(byte), value, "{byte:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        assert!(e4m3(0x80) == 0.0 && e4m3(0x80).is_sign_negative());
        // Ascending with the byte.
        assert!((0..0x7e).all(|byte| e4m3(byte) < e4m3(byte + 1)));
    }

    #[test]
    fn e8m0_is_a_power_of_two() {
        assert_eq!(power_of_two(127), 1.0);
        assert_eq!(power_of_two(120), 1.0 / 128.0);
        assert_eq!(power_of_two(0), 2_f32.powi(-127));
        assert_eq!(power_of_two(254), 2_f32.powi(127));
    }

    #[test]
    fn fp4_times_a_scale_is_exact_in_bf16() {
        for scale in [1, 2, 100, 127, 200, 251] {
            for number in FP4 {
                let value = number * power_of_two(scale);
                assert_eq!(expertmesh_kernels::bf16_round(value), value);
            }
        }
    }
}
