//! Inputs, good and bad.

use std::path::{Path, PathBuf};

use expertmesh_checkpoint::{NamedTensor, TensorData, write};

use super::golden;

/// A safetensors file with `hidden_states` of `shape`.
pub(crate) fn hidden_states(path: &Path, shape: &[usize], values: &[f32]) {
    let tensor = NamedTensor {
        name: "hidden_states",
        shape: shape.to_vec(),
        data: TensorData::F32(values),
    };
    write(path, &[tensor]).unwrap();
}

/// A safetensors file whose header is `header`, followed by `data`.
pub(crate) fn raw(path: &Path, header: &str, data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    std::fs::write(path, bytes).unwrap();
}

/// A copy of a golden checkpoint in `directory`, its configuration changed by replacing text.
pub(crate) fn checkpoint_with(directory: &Path, case: &str, from: &str, to: &str) -> PathBuf {
    let copy = directory.join(case);
    std::fs::create_dir(&copy).unwrap();
    let source = golden(case);
    std::fs::copy(
        source.join("model.safetensors"),
        copy.join("model.safetensors"),
    )
    .unwrap();
    let config = std::fs::read_to_string(source.join("config.json")).unwrap();
    assert!(config.contains(from), "{from} is not in {config}");
    std::fs::write(copy.join("config.json"), config.replace(from, to)).unwrap();
    copy
}
