//! A layer as those see it who run it: what it computes, and who hands over its parts.

use std::sync::Arc;

use expertmesh_experts::{Expert, ExpertError, ExpertSpec, HomeExperts, SharedExpert};
use expertmesh_routing::{Gate, RouterConfig};
use serde::Serialize;

use crate::error::CheckpointError;

/// Everything about one mixture-of-experts layer but its weights.
#[derive(Clone, Debug)]
pub struct LayerSpec {
    /// The `model_type`, or `synthetic`.
    pub family: String,
    /// The layer's number in its model.
    pub layer: u32,
    /// Length H of a token row.
    pub hidden: usize,
    /// Inner size of a routed expert; 0 for identity experts.
    pub ffn: usize,
    /// Number of routed experts E.
    pub experts: usize,
    /// Choices a token makes, k.
    pub top_k: usize,
    /// The router.
    pub router: RouterConfig,
    /// The routed experts.
    pub expert: ExpertSpec,
    /// The shared expert, where there is one.
    pub shared: Option<SharedSpec>,
    /// What the layer's weights amount to, loaded for `router.dtype`.
    pub weights: LayerWeights,
}

/// A shared expert: computed for every token, at the token's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SharedSpec {
    /// Its inner size.
    pub ffn: usize,
    /// Whether its output is multiplied by the sigmoid of a gate of its own.
    pub gated: bool,
}

/// Size of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Weight {
    /// Number of parameters.
    pub parameters: u64,
    /// Bytes in memory once loaded.
    pub bytes: u64,
}

/// Size of the parts of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LayerWeights {
    /// The gate.
    pub gate: Weight,
    /// One routed expert, the largest where they differ in number format.
    pub expert: Weight,
    /// All routed experts.
    pub experts: Weight,
    /// The shared expert with its gate; zero where there is none.
    pub shared: Weight,
}

/// Hands over the parts of one layer, each when it is asked for: a worker that holds four experts
/// loads four.
pub trait LayerSource: Send + Sync {
    /// What the layer is.
    fn spec(&self) -> &LayerSpec;

    /// Loads the gate.
    ///
    /// # Errors
    /// Weights that are missing or do not fit.
    fn gate(&self) -> Result<Gate, CheckpointError>;

    /// Loads routed expert `expert`.
    ///
    /// # Errors
    /// No such expert, or weights that are missing or do not fit.
    fn expert(&self, expert: usize) -> Result<Arc<dyn Expert>, CheckpointError>;

    /// Loads the shared expert, `None` where the layer has none.
    ///
    /// # Errors
    /// Weights that are missing or do not fit.
    fn shared(&self) -> Result<Option<Arc<SharedExpert>>, CheckpointError>;

    /// Loads what a token's home computes itself: the shared expert.
    ///
    /// # Errors
    /// As [`LayerSource::shared`].
    fn home(&self) -> Result<HomeExperts, CheckpointError> {
        let experts = self.spec().experts;
        Ok(HomeExperts::new(self.shared()?, experts, Vec::new()))
    }
}

/// An expert of `source` with the error of `ExpertSource`, whose cause says which tensor.
pub(crate) fn load(
    source: &impl LayerSource,
    expert: usize,
) -> Result<Arc<dyn Expert>, ExpertError> {
    source.expert(expert).map_err(|error| match error {
        CheckpointError::NoSuchExpert { expert, experts } => {
            ExpertError::NoSuchExpert { expert, experts }
        }
        other => ExpertError::Load {
            expert,
            source: Box::new(other),
        },
    })
}

// === impl LayerWeights ===

impl LayerWeights {
    /// The whole layer.
    #[must_use]
    pub fn total(&self) -> Weight {
        self.gate.plus(self.experts).plus(self.shared)
    }
}

// === impl Weight ===

impl Weight {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            parameters: self.parameters.saturating_add(other.parameters),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// `count` of it.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self {
            parameters: self.parameters.saturating_mul(count),
            bytes: self.bytes.saturating_mul(count),
        }
    }
}
