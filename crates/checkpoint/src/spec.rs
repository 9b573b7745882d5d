//! A layer as those see it who run it: what it computes, and who hands over its parts.

use std::sync::Arc;

use expertmesh_experts::{
    Expert, ExpertError, ExpertSpec, HomeExperts, LatentProjections, SharedExpert,
};
use expertmesh_routing::{Gate, ModelCapacity, RouterConfig};
use serde::Serialize;

use crate::error::CheckpointError;

/// Everything about one mixture-of-experts layer but its weights.
#[derive(Clone, Debug)]
pub struct LayerSpec {
    /// The `model_type`, or `synthetic`.
    pub family: String,
    /// The layer's number in its model.
    pub layer: u32,
    /// Length H of a token row: of hidden states, outputs, the gate's rows and the shared expert's.
    pub hidden: usize,
    /// Length of the rows that the routed experts work on, where projections lead from hidden states
    /// to them and back; `None` where they are the token rows themselves.
    pub latent: Option<usize>,
    /// Inner size of a routed expert; 0 for identity experts.
    pub ffn: usize,
    /// Number of routed experts E: logits of the gate, free experts included.
    pub experts: usize,
    /// How many of them are free, the last ones: they hand their rows back, and no worker need
    /// hold them.
    pub free_experts: usize,
    /// Choices a token makes, k.
    pub top_k: usize,
    /// The router.
    pub router: RouterConfig,
    /// The routed experts.
    pub expert: ExpertSpec,
    /// Whether gate weights multiply the experts' input, `FFN(R(x w))`, and results are then added
    /// up with weight 1.
    pub weight_on_input: bool,
    /// Multiplies the sum over the routed experts, once it is rounded, before the shared expert is
    /// added; 1 in most families.
    pub routed_scale: f32,
    /// Whether a token's results are added up in the order of the experts and each sum is rounded
    /// to the model's format, as families do whose reference is a loop over experts. Else they are
    /// added up in slot order, in f32, and rounded once.
    pub one_by_one: bool,
    /// The model's own capacity rule, where it has one.
    pub capacity: Option<ModelCapacity>,
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
    /// Which network it is.
    pub kind: SharedKind,
    /// How its output and that of the routed experts become one.
    pub combine: Combine,
}

/// The network of a shared expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SharedKind {
    /// Gate, up and down projection.
    Glu,
    /// Up and down projection.
    Mlp,
    /// One row for every token: a bias on the block's output. Its inner size is 0.
    Constant,
}

/// How a block adds up its shared and its routed experts, both rounded to the model's format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Combine {
    /// `R(routed + shared)`.
    #[default]
    Sum,
    /// `R(routed + shared) / 2`.
    Average,
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
    /// The gate, with its biases.
    pub gate: Weight,
    /// One routed expert, the largest where they differ in number format.
    pub expert: Weight,
    /// All routed experts.
    pub experts: Weight,
    /// The shared expert with its gate; zero where there is none. Every home holds it: every worker,
    /// unless experts work on latent rows.
    pub shared: Weight,
    /// The projections into latent rows and out of them, which the coordinator alone holds; zero where
    /// there are none.
    pub latent: Weight,
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

    /// Loads routed expert `expert`; a free one is an [`IdentityExpert`].
    ///
    /// [`IdentityExpert`]: expertmesh_experts::IdentityExpert
    ///
    /// # Errors
    /// No such expert, or weights that are missing or do not fit.
    fn expert(&self, expert: usize) -> Result<Arc<dyn Expert>, CheckpointError>;

    /// Loads the shared expert, `None` where the layer has none.
    ///
    /// # Errors
    /// Weights that are missing or do not fit.
    fn shared(&self) -> Result<Option<Arc<SharedExpert>>, CheckpointError>;

    /// Loads the projections around the routed experts of a layer with a
    /// [latent size](LayerSpec::latent); `None` for the others.
    ///
    /// # Errors
    /// Weights that are missing or do not fit.
    fn projections(&self) -> Result<Option<LatentProjections>, CheckpointError> {
        Ok(None)
    }

    /// Loads what a token's home computes itself: the shared expert and the free ones. A home of
    /// latent rows computes nothing, for it has no hidden states: the shared expert is the
    /// coordinator's.
    ///
    /// # Errors
    /// As [`LayerSource::shared`] and [`LayerSource::expert`]; free experts beside a latent size.
    fn home(&self) -> Result<HomeExperts, CheckpointError> {
        let spec = self.spec();
        let routed = spec.routed_experts();
        if let Some(latent) = spec.latent {
            return match spec.free_experts {
                0 => Ok(HomeExperts::default()),
                free => Err(CheckpointError::Argument {
                    argument: "free experts",
                    found: format!(
                        "{free} in a layer whose experts work on {latent} latent values"
                    ),
                    expected: "none there: a free expert answers with hidden states".to_owned(),
                }),
            };
        }
        let free = (routed..spec.experts).map(|expert| self.expert(expert));
        let free = free.collect::<Result<Vec<_>, _>>()?;
        Ok(HomeExperts::new(self.shared()?, routed, free))
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

// === impl LayerSpec ===

impl LayerSpec {
    /// Experts with weights, the first ones.
    #[must_use]
    pub fn routed_experts(&self) -> usize {
        self.experts.saturating_sub(self.free_experts)
    }

    /// Length of the rows that travel: what routed experts are given and answer, and homes add up.
    #[must_use]
    pub fn row_width(&self) -> usize {
        self.latent.unwrap_or(self.hidden)
    }
}

// === impl LayerWeights ===

impl LayerWeights {
    /// The whole layer.
    #[must_use]
    pub fn total(&self) -> Weight {
        let beside = self.shared.plus(self.latent);
        self.gate.plus(self.experts).plus(beside)
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
