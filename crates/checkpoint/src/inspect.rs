//! What a checkpoint directory holds, without reading a weight.

mod words;

use std::ops::Range;
use std::path::Path;

use expertmesh_kernels::Format;
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
    /// How the gate makes choices and weights, in words: clauses with semicolons between them.
    pub gate: String,
    /// What is special about the experts and the sum of their results, in words; empty in most
    /// families.
    pub specials: Vec<String>,
    /// Length H of a token row.
    pub hidden: usize,
    /// Length of the rows that experts work on and that travel, where it is not H.
    pub latent: Option<usize>,
    /// Inner size of a routed expert.
    pub ffn: usize,
    /// Routed experts of a layer, free ones included; the most where layers differ.
    pub experts: usize,
    /// How many of them are free: they hand rows back and have no weights.
    pub free_experts: usize,
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
    /// What the names of its tensors begin with.
    pub block: String,
    /// Why the layer cannot be used, if so: a missing tensor, say. Its weights then are all zero.
    pub problem: Option<String>,
    /// Number formats of an expert's matrices in the files, each once: `BF16`, `MXFP4` or others.
    pub formats: Vec<String>,
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
    /// the tokens, so in an all-to-all exchange each worker holds it too. Nothing where experts work on
    /// latent rows: the coordinator holds it then, as it does the projections.
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
                block: checkpoint.block(layer).prefix().to_owned(),
                problem: None,
                stored: checkpoint.weigh_layer(layer, Measure::Stored)?,
                f32: checkpoint.weigh_layer(layer, Measure::Loaded(Format::F32))?,
                bf16: checkpoint.weigh_layer(layer, Measure::Loaded(Format::Bf16))?,
                formats: checkpoint.formats(layer)?,
            })
        };
        all().unwrap_or_else(|error| LayerInspection {
            layer,
            block: checkpoint.block(layer).prefix().to_owned(),
            problem: Some(error.to_string()),
            formats: Vec::new(),
            stored: LayerWeights::default(),
            f32: LayerWeights::default(),
            bf16: LayerWeights::default(),
        })
    };
    let at = model.moe_layers.iter().map(|&layer| model.at(layer));
    let (sizes, router) = at
        .max_by_key(|(sizes, _)| sizes.experts)
        .unwrap_or_else(|| (model.sizes, model.router.clone()));
    let shared = |&layer: &u32| checkpoint.shared_of(layer, &checkpoint.block(layer));
    Ok(Inspection {
        model_type: checkpoint.model_type().to_owned(),
        gate: words::gate(&router, model.capacity.as_ref()),
        specials: words::specials(model, sizes),
        hidden: sizes.hidden,
        latent: sizes.latent,
        ffn: sizes.ffn,
        experts: sizes.experts,
        free_experts: sizes.free,
        top_k: router.top_k,
        activation: model.form.activation().to_string(),
        shared: model.moe_layers.iter().find_map(shared),
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
        let shared = match self.latent {
            None => heaviest(&mut loaded().map(|layer| layer.shared)),
            Some(_) => Weight::default(),
        };
        let everywhere = loaded().fold(Weight::default(), |sum, layer| sum.plus(layer.expert));

        let routed = self.experts.saturating_sub(self.free_experts);
        let (each, more) = (self.experts / workers, self.experts % workers);
        Ok((0..workers)
            .map(|worker| {
                let first = worker * each + worker.min(more);
                let experts = first..first + each + usize::from(worker < more);
                // Free experts are dealt out and weigh nothing.
                let heavy = experts.start.min(routed)..experts.end.min(routed);
                let count = heavy.len() as u64;
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

#[cfg(test)]
mod tests;
