//! From the bytes of a file to a matrix that the kernels multiply with.

mod quantised;

use expertmesh_kernels::{Format, PackedMatrix, bf16_round};
use half::f16;
use safetensors::Dtype;

use crate::error::CheckpointError;
use crate::layout::{Part, Stored};
use crate::store::Store;
use crate::tensors::{TensorFile, TensorView};

/// The number formats a weight may have in a file.
const ACCEPTED: &str = "BF16, F16 or F32";

/// Rows and columns that share a scale in FP8 checkpoints that do not say otherwise.
pub(crate) const FP8_BLOCK: [usize; 2] = [128, 128];

/// How a weight stored as `file` is kept for arithmetic in `dtype`, or `None` for a format that is
/// not a weight's.
///
/// BF16 stays BF16 whatever the arithmetic: widening is exact, so an f32 product of bf16 weights
/// has the same bits at half the memory. What is finer than BF16 is rounded to it only where the
/// arithmetic asks for bf16 weights, and F8 times its scale is finer. MXFP4 is exact in BF16.
fn kept_as(file: Dtype, part: &Part, dtype: Format) -> Option<Format> {
    let finer = match part.stored {
        Stored::KeptF32 => Format::F32,
        _ => dtype,
    };
    match (file, &part.stored) {
        (Dtype::U8, Stored::Mxfp4 { .. }) => Some(Format::Bf16),
        (_, Stored::Mxfp4 { .. }) => None,
        (Dtype::BF16, _) => Some(Format::Bf16),
        (Dtype::F32 | Dtype::F16, _) => Some(finer),
        (Dtype::F8_E4M3, Stored::Plain) if part.shape.len() == 2 && part.is_contiguous() => {
            Some(finer)
        }
        _ => None,
    }
}

/// Which bytes of a weight are meant.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Measure {
    /// Those in the file.
    Stored,
    /// Those in memory once it is loaded for arithmetic in a format.
    Loaded(Format),
}

/// Reads weights out of a checkpoint's files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) store: &'a Store,
    /// Rows and columns that share a scale in F8 weights.
    pub(crate) fp8_block: [usize; 2],
}

/// A part whose name, number format and shape were checked.
struct Checked<'a> {
    file: &'a TensorFile,
    view: TensorView<'a>,
    /// The format that it has in memory.
    kept: Format,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// The bytes of `part`. Checks the tensor's name, number format and shape, and those of its
    /// scales; its data is not touched.
    pub(crate) fn bytes(&self, part: &Part, measure: Measure) -> Result<u64, CheckpointError> {
        let dtype = match measure {
            Measure::Stored => Format::F32,
            Measure::Loaded(dtype) => dtype,
        };
        let checked = self.checked(part, dtype)?;
        let scales = self.scale_bytes(part, checked.view.dtype)?;
        Ok(match measure {
            // Vectors are held in f32 once they are rounded; they count as they are used.
            Measure::Loaded(Format::F32) if part.inner == 1 => part.elements().saturating_mul(4),
            Measure::Loaded(_) => part.elements().saturating_mul(checked.kept.bytes() as u64),
            // A nibble an element.
            Measure::Stored if matches!(part.stored, Stored::Mxfp4 { .. }) => {
                part.elements() / 2 + scales
            }
            Measure::Stored => {
                let width = checked.view.dtype.bitsize() as u64 / 8;
                part.elements().saturating_mul(width).saturating_add(scales)
            }
        })
    }

    /// The number format of `part` in its file, in words.
    pub(crate) fn format(&self, part: &Part) -> Result<String, CheckpointError> {
        let dtype = self.checked(part, Format::F32)?.view.dtype;
        let [rows, columns] = self.fp8_block;
        Ok(match (&part.stored, dtype) {
            (Stored::Mxfp4 { .. }, _) => "MXFP4".to_owned(),
            (_, Dtype::F8_E4M3) => format!("FP8, {rows}x{columns} blocks"),
            (_, dtype) => dtype.to_string(),
        })
    }

    /// Reads `part` for arithmetic in `dtype`.
    pub(crate) fn matrix(
        &self,
        part: &Part,
        dtype: Format,
    ) -> Result<PackedMatrix, CheckpointError> {
        let checked = self.checked(part, dtype)?;
        let (out, inner) = (part.out, part.inner);
        let packed = match (&part.stored, checked.view.dtype) {
            (Stored::Mxfp4 { scales }, _) => {
                let bits = self.mxfp4(part, &checked, scales)?;
                PackedMatrix::from_bf16_bits(&bits, out, inner)
            }
            (_, Dtype::F8_E4M3) => {
                let values = self.fp8(part, &checked)?;
                PackedMatrix::from_f32_as(checked.kept, &values, out, inner)
            }
            (_, Dtype::BF16) => {
                let bytes = gathered::<2>(part, &checked)?;
                PackedMatrix::from_le_bytes(Format::Bf16, &bytes, out, inner)
            }
            (_, Dtype::F32) if checked.kept == Format::F32 => {
                let bytes = gathered::<4>(part, &checked)?;
                PackedMatrix::from_le_bytes(Format::F32, &bytes, out, inner)
            }
            _ => {
                let values = values(part, &checked)?;
                PackedMatrix::from_f32_as(checked.kept, &values, out, inner)
            }
        };
        packed.map_err(|source| CheckpointError::Matrix {
            tensor: part.tensor.clone(),
            source,
        })
    }

    /// Reads `part`, a vector, for arithmetic in `dtype`: rounded to it, and widened again.
    pub(crate) fn vector(&self, part: &Part, dtype: Format) -> Result<Vec<f32>, CheckpointError> {
        let checked = self.checked(part, dtype)?;
        let mut values = values(part, &checked)?;
        if checked.kept == Format::Bf16 {
            values
                .iter_mut()
                .for_each(|value| *value = bf16_round(*value));
        }
        Ok(values)
    }

    fn checked(&self, part: &Part, dtype: Format) -> Result<Checked<'a>, CheckpointError> {
        let (file, view) = self.store.tensor(&part.tensor)?;
        if view.shape != part.shape {
            return Err(wrong_shape(file, view, part));
        }
        let expected = match part.stored {
            Stored::Mxfp4 { .. } => "U8, two MXFP4 numbers a byte",
            Stored::Plain if part.shape.len() == 2 => "BF16, F16, F32 or F8_E4M3",
            _ => ACCEPTED,
        };
        let kept = kept_as(view.dtype, part, dtype)
            .ok_or_else(|| file.wrong_dtype(&part.tensor, view.dtype, expected))?;
        Ok(Checked { file, view, kept })
    }
}

/// The bytes of the elements of `part`, `N` each, in the matrix's order.
fn gathered<'a, const N: usize>(
    part: &Part,
    checked: &Checked<'a>,
) -> Result<std::borrow::Cow<'a, [u8]>, CheckpointError> {
    // The shape was compared with the expected one and the header with the file, so the range is
    // inside; asking again costs nothing and keeps a mistake in a layout from panicking.
    let outside = || wrong_shape(checked.file, checked.view, part);
    let bytes = checked.view.bytes;
    if part.is_contiguous() {
        let from = part.skip.saturating_mul(N);
        let until = from.saturating_add(part.out.saturating_mul(part.inner).saturating_mul(N));
        return Ok(bytes.get(from..until).ok_or_else(outside)?.into());
    }
    let (elements, _) = bytes.as_chunks::<N>();
    let mut all = Vec::with_capacity(part.out.saturating_mul(part.inner).saturating_mul(N));
    for output in 0..part.out {
        let first = part.skip + output * part.strides[0];
        for position in 0..part.inner {
            let element = elements.get(first + position * part.strides[1]);
            all.extend(element.ok_or_else(outside)?);
        }
    }
    Ok(all.into())
}

/// The elements of `part`, which is BF16, F16 or F32, widened.
fn values(part: &Part, checked: &Checked<'_>) -> Result<Vec<f32>, CheckpointError> {
    if checked.view.dtype == Dtype::F32 {
        let bytes = gathered::<4>(part, checked)?;
        let (chunks, _) = bytes.as_chunks::<4>();
        return Ok(chunks.iter().map(|&raw| f32::from_le_bytes(raw)).collect());
    }
    let bytes = gathered::<2>(part, checked)?;
    let (chunks, _) = bytes.as_chunks::<2>();
    let widen = match checked.view.dtype {
        Dtype::BF16 => |raw: [u8; 2]| expertmesh_kernels::bf16_to_f32(u16::from_le_bytes(raw)),
        _ => |raw: [u8; 2]| f16::from_le_bytes(raw).to_f32(),
    };
    Ok(chunks.iter().map(|&raw| widen(raw)).collect())
}

fn wrong_shape(file: &TensorFile, view: TensorView<'_>, part: &Part) -> CheckpointError {
    CheckpointError::Shape {
        tensor: part.tensor.clone(),
        file: file.path().to_path_buf(),
        found: view.shape.to_vec(),
        expected: format!("{:?}, which is {} by config.json", part.shape, part.meaning),
    }
}
