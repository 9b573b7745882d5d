//! One safetensors file: opened by its header, read tensor by tensor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use expertmesh_kernels::{Format, MappedFile, decode_row};
use safetensors::Dtype;

use crate::error::CheckpointError;
use crate::header::{self, Entry};

/// A memory-mapped safetensors file. Opening it touches the header alone; a tensor's pages are
/// read from disk when the tensor is asked for.
///
/// The file must not be truncated by someone else while it is open: the operating system then
/// ends the process that touches the lost pages. Replacing it by rename is safe.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: MappedFile,
    entries: BTreeMap<String, Entry>,
}

/// One tensor, still in the file's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorView<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    /// Little-endian elements, row-major; not necessarily aligned.
    pub(crate) bytes: &'a [u8],
}

// === impl TensorFile ===

impl TensorFile {
    /// Maps the file at `path` and checks its header.
    ///
    /// # Errors
    /// The file cannot be opened, is not a regular file, or its header claims what the file does
    /// not have.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io {
            action: "open",
            path: path.to_path_buf(),
            source,
        };
        // An empty file cannot be mapped everywhere, and a directory or FIFO not at all.
        let metadata = std::fs::metadata(path).map_err(io)?;
        if !metadata.is_file() || metadata.len() == 0 {
            let reason = if metadata.is_file() {
                "is empty"
            } else {
                "is not a regular file"
            };
            return Err(CheckpointError::File {
                path: path.to_path_buf(),
                reason: format!("{reason}, expected a safetensors file"),
            });
        }
        let map = MappedFile::open(path).map_err(io)?;
        let entries = header::read(path, map.as_ref())?;
        Ok(Self {
            path: path.to_path_buf(),
            map,
            entries,
        })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its tensors, in ascending order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether a tensor of this name is there.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of the tensor `name`.
    ///
    /// # Errors
    /// No such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize], CheckpointError> {
        Ok(self.view(name)?.shape)
    }

    /// Shape and elements of the tensor `name`, which is F32 or BF16 (widened exactly).
    ///
    /// # Errors
    /// No such tensor, or another number format.
    pub fn f32(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), CheckpointError> {
        let view = self.view(name)?;
        let format = match view.dtype {
            Dtype::F32 => Format::F32,
            Dtype::BF16 => Format::Bf16,
            other => return Err(self.wrong_dtype(name, other, "F32 or BF16")),
        };
        let mut values = vec![0.0; view.bytes.len() / format.bytes()];
        decode_row(format, view.bytes, &mut values);
        Ok((view.shape.to_vec(), values))
    }

    /// Shape and elements of the tensor `name`, which is U8 or BOOL.
    ///
    /// # Errors
    /// No such tensor, or another number format.
    pub fn u8(&self, name: &str) -> Result<(Vec<usize>, Vec<u8>), CheckpointError> {
        let view = self.view(name)?;
        match view.dtype {
            Dtype::U8 | Dtype::BOOL => Ok((view.shape.to_vec(), view.bytes.to_vec())),
            other => Err(self.wrong_dtype(name, other, "U8 or BOOL")),
        }
    }

    /// Shape and elements of the tensor `name`, which is I64, I32, U8 or BOOL (widened exactly).
    ///
    /// # Errors
    /// No such tensor, or another number format.
    pub fn i64(&self, name: &str) -> Result<(Vec<usize>, Vec<i64>), CheckpointError> {
        let view = self.view(name)?;
        let values = match view.dtype {
            Dtype::I64 => whole(view.bytes, i64::from_le_bytes),
            Dtype::I32 => whole(view.bytes, |raw| i64::from(i32::from_le_bytes(raw))),
            Dtype::U8 | Dtype::BOOL => view.bytes.iter().map(|&byte| i64::from(byte)).collect(),
            other => return Err(self.wrong_dtype(name, other, "I64, I32, U8 or BOOL")),
        };
        Ok((view.shape.to_vec(), values))
    }

    /// Shape and elements of the mask `name`: whole numbers (or BOOL) that are 0 or 1.
    ///
    /// # Errors
    /// No such tensor, a format that is not a whole number, or a value other than 0 and 1.
    pub fn mask(&self, name: &str) -> Result<(Vec<usize>, Vec<bool>), CheckpointError> {
        let (shape, values) = self.i64(name)?;
        if let Some(at) = values.iter().position(|value| !matches!(value, 0 | 1)) {
            return Err(CheckpointError::Value {
                tensor: name.to_owned(),
                file: self.path.clone(),
                found: format!("{} at element {at}", values[at]),
                expected: "a mask of 0 and 1",
            });
        }
        Ok((shape, values.into_iter().map(|value| value == 1).collect()))
    }

    /// The tensor `name`, not yet decoded.
    pub(crate) fn view(&self, name: &str) -> Result<TensorView<'_>, CheckpointError> {
        let missing = || CheckpointError::MissingTensor {
            tensor: name.to_owned(),
            place: self.path.clone(),
            tensors: self.entries.len(),
        };
        let entry = self.entries.get(name).ok_or_else(missing)?;
        // The range was checked against this very mapping when the file was opened.
        let bytes = self
            .map
            .as_ref()
            .get(entry.bytes.clone())
            .ok_or_else(missing)?;
        Ok(TensorView {
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes,
        })
    }

    /// The error for a tensor whose number format is not among `expected`.
    pub(crate) fn wrong_dtype(
        &self,
        tensor: &str,
        found: Dtype,
        expected: &'static str,
    ) -> CheckpointError {
        CheckpointError::Dtype {
            tensor: tensor.to_owned(),
            file: self.path.clone(),
            found: found.to_string(),
            expected,
        }
    }
}

/// The `N`-byte little-endian numbers of `bytes`.
fn whole<const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> i64) -> Vec<i64> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|&raw| decode(raw)).collect()
}
