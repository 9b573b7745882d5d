//! What a checkpoint directory holds, without reading a weight.

use std::ops::Range;
use std::path::Path;

use expertmesh_kernels::Format;
use expertmesh_routing::{
    GroupScore, Groups, Logits, Norm, Post, RouterConfig, Score, Select, WeightDtype,
};
use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::error::CheckpointError;
use crate::spec::{LayerWeights, SharedSpec, Weight};
use crate::weights::Measure;

/// More workers than that are a slip of the finger; the bound keeps the answer's size in check.
const MAX_WORKERS: usize = 1 << 16;

/// A checkpoint in figures. Made by [`describe`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// `model_type` of `config.json`.
    pub model_type: String,
    /// How the gate makes choices and weights, in words.
    pub gate: String,
    /// Length H of a token row.
    pub hidden: usize,
    /// Inner size of a routed expert.
    pub ffn: usize,
    /// Routed experts of a layer.
    pub experts: usize,
    /// Choices a token makes.
    pub top_k: usize,
    /// The experts' activation.
    pub activation: String,
    /// The shared expert, where there is one.
    pub shared: Option<SharedSpec>,
    /// Layers of the model, with and without experts.
    pub layers: u32,
    /// The layers with experts, ascending.
    pub moe_layers: Vec<LayerInspection>,
    /// Safetensors files.
    pub files: usize,
    /// Tensors in them, those outside the experts' layers too.
    pub tensors: usize,
}

/// One layer with experts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerInspection {
    /// Its number.
    pub layer: u32,
    /// Why the layer cannot be used, if so: a missing tensor, say. Its weights then are all zero.
    pub problem: Option<String>,
    /// Weights as they are in the files.
    pub stored: LayerWeights,
    /// Weights in memory when computing in f32.
    pub f32: LayerWeights,
    /// Weights in memory when computing in bf16.
    pub bf16: LayerWeights,
}

/// What one worker holds under contiguous placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerShare {
    /// The worker's index.
    pub worker: usize,
    /// Its experts of a layer.
    pub experts: Range<usize>,
    /// Their weights in the layer where they are heaviest.
    pub layer: Weight,
    /// Their weights in all layers together.
    pub model: Weight,
    /// The shared expert's weights in the layer where they are heaviest. It runs at the home of
    /// the tokens, so in an all-to-all exchange each worker holds it too.
    pub shared: Weight,
}

/// Describes the checkpoint in `directory`. Headers are read, weights are not.
///
/// A layer whose tensors are missing or do not fit is reported in its
/// [`problem`](LayerInspection::problem), so that a part of a checkpoint can be inspected.
///
/// # Errors
/// As [`Checkpoint::open`].
pub fn describe(directory: &Path) -> Result<Inspection, CheckpointError> {
    let checkpoint = Checkpoint::open(directory)?;
    let model = checkpoint.model();
    let layer = |&layer: &u32| {
        let all = || {
            Ok::<_, CheckpointError>(LayerInspection {
                layer,
                problem: None,
                stored: checkpoint.weigh_layer(layer, Measure::Stored)?,
                f32: checkpoint.weigh_layer(layer, Measure::Loaded(Format::F32))?,
                bf16: checkpoint.weigh_layer(layer, Measure::Loaded(Format::Bf16))?,
            })
        };
        all().unwrap_or_else(|error| LayerInspection {
            layer,
            problem: Some(error.to_string()),
            stored: LayerWeights::default(),
            f32: LayerWeights::default(),
            bf16: LayerWeights::default(),
        })
    };
    Ok(Inspection {
        model_type: checkpoint.model_type().to_owned(),
        gate: words(&model.router),
        hidden: model.sizes.hidden,
        ffn: model.sizes.ffn,
        experts: model.sizes.experts,
        top_k: model.router.top_k,
        activation: model.activation.to_string(),
        shared: model.shared,
        layers: model.layers,
        moe_layers: model.moe_layers.iter().map(layer).collect(),
        files: checkpoint.store().files(),
        tensors: checkpoint.store().tensors(),
    })
}

// === impl Inspection ===

impl Inspection {
    /// What each of `workers` workers would hold, computing in `dtype`, when the experts are dealt
    /// out in contiguous runs and the first E mod `workers` workers hold one more.
    ///
    /// # Errors
    /// `workers` is 0 or beyond 65 536.
    pub fn per_worker(
        &self,
        workers: usize,
        dtype: Format,
    ) -> Result<Vec<WorkerShare>, CheckpointError> {
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Err(CheckpointError::Argument {
                argument: "workers",
                found: workers.to_string(),
                expected: format!("1 to {MAX_WORKERS}"),
            });
        }
        let loaded = || self.moe_layers.iter().map(|layer| layer.loaded(dtype));
        let heaviest = |weights: &mut dyn Iterator<Item = Weight>| {
            weights
                .max_by_key(|weight| weight.bytes)
                .unwrap_or_default()
        };
        let expert = heaviest(&mut loaded().map(|layer| layer.expert));
        let shared = heaviest(&mut loaded().map(|layer| layer.shared));
        let everywhere = loaded().fold(Weight::default(), |sum, layer| sum.plus(layer.expert));

        let (each, more) = (self.experts / workers, self.experts % workers);
        Ok((0..workers)
            .map(|worker| {
                let first = worker * each + worker.min(more);
                let experts = first..first + each + usize::from(worker < more);
                let count = experts.len() as u64;
                WorkerShare {
                    worker,
                    experts,
                    layer: expert.times(count),
                    model: everywhere.times(count),
                    shared,
                }
            })
            .collect())
    }
}

// === impl LayerInspection ===

impl LayerInspection {
    /// The weights in memory when computing in `dtype`.
    #[must_use]
    pub fn loaded(&self, dtype: Format) -> LayerWeights {
        match dtype {
            Format::F32 => self.f32,
            Format::Bf16 => self.bf16,
        }
    }
}

/// A router as a sentence.
fn words(router: &RouterConfig) -> String {
    let logits = match router.logits {
        Logits::Model => "logits in the model's format",
        Logits::ModelThenF32 => "logits in the model's format, continued in f32",
        Logits::F32 => "logits in f32",
    };
    let capped = router
        .softcap
        .map_or(String::new(), |cap| format!(", capped softly at {cap}"));
    let score = match router.score {
        Score::None => "",
        Score::Softmax { .. } => ", softmax over all experts",
        Score::Sigmoid { .. } => ", sigmoid of each",
        Score::SqrtSoftplus => ", square root of softplus of each",
    };
    let key = match router.select {
        Select::Score => "score",
        Select::ScorePlusBias => "score plus bias",
        Select::Logit => "logit",
    };
    let groups = router
        .groups
        .map_or(String::new(), |Groups { n, keep, by, .. }| {
            let by = match by {
                GroupScore::Max => "best expert".to_owned(),
                GroupScore::Sum2 => "two best experts".to_owned(),
                GroupScore::SumTop { n } => format!("{n} best experts"),
            };
            format!(" among the {keep} groups of {n} with the {by}")
        });
    let post = match router.post {
        Post::None => "",
        Post::Softmax { .. } => ", softmax over those",
        Post::Sigmoid { .. } => ", sigmoid of those",
    };
    let norm = match router.norm {
        Norm::None => "not normalised".to_owned(),
        Norm::Sum { eps: 0.0 } => "divided by their sum".to_owned(),
        Norm::Sum { eps } => format!("divided by their sum + {eps:e}"),
        Norm::ClampSum { min } => format!("divided by their sum, at least {min:e}"),
        Norm::PNorm { p } => format!("divided by their {p}-norm"),
    };
    let scale = match router.scale {
        1.0 => String::new(),
        scale => format!(", times {scale}"),
    };
    let format = match router.weight_dtype {
        WeightDtype::F32 => "kept in f32",
        WeightDtype::Model => "in the model's format",
    };
    format!(
        "{logits}{capped}{score}; the {} highest by {key}{groups}{post}; \
         weights {norm}{scale}, {format}",
        router.top_k
    )
}

#[cfg(test)]
mod tests;
