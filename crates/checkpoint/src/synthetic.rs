//! A layer out of a seed: the same on every machine that is told the same numbers.

mod gate;

use std::sync::Arc;

use expertmesh_experts::{
    Activation, Expert, ExpertError, ExpertKind, ExpertSource, ExpertSpec, IdentityExpert,
    SharedExpert, synthetic_expert, synthetic_mixed,
};
use expertmesh_kernels::Format;
use expertmesh_routing::{FreeExpert, Gate, RouterConfig, RouterPreset};

use crate::error::CheckpointError;
use crate::spec::{self, LayerSource, LayerSpec, LayerWeights, Weight};

/// As for a checkpoint's sizes: no product of them overflows 64 bits.
const MAX_SIZE: usize = 1 << 20;

/// The numbers that a synthetic layer follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntheticSpec {
    /// Length H of a token row.
    pub hidden: usize,
    /// Inner size of an expert; identity experts have none and ignore it.
    pub ffn: usize,
    /// Number of experts E.
    pub experts: usize,
    /// Choices a token makes, at most E.
    pub top_k: usize,
    /// Kind of the experts: SwiGLU with silu, a two-layer MLP with relu, or identity.
    pub kind: ExpertKind,
    /// Seed of gate and experts.
    pub seed: u64,
    /// Number of the layer in its stack: each has weights of its own.
    pub layer: u32,
    /// Number format of weights and arithmetic.
    pub dtype: Format,
}

/// A layer with random weights and Mixtral's router, unless it is given another.
#[derive(Clone, Debug)]
pub struct SyntheticLayer {
    spec: LayerSpec,
    seed: u64,
}

// === impl SyntheticLayer ===

impl SyntheticLayer {
    /// Describes the layer; weights are made when they are asked for.
    ///
    /// # Errors
    /// A size that is 0 or beyond 2²⁰, or more choices than experts. The message names the field.
    pub fn new(spec: SyntheticSpec) -> Result<Self, CheckpointError> {
        let SyntheticSpec {
            hidden,
            ffn,
            experts,
            top_k,
            kind,
            seed,
            layer,
            dtype,
        } = spec;
        let in_range = |argument, value: usize, most: usize, why: &str| {
            if (1..=most).contains(&value) {
                return Ok(());
            }
            Err(CheckpointError::Argument {
                argument,
                found: value.to_string(),
                expected: format!("1 to {most}{why}"),
            })
        };
        in_range("hidden", hidden, MAX_SIZE, "")?;
        in_range("experts", experts, MAX_SIZE, "")?;
        in_range("top_k", top_k, experts, ", the number of experts")?;
        let (matrices, activation) = match kind {
            ExpertKind::Swiglu => (3, Activation::Silu),
            ExpertKind::Mlp => (2, Activation::Relu),
            ExpertKind::Identity => (0, Activation::Silu),
        };
        let ffn = if matrices == 0 { 0 } else { ffn };
        if matrices > 0 {
            in_range("ffn", ffn, MAX_SIZE, "")?;
        }
        let weight = |parameters: usize| {
            Weight {
                parameters: 1,
                bytes: dtype.bytes() as u64,
            }
            .times(parameters as u64)
        };
        let expert = weight(hidden * ffn).times(matrices);
        Ok(Self {
            spec: LayerSpec {
                family: "synthetic".to_owned(),
                layer,
                hidden,
                latent: None,
                ffn,
                experts,
                free_experts: 0,
                top_k,
                router: RouterConfig::mixtral(experts, top_k, dtype),
                expert: ExpertSpec {
                    hidden,
                    ffn,
                    kind,
                    activation,
                    dtype,
                },
                weight_on_input: false,
                routed_scale: 1.0,
                one_by_one: false,
                capacity: None,
                shared: None,
                weights: LayerWeights {
                    gate: weight(experts * hidden),
                    expert,
                    experts: expert.times(experts as u64),
                    shared: Weight::default(),
                    latent: Weight::default(),
                },
            },
            seed,
        })
    }
}

// === gates ===

impl SyntheticLayer {
    /// The same layer with another router, which may add free experts to those of the spec.
    ///
    /// # Errors
    /// What the preset refuses for this layer's experts and choices.
    pub fn with_gate(mut self, preset: &RouterPreset) -> Result<Self, CheckpointError> {
        let LayerSpec {
            experts,
            top_k,
            router,
            layer,
            ..
        } = &self.spec;
        let router = preset
            .config(*experts, *top_k, router.dtype)
            .map_err(|source| CheckpointError::Gate {
                layer: *layer,
                source,
            })?;
        self.set_router(router);
        Ok(self)
    }

    /// The same layer with free experts after its own, for whoever does not run the gate.
    #[must_use]
    pub fn with_free(mut self, free: Vec<FreeExpert>) -> Self {
        let router = RouterConfig {
            experts: self.spec.experts + free.len(),
            free,
            ..self.spec.router.clone()
        };
        self.set_router(router);
        self
    }

    fn set_router(&mut self, router: RouterConfig) {
        self.spec.experts = router.experts;
        self.spec.free_experts = router.free.len();
        self.spec.top_k = router.top_k;
        let gate = &mut self.spec.weights.gate;
        *gate = Weight {
            parameters: (router.columns() * self.spec.hidden) as u64,
            bytes: (router.columns() * self.spec.hidden * router.dtype.bytes()) as u64,
        };
        self.spec.router = router;
    }
}

impl LayerSource for SyntheticLayer {
    fn spec(&self) -> &LayerSpec {
        &self.spec
    }

    fn gate(&self) -> Result<Gate, CheckpointError> {
        let LayerSpec {
            hidden,
            router,
            layer,
            ..
        } = &self.spec;
        gate::seeded(router, *hidden, self.seed, *layer).map_err(|source| CheckpointError::Gate {
            layer: *layer,
            source,
        })
    }

    fn expert(&self, expert: usize) -> Result<Arc<dyn Expert>, CheckpointError> {
        let experts = self.spec.experts;
        let index = u32::try_from(expert).ok().filter(|_| expert < experts);
        let index = index.ok_or(CheckpointError::NoSuchExpert { expert, experts })?;
        let (layer, shape) = (self.spec.layer, &self.spec.expert);
        let free = expert.checked_sub(self.spec.routed_experts());
        let made = match free.and_then(|at| self.spec.router.free.get(at)) {
            None => synthetic_expert(shape, self.seed, layer, index),
            Some(FreeExpert::Constant) => synthetic_mixed(shape, self.seed, layer, index),
            // A null expert is asked for nothing: its choices are skipped.
            Some(FreeExpert::Identity | FreeExpert::Null) => IdentityExpert::new(shape.hidden)
                .map(|expert| -> Arc<dyn Expert> { Arc::new(expert) }),
        };
        made.map_err(|source| CheckpointError::Expert {
            what: format!("expert {expert}"),
            layer,
            source,
        })
    }

    fn shared(&self) -> Result<Option<Arc<SharedExpert>>, CheckpointError> {
        Ok(None)
    }
}

impl ExpertSource for SyntheticLayer {
    fn load(&self, expert: usize) -> Result<Arc<dyn Expert>, ExpertError> {
        spec::load(self, expert)
    }
}
