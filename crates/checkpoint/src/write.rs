//! Writing a safetensors file of results.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, View};

use crate::error::CheckpointError;

/// The elements of a tensor to be written, row-major.
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// 32-bit whole numbers.
    I32(&'a [i32]),
    /// 64-bit whole numbers.
    I64(&'a [i64]),
    /// Bytes.
    U8(&'a [u8]),
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct NamedTensor<'a> {
    /// Its name in the file, unique there.
    pub name: &'a str,
    /// Its dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many elements as the dimensions multiply to.
    pub data: TensorData<'a>,
}

/// Writes `tensors` to the file at `path`; the same tensors give the same bytes.
///
/// The file appears whole or not at all: it is written beside its place and then renamed, so a
/// reader that has mapped an older one keeps that one.
///
/// # Errors
/// A name that occurs twice or is reserved, a shape that does not fit its elements, or a file that
/// cannot be written. The message names the file, and the tensor where it is at fault.
pub fn write(path: &Path, tensors: &[NamedTensor<'_>]) -> Result<(), CheckpointError> {
    for (at, tensor) in tensors.iter().enumerate() {
        check(path, tensor, &tensors[..at])?;
    }
    let views = tensors.iter().map(|tensor| (tensor.name, tensor));
    let bytes = safetensors::serialize(views, None).map_err(|error| CheckpointError::Header {
        file: path.to_path_buf(),
        reason: error.to_string(),
    })?;
    let partial = beside(path);
    let io = |source| CheckpointError::Io {
        action: "write",
        path: path.to_path_buf(),
        source,
    };
    let written = std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|source| {
        // Best effort: the error that matters is the one already at hand.
        let _ = std::fs::remove_file(&partial);
        io(source)
    })
}

/// A name in the same directory, of this process alone.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

fn check(
    path: &Path,
    tensor: &NamedTensor<'_>,
    earlier: &[NamedTensor<'_>],
) -> Result<(), CheckpointError> {
    let bad = |reason: String| CheckpointError::HeaderTensor {
        file: path.to_path_buf(),
        tensor: tensor.name.to_owned(),
        reason,
    };
    if tensor.name == "__metadata__" {
        return Err(bad("has a name that safetensors reserves".to_owned()));
    }
    if earlier.iter().any(|other| other.name == tensor.name) {
        return Err(bad("is given twice".to_owned()));
    }
    let elements = tensor
        .shape
        .iter()
        .try_fold(1usize, |n, &dim| n.checked_mul(dim));
    let held = tensor.data.len();
    if elements != Some(held) {
        return Err(bad(format!(
            "has shape {:?}, but {held} elements",
            tensor.shape
        )));
    }
    Ok(())
}

// === impl TensorData ===

impl TensorData<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::U8(values) => values.len(),
        }
    }
}

// === impl NamedTensor ===

impl View for &NamedTensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.data {
            TensorData::F32(_) => Dtype::F32,
            TensorData::I32(_) => Dtype::I32,
            TensorData::I64(_) => Dtype::I64,
            TensorData::U8(_) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.data {
            TensorData::F32(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            TensorData::I32(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            TensorData::I64(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            TensorData::U8(values) => Cow::Borrowed(values),
        }
    }

    fn data_len(&self) -> usize {
        self.data.len() * self.dtype().bitsize() / 8
    }
}
