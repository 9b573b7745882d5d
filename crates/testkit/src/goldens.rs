//! The committed cases: tiny blocks of real model families with the reference's answers.

use std::path::{Path, PathBuf};

use expertmesh_checkpoint::TensorFile;
use expertmesh_kernels::Format;

use crate::cases::golden_layer;
use crate::model::Model;

/// One case: a layer, its input, and what the reference implementation computed.
pub struct Golden {
    /// Name of its directory.
    pub case: &'static str,
    /// The layer in `dtype`.
    pub model: Model,
    /// Number format of the arithmetic.
    pub dtype: Format,
    /// `[tokens, hidden]`, batch and sequence flattened.
    pub x: Vec<f32>,
    /// Token rows of the input.
    pub tokens: usize,
    /// Tokens of a sequence.
    pub sequence: usize,
    expected: TensorFile,
}

/// The directory of a case: a checkpoint with its input and expected tensors beside it.
pub fn golden_dir(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("goldens")
        .join(case)
}

// === impl Golden ===

impl Golden {
    /// Opens `case` for arithmetic in `dtype`.
    pub fn open(case: &'static str, dtype: Format) -> Self {
        let directory = golden_dir(case);
        let file = |name: &str| TensorFile::open(&directory.join(name)).expect("a golden file");
        let input = file("input.safetensors");
        let (shape, x) = input.f32("hidden_states").expect("hidden states");
        Self {
            case,
            model: Model::checkpoint(&directory, golden_layer(case), dtype),
            dtype,
            x,
            tokens: shape[0] * shape[1],
            sequence: shape[1],
            expected: file("expected.safetensors"),
        }
    }

    /// The expected tensor `name` of this number format, flattened.
    pub fn expected(&self, name: &str) -> Vec<f32> {
        let name = format!("{}.{name}", self.dtype);
        self.expected.f32(&name).expect("an expected tensor").1
    }

    /// The expected outputs: of one sum rounded once, where the family has an implementation that
    /// adds up so.
    pub fn expected_output(&self) -> Vec<f32> {
        let grouped = format!("{}.output_grouped_mm", self.dtype);
        match self.expected.f32(&grouped) {
            Ok((_, values)) => values,
            Err(_) => self.expected("output"),
        }
    }

    /// The expected experts of each token, ascending.
    pub fn expected_experts(&self) -> Vec<Vec<u32>> {
        let name = format!("{}.topk_index", self.dtype);
        let (shape, index) = self.expected.i64(&name).expect("expected experts");
        let narrow = |one: &i64| u32::try_from(*one).expect("an expert's index");
        index
            .chunks_exact(shape[1])
            .map(|token| token.iter().map(narrow).collect())
            .collect()
    }
}
