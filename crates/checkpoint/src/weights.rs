//! From the bytes of a file to a matrix that the kernels multiply with.

use expertmesh_kernels::{Format, PackedMatrix};
use half::f16;
use safetensors::Dtype;

use crate::error::CheckpointError;
use crate::layout::Part;
use crate::store::Store;
use crate::tensors::{TensorFile, TensorView};

/// The number formats a weight may have in a file.
const ACCEPTED: &str = "BF16, F16 or F32";

/// How a weight stored as `file` is kept for arithmetic in `dtype`, or `None` for a format that is
/// not a weight's.
///
/// BF16 stays BF16 whatever the arithmetic: widening is exact, so an f32 product of bf16 weights
/// has the same bits at half the memory. What is finer than BF16 is rounded to it only where the
/// arithmetic asks for bf16 weights.
fn kept_as(file: Dtype, dtype: Format) -> Option<Format> {
    match file {
        Dtype::BF16 => Some(Format::Bf16),
        Dtype::F32 | Dtype::F16 => Some(dtype),
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

/// The bytes of `part`. Checks the tensor's name, number format and shape; its data is not
/// touched.
pub(crate) fn bytes(store: &Store, part: &Part, measure: Measure) -> Result<u64, CheckpointError> {
    let width = match measure {
        Measure::Stored => checked(store, part, Format::F32)?.1.dtype.bitsize() / 8,
        Measure::Loaded(dtype) => checked(store, part, dtype)?.2.bytes(),
    };
    Ok(part.elements().saturating_mul(width as u64))
}

/// Reads `part` for arithmetic in `dtype`.
pub(crate) fn matrix(
    store: &Store,
    part: &Part,
    dtype: Format,
) -> Result<PackedMatrix, CheckpointError> {
    let (file, view, kept) = checked(store, part, dtype)?;
    let width = view.dtype.bitsize() / 8;
    // The shape was compared with the expected one and the header with the file, so the range is
    // inside; asking again costs nothing and keeps a mistake in a layout from panicking.
    let from = part.skip.saturating_mul(width);
    let until = from.saturating_add(part.out.saturating_mul(part.inner).saturating_mul(width));
    let bytes = view
        .bytes
        .get(from..until)
        .ok_or_else(|| wrong_shape(file, view, part))?;
    let packed = match view.dtype {
        Dtype::BF16 => PackedMatrix::from_le_bytes(Format::Bf16, bytes, part.out, part.inner),
        Dtype::F32 if kept == Format::F32 => {
            PackedMatrix::from_le_bytes(Format::F32, bytes, part.out, part.inner)
        }
        Dtype::F32 => {
            let (chunks, _) = bytes.as_chunks::<4>();
            let values: Vec<f32> = chunks.iter().map(|&raw| f32::from_le_bytes(raw)).collect();
            PackedMatrix::from_f32_as(kept, &values, part.out, part.inner)
        }
        _ => {
            let (chunks, _) = bytes.as_chunks::<2>();
            let values: Vec<f32> = chunks
                .iter()
                .map(|&raw| f16::from_le_bytes(raw).to_f32())
                .collect();
            PackedMatrix::from_f32_as(kept, &values, part.out, part.inner)
        }
    };
    packed.map_err(|source| CheckpointError::Matrix {
        tensor: part.tensor.clone(),
        source,
    })
}

fn checked<'a>(
    store: &'a Store,
    part: &Part,
    dtype: Format,
) -> Result<(&'a TensorFile, TensorView<'a>, Format), CheckpointError> {
    let (file, view) = store.tensor(&part.tensor)?;
    if view.shape != part.shape {
        return Err(wrong_shape(file, view, part));
    }
    let kept = kept_as(view.dtype, dtype)
        .ok_or_else(|| file.wrong_dtype(&part.tensor, view.dtype, ACCEPTED))?;
    Ok((file, view, kept))
}

fn wrong_shape(file: &TensorFile, view: TensorView<'_>, part: &Part) -> CheckpointError {
    CheckpointError::Shape {
        tensor: part.tensor.clone(),
        file: file.path().to_path_buf(),
        found: view.shape.to_vec(),
        expected: format!("{:?}, which is {} by config.json", part.shape, part.meaning),
    }
}
