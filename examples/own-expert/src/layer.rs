//! The coordinator's view of the layer: its shape and its gate. The experts stay with the workers.

use std::sync::Arc;

use expertmesh_checkpoint::{CheckpointError, LayerSource, LayerSpec, LayerWeights};
use expertmesh_experts::{
    Activation, Expert, ExpertKind, ExpertSource as _, ExpertSpec, SharedExpert, synthetic_gate,
};
use expertmesh_kernels::{Format, PackedMatrix};
use expertmesh_routing::{Gate, RouterConfig};

use crate::low_rank::LowRanks;

/// A layer of [`LowRanks`] behind Mixtral's router.
pub(crate) struct LowRankLayer {
    spec: LayerSpec,
    experts: LowRanks,
    seed: u64,
}

// === impl LowRankLayer ===

impl LowRankLayer {
    pub(crate) fn new(experts: LowRanks, top_k: usize, seed: u64) -> Self {
        let (hidden, rank) = (experts.hidden, experts.rank);
        Self {
            spec: LayerSpec {
                family: "low-rank".to_owned(),
                layer: 0,
                hidden,
                latent: None,
                ffn: rank,
                experts: experts.experts,
                top_k,
                router: RouterConfig::mixtral(experts.experts, top_k, Format::F32),
                // The nearest of the built-in kinds; only reports read it.
                expert: ExpertSpec {
                    hidden,
                    ffn: rank,
                    kind: ExpertKind::Mlp,
                    activation: Activation::Relu,
                    dtype: Format::F32,
                },
                free_experts: 0,
                weight_on_input: false,
                routed_scale: 1.0,
                one_by_one: false,
                capacity: None,
                shared: None,
                weights: LayerWeights::default(),
            },
            experts,
            seed,
        }
    }
}

impl LayerSource for LowRankLayer {
    fn spec(&self) -> &LayerSpec {
        &self.spec
    }

    fn gate(&self) -> Result<Gate, CheckpointError> {
        let (experts, hidden) = (self.spec.experts, self.spec.hidden);
        let rows = synthetic_gate(experts, hidden, self.seed, self.spec.layer);
        let weight = PackedMatrix::from_f32(&rows, experts, hidden).map_err(|source| {
            CheckpointError::Matrix {
                tensor: "gate".to_owned(),
                source,
            }
        })?;
        Gate::new(self.spec.router.clone(), weight, None, None).map_err(|source| {
            CheckpointError::Gate {
                layer: self.spec.layer,
                source,
            }
        })
    }

    fn expert(&self, expert: usize) -> Result<Arc<dyn Expert>, CheckpointError> {
        self.experts
            .load(expert)
            .map_err(|source| CheckpointError::Expert {
                what: format!("expert {expert}"),
                layer: self.spec.layer,
                source,
            })
    }

    fn shared(&self) -> Result<Option<Arc<SharedExpert>>, CheckpointError> {
        Ok(None)
    }
}
