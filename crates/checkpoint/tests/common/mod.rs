//! Checkpoints for tests: the committed ones, and variations on them.

#![allow(dead_code, reason = "each test binary uses a part of it")]

#[path = "../../../testkit/src/cases.rs"]
#[allow(unreachable_pub, reason = "public where it lives")]
pub(crate) mod cases;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Cases whose weights are all BF16 in one layout, experts and gate by name.
pub(crate) const PLAIN: [&str; 4] = ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe"];

/// The directory of a committed golden case: a checkpoint with one layer of two.
pub(crate) fn golden(case: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/goldens")).join(case)
}

/// The tensors of a file, to be changed at will.
#[derive(Clone, Default)]
pub(crate) struct Tensors(pub(crate) BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Tensors {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = parsed.tensors().into_iter();
        Self(
            tensors
                .map(|(name, view)| {
                    (
                        name,
                        (view.dtype(), view.shape().to_vec(), view.data().to_vec()),
                    )
                })
                .collect(),
        )
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let views = self.0.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }

    /// Every BF16 tensor as `dtype` (F32 or F16), which holds the same values.
    pub(crate) fn widened(&self, dtype: Dtype) -> Self {
        let widen = |data: &[u8]| -> Vec<u8> {
            let values = data
                .chunks_exact(2)
                .map(|raw| half::bf16::from_le_bytes([raw[0], raw[1]]));
            match dtype {
                Dtype::F32 => values.flat_map(|v| v.to_f32().to_le_bytes()).collect(),
                Dtype::F16 => values
                    .flat_map(|v| half::f16::from_f32(v.to_f32()).to_le_bytes())
                    .collect(),
                other => panic!("{other}"),
            }
        };
        let all = self.0.iter();
        Self(
            all.map(|(name, (_, shape, data))| (name.clone(), (dtype, shape.clone(), widen(data))))
                .collect(),
        )
    }
}

/// A temporary copy of a golden checkpoint whose weights `change` has seen.
pub(crate) fn variation(case: &str, change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(
        golden(case).join("config.json"),
        directory.path().join("config.json"),
    )
    .unwrap();
    let mut tensors = Tensors::read(&golden(case).join("model.safetensors"));
    change(&mut tensors);
    tensors.write(&directory.path().join("model.safetensors"));
    directory
}
