//! A checkpoint directory, and one of its layers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use expertmesh_experts::{
    Expert, ExpertError, ExpertSource, ExpertSpec, SharedExpert, SwigluExpert,
};
use expertmesh_kernels::{Format, PackedMatrix};
use expertmesh_routing::{Gate, RouterConfig};

use crate::config::Config;
use crate::error::CheckpointError;
use crate::families::{self, Model};
use crate::layout::{Block, ExpertParts, Part};
use crate::spec::{self, LayerSource, LayerSpec, LayerWeights, Weight};
use crate::store::Store;
use crate::weights::{self, Measure};

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

/// One layer of a [`Checkpoint`], for arithmetic in one number format.
#[derive(Clone, Debug)]
pub struct CheckpointLayer {
    spec: LayerSpec,
    model: Arc<Model>,
    store: Arc<Store>,
    block: Block,
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
    /// and kept exactly for [`Format::F32`].
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
        let weights = self.weigh(&block, Measure::Loaded(dtype))?;
        let spec = LayerSpec {
            family: self.model_type.to_owned(),
            layer,
            hidden: model.sizes.hidden,
            ffn: model.sizes.ffn,
            experts: model.sizes.experts,
            top_k: model.router.top_k,
            router: RouterConfig {
                dtype,
                ..model.router.clone()
            },
            expert: ExpertSpec {
                hidden: model.sizes.hidden,
                ffn: model.sizes.ffn,
                kind: model.kind,
                activation: model.activation,
                dtype,
            },
            shared: model.shared,
            weights,
        };
        Ok(CheckpointLayer {
            spec,
            model: Arc::clone(model),
            store: Arc::clone(&self.store),
            block,
        })
    }

    /// The sizes of the weights of MoE layer `layer`, after checking every tensor of it.
    pub(crate) fn weigh_layer(
        &self,
        layer: u32,
        measure: Measure,
    ) -> Result<LayerWeights, CheckpointError> {
        self.weigh(
            &Block::resolve(&self.model.names, layer, &self.store),
            measure,
        )
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Checks every tensor of a block and adds up its sizes: a run that would fail at the last
    /// expert fails here instead, before any weight is read.
    fn weigh(&self, block: &Block, measure: Measure) -> Result<LayerWeights, CheckpointError> {
        let sizes = self.model.sizes;
        let weigh = |parts: &[&Part]| {
            parts.iter().try_fold(Weight::default(), |sum, part| {
                let bytes = weights::bytes(&self.store, part, measure)?;
                Ok(sum.plus(Weight {
                    parameters: part.elements(),
                    bytes,
                }))
            })
        };
        let gate = weigh(&[&block.gate(sizes)])?;
        let mut expert = Weight::default();
        let mut experts = Weight::default();
        for index in 0..sizes.experts {
            let this = weigh(&block.expert(index, sizes).all())?;
            experts = experts.plus(this);
            expert.parameters = this.parameters;
            expert.bytes = expert.bytes.max(this.bytes);
        }
        let shared = self
            .model
            .shared
            .and_then(|shared| block.shared(sizes.hidden, shared.ffn));
        let shared = match &shared {
            Some((parts, mix)) => {
                let mut all = parts.all().to_vec();
                all.extend(mix);
                weigh(&all)?
            }
            None => Weight::default(),
        };
        Ok(LayerWeights {
            gate,
            expert,
            experts,
            shared,
        })
    }
}

// === impl CheckpointLayer ===

impl CheckpointLayer {
    fn matrix(&self, part: &Part) -> Result<PackedMatrix, CheckpointError> {
        weights::matrix(&self.store, part, self.spec.expert.dtype)
    }

    fn swiglu(&self, parts: &ExpertParts, what: String) -> Result<SwigluExpert, CheckpointError> {
        let gate = self.matrix(&parts.gate)?;
        let up = self.matrix(&parts.up)?;
        let down = self.matrix(&parts.down)?;
        let ExpertSpec {
            activation, dtype, ..
        } = self.spec.expert;
        SwigluExpert::new(gate, up, down, activation, dtype)
            .map_err(|source| self.refused(what, source))
    }

    fn refused(&self, what: String, source: ExpertError) -> CheckpointError {
        CheckpointError::Expert {
            what,
            layer: self.spec.layer,
            source,
        }
    }
}

impl LayerSource for CheckpointLayer {
    fn spec(&self) -> &LayerSpec {
        &self.spec
    }

    fn gate(&self) -> Result<Gate, CheckpointError> {
        let weight = self.matrix(&self.block.gate(self.model.sizes))?;
        Gate::new(self.spec.router.clone(), weight, None, None).map_err(|source| {
            CheckpointError::Gate {
                layer: self.spec.layer,
                source,
            }
        })
    }

    fn expert(&self, expert: usize) -> Result<Arc<dyn Expert>, CheckpointError> {
        let experts = self.spec.experts;
        if expert >= experts {
            return Err(CheckpointError::NoSuchExpert { expert, experts });
        }
        let parts = self.block.expert(expert, self.model.sizes);
        Ok(Arc::new(self.swiglu(&parts, format!("expert {expert}"))?))
    }

    fn shared(&self) -> Result<Option<Arc<SharedExpert>>, CheckpointError> {
        let Some(shared) = self.spec.shared else {
            return Ok(None);
        };
        let Some((parts, mix)) = self.block.shared(self.spec.hidden, shared.ffn) else {
            return Ok(None);
        };
        let what = "shared expert";
        let expert = Box::new(self.swiglu(&parts, what.to_owned())?);
        let gate = mix.map(|mix| self.matrix(&mix)).transpose()?;
        let built = SharedExpert::new(expert, gate, self.spec.expert.dtype)
            .map_err(|source| self.refused(what.to_owned(), source))?;
        Ok(Some(Arc::new(built)))
    }
}

impl ExpertSource for CheckpointLayer {
    fn load(&self, expert: usize) -> Result<Arc<dyn Expert>, ExpertError> {
        spec::load(self, expert)
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
