//! A layer, as a coordinator holds it and as a worker is told to load it.

use std::path::Path;
use std::sync::Arc;

use expertmesh_checkpoint::{Checkpoint, LayerSource, SyntheticLayer, SyntheticSpec};
use expertmesh_experts::ExpertSource;
use expertmesh_kernels::Format;
use expertmesh_routing::FreeExpert;
use expertmesh_wire::{format_to_wire, v1};
use expertmesh_worker::ExpertRegistry;

/// One layer in the forms that a cluster needs.
#[derive(Clone)]
pub struct Model {
    /// Gate, experts and shape.
    pub source: Arc<dyn LayerSource>,
    /// The same for the workers.
    pub wire: v1::ModelSource,
    /// Experts that the workers bring themselves.
    pub registry: ExpertRegistry,
}

/// Name under which [`Model::custom`] registers its experts.
const CUSTOM: &str = "testkit";

// === impl Model ===

impl Model {
    /// A layer out of a seed.
    pub fn synthetic(spec: SyntheticSpec) -> Self {
        let narrow = |value: usize| u32::try_from(value).expect("a small size");
        let synthetic = v1::SyntheticModel {
            hidden: narrow(spec.hidden),
            ffn: narrow(spec.ffn),
            experts: narrow(spec.experts),
            top_k: narrow(spec.top_k),
            expert: spec.kind.to_string(),
            seed: spec.seed,
            free: Vec::new(),
            layer: spec.layer,
        };
        Self {
            source: Arc::new(SyntheticLayer::new(spec).expect("a shape that exists")),
            wire: source(v1::model_source::Source::Synthetic(synthetic), spec.dtype),
            registry: ExpertRegistry::default(),
        }
    }

    /// The layer of `spec` whose coordinator has the gate of `layer`.
    pub fn gated(spec: SyntheticSpec, layer: SyntheticLayer) -> Self {
        let plain = Self::synthetic(spec);
        let router = &layer.spec().router;
        let Some(v1::model_source::Source::Synthetic(synthetic)) = plain.wire.source else {
            return plain;
        };
        let free = router.free.iter().map(|kind| match kind {
            FreeExpert::Null => v1::FreeExpert::Null,
            FreeExpert::Identity => v1::FreeExpert::Identity,
            FreeExpert::Constant => v1::FreeExpert::Constant,
        });
        let synthetic = v1::SyntheticModel {
            experts: u32::try_from(router.experts).expect("a small size"),
            free: free.map(i32::from).collect(),
            ..synthetic
        };
        Self {
            wire: source(v1::model_source::Source::Synthetic(synthetic), spec.dtype),
            source: Arc::new(layer),
            registry: ExpertRegistry::default(),
        }
    }

    /// Layer `layer` of the checkpoint in `directory`.
    pub fn checkpoint(directory: &Path, layer: u32, dtype: Format) -> Self {
        let checkpoint = Checkpoint::open(directory).expect("a checkpoint");
        let from = v1::CheckpointModel {
            directory: directory.to_str().expect("a path in UTF-8").to_owned(),
            layer,
        };
        Self {
            source: Arc::new(checkpoint.layer(layer, dtype).expect("a layer")),
            wire: source(v1::model_source::Source::Checkpoint(from), dtype),
            registry: ExpertRegistry::default(),
        }
    }

    /// The synthetic layer of `spec` whose workers take their experts from `experts`.
    pub fn custom(spec: SyntheticSpec, experts: Arc<dyn ExpertSource>) -> Self {
        let narrow = |value: usize| u32::try_from(value).expect("a small size");
        let custom = v1::CustomModel {
            name: CUSTOM.to_owned(),
            hidden: narrow(spec.hidden),
            experts: narrow(spec.experts),
            top_k: narrow(spec.top_k),
            seed: spec.seed,
            weight_in_dtype: false,
        };
        Self {
            source: Arc::new(SyntheticLayer::new(spec).expect("a shape that exists")),
            wire: source(v1::model_source::Source::Custom(custom), spec.dtype),
            registry: ExpertRegistry::default().with(CUSTOM, experts),
        }
    }
}

fn source(source: v1::model_source::Source, dtype: Format) -> v1::ModelSource {
    v1::ModelSource {
        source: Some(source),
        dtype: format_to_wire(dtype).into(),
    }
}
