//! A checkpoint directory, and the layers in it.

mod layer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use expertmesh_experts::ExpertSpec;
use expertmesh_kernels::Format;
use expertmesh_routing::{FreeExpert, RouterConfig};

use crate::config::Config;
use crate::error::CheckpointError;
use crate::families::{self, Model};
use crate::layout::{Block, Part, SharedParts};
use crate::spec::{LayerSpec, LayerWeights, SharedSpec, Weight};
use crate::store::Store;
use crate::weights::{Measure, Reader};

pub use layer::CheckpointLayer;

/// A Hugging Face checkpoint: `config.json` beside `model.safetensors` or its shards.
///
/// Opening reads the configuration and the headers; weights are read when a layer's gate or expert
/// is loaded.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    model_type: &'static str,
    model: Arc<Model>,
    store: Arc<Store>,
}

// === impl Checkpoint ===

impl Checkpoint {
    /// Opens the checkpoint in `directory`.
    ///
    /// # Errors
    /// A file that is missing or cannot be read, a model type that is not supported (the message
    /// lists those that are), a field that cannot be used, or a header that the file does not keep.
    pub fn open(directory: &Path) -> Result<Self, CheckpointError> {
        let config = Config::open(directory)?;
        let (model_type, model) = families::read(&config)?;
        let store = Store::open(directory)?;
        Ok(Self {
            directory: directory.to_path_buf(),
            model_type,
            model: Arc::new(model),
            store: Arc::new(store),
        })
    }

    /// Where the checkpoint is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The family: `model_type` of `config.json`.
    #[must_use]
    pub fn model_type(&self) -> &str {
        self.model_type
    }

    /// How many layers the model has, with and without experts.
    #[must_use]
    pub fn layers(&self) -> u32 {
        self.model.layers
    }

    /// The numbers of the layers that have experts, ascending.
    #[must_use]
    pub fn moe_layers(&self) -> &[u32] {
        &self.model.moe_layers
    }

    /// The layer `layer`, to be computed in `dtype`.
    ///
    /// BF16 weights stay BF16 in memory for either format; with [`Format::F32`] the arithmetic on
    /// them is f32, which is exact. F32 and F16 weights are rounded to bf16 for [`Format::Bf16`]
    /// and kept exactly for [`Format::F32`]; what a family keeps in F32 stays so. F8 weights are
    /// multiplied by their scales and then treated as F32 ones; MXFP4 weights become BF16.
    ///
    /// # Errors
    /// No such layer, a layer without experts (both messages say which have some), or a tensor of
    /// the layer that is missing or has the wrong shape or number format.
    pub fn layer(&self, layer: u32, dtype: Format) -> Result<CheckpointLayer, CheckpointError> {
        let model = &self.model;
        if layer >= model.layers {
            return Err(CheckpointError::NoSuchLayer {
                layer,
                layers: model.layers,
                moe_layers: runs(&model.moe_layers),
            });
        }
        if model.moe_layers.binary_search(&layer).is_err() {
            let moe_layers = runs(&model.moe_layers);
            return Err(CheckpointError::NotMoe { layer, moe_layers });
        }
        let block = Block::resolve(&model.names, layer, &self.store);
        let weights = self.weigh(layer, &block, Measure::Loaded(dtype))?;
        let (sizes, router) = model.at(layer);
        let spec = LayerSpec {
            family: self.model_type.to_owned(),
            layer,
            hidden: sizes.hidden,
            latent: sizes.latent,
            ffn: sizes.ffn,
            experts: sizes.experts,
            free_experts: sizes.free,
            top_k: router.top_k,
            router: RouterConfig {
                dtype,
                free: vec![FreeExpert::Identity; sizes.free],
                ..router
            },
            expert: ExpertSpec {
                hidden: sizes.row(),
                ffn: sizes.ffn,
                kind: model.form.kind(),
                activation: model.form.activation(),
                dtype,
            },
            weight_on_input: model.weight_on_input,
            routed_scale: model.routed_scale,
            one_by_one: model.one_by_one,
            capacity: model.capacity,
            shared: self.shared_of(layer, &block),
            weights,
        };
        Ok(CheckpointLayer::new(
            spec,
            sizes,
            Arc::clone(model),
            Arc::clone(&self.store),
            block,
        ))
    }

    /// The sizes of the weights of MoE layer `layer`, after checking every tensor of it.
    pub(crate) fn weigh_layer(
        &self,
        layer: u32,
        measure: Measure,
    ) -> Result<LayerWeights, CheckpointError> {
        self.weigh(layer, &self.block(layer), measure)
    }

    /// The number formats that the matrices of the layer's first expert have in the files, each once.
    pub(crate) fn formats(&self, layer: u32) -> Result<Vec<String>, CheckpointError> {
        let (sizes, _) = self.model.at(layer);
        let reader = Reader {
            store: &self.store,
            fp8_block: self.model.fp8_block,
        };
        let first = self.block(layer).expert(0, sizes);
        let mut formats = Vec::new();
        for part in first.all().filter(|part| part.inner > 1) {
            let format = reader.format(part)?;
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        Ok(formats)
    }

    /// The names of `layer`.
    pub(crate) fn block(&self, layer: u32) -> Block {
        Block::resolve(&self.model.names, layer, &self.store)
    }

    /// The shared expert of `layer`, if its files have one.
    pub(crate) fn shared_of(&self, layer: u32, block: &Block) -> Option<SharedSpec> {
        let (sizes, _) = self.model.at(layer);
        let there = |shared: &SharedSpec| block.shared(sizes.hidden, shared.ffn).is_some();
        self.model.shared.filter(there)
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Checks every tensor of a block and adds up its sizes: a run that would fail at the last
    /// expert fails here instead, before any weight is read.
    fn weigh(
        &self,
        layer: u32,
        block: &Block,
        measure: Measure,
    ) -> Result<LayerWeights, CheckpointError> {
        let (sizes, _) = self.model.at(layer);
        let reader = Reader {
            store: &self.store,
            fp8_block: self.model.fp8_block,
        };
        let weigh = |parts: &mut dyn Iterator<Item = &Part>| {
            let mut sum = Weight::default();
            for part in parts {
                sum = sum.plus(Weight {
                    parameters: part.elements(),
                    bytes: reader.bytes(part, measure)?,
                });
            }
            Ok::<_, CheckpointError>(sum)
        };
        let gate = weigh(&mut block.gate_parts(sizes).iter())?;
        let mut expert = Weight::default();
        let mut experts = Weight::default();
        for index in 0..sizes.routed() {
            let this = weigh(&mut block.expert(index, sizes).all())?;
            experts = experts.plus(this);
            expert.parameters = this.parameters;
            expert.bytes = expert.bytes.max(this.bytes);
        }
        let shared = match self.shared_of(layer, block) {
            Some(spec) => {
                let parts = block.shared(sizes.hidden, spec.ffn);
                let parts = parts.iter().flat_map(SharedParts::all);
                weigh(&mut parts.collect::<Vec<_>>().into_iter())?
            }
            None => Weight::default(),
        };
        let projections = block.latent(sizes);
        let latent = weigh(&mut projections.iter().flatten())?;
        Ok(LayerWeights {
            gate,
            expert,
            experts,
            shared,
            latent,
        })
    }
}

/// Layer numbers for a message: `0-3, 5, 7-31`, cut short where nobody would read on.
fn runs(layers: &[u32]) -> String {
    const MOST: usize = 24;
    let mut text = Vec::new();
    for run in layers.chunk_by(|a, b| a + 1 == *b).take(MOST + 1) {
        match run {
            _ if text.len() == MOST => text.push("…".to_owned()),
            [one] => text.push(one.to_string()),
            [first, .., last] => text.push(format!("{first}-{last}")),
            [] => {}
        }
    }
    if text.is_empty() {
        "none".to_owned()
    } else {
        text.join(", ")
    }
}

#[cfg(test)]
mod tests;
