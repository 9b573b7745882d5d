//! The model families: what a `config.json` of each means, and under which names its weights are.
//!
//! A family is a table entry and a function from its configuration to a [`Model`]. A new one adds
//! a module (or an entry in a kin's module) and its line in [`GROUPS`]; nothing else asks for a
//! model type. Semantics follow the `transformers` library, 5.23; where a published configuration
//! may leave a field out, the default is that of its configuration class.

mod cohere;
mod common;
mod deepseek;
mod dense_gate;
mod granite;
mod llama4;
mod mixtral;
mod openai;
mod qwen;
mod sigmoid;
mod top2;

use expertmesh_experts::{Activation, Clamp, ExpertKind};
use expertmesh_routing::{ModelCapacity, RouterConfig};

use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::{Names, Sizes};
use crate::spec::SharedSpec;

/// Every group of families that share a module.
const GROUPS: &[&[Family]] = &[
    cohere::FAMILIES,
    deepseek::FAMILIES,
    dense_gate::FAMILIES,
    granite::FAMILIES,
    llama4::FAMILIES,
    mixtral::FAMILIES,
    openai::FAMILIES,
    qwen::FAMILIES,
    sigmoid::FAMILIES,
    top2::FAMILIES,
];

/// One value of `model_type`.
pub(crate) struct Family {
    pub(crate) model_type: &'static str,
    /// The objects of the configuration, outermost first, in which the text model's fields are.
    pub(crate) nested: &'static [&'static str],
    /// Whether the reference adds up experts one by one, each sum rounded.
    pub(crate) one_by_one: bool,
    /// Reads the family's fields.
    pub(crate) read: fn(&Config) -> Result<Model, CheckpointError>,
}

/// What a configuration says about its mixture-of-experts layers, the same for each of them unless
/// `by_layer` says otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) sizes: Sizes,
    pub(crate) layers: u32,
    /// Ascending.
    pub(crate) moe_layers: Vec<u32>,
    /// Sizes and choices of each layer, with experts or without, where layers differ; else empty.
    pub(crate) by_layer: Vec<(Sizes, usize)>,
    /// With `dtype` to be replaced by the one asked for.
    pub(crate) router: RouterConfig,
    pub(crate) form: Form,
    pub(crate) shared: Option<SharedSpec>,
    pub(crate) weight_on_input: bool,
    pub(crate) routed_scale: f32,
    pub(crate) one_by_one: bool,
    pub(crate) capacity: Option<ModelCapacity>,
    pub(crate) names: Names,
    /// Rows and columns that share a scale in F8 weights.
    pub(crate) fp8_block: [usize; 2],
}

/// What an expert's network is, the same for routed and shared ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    /// Gate, up and down projection.
    Glu {
        activation: Activation,
        clamp: Clamp,
    },
    /// Up and down projection, and a factor on the output of routed experts.
    Mlp { activation: Activation, scale: f32 },
}

/// The model type of `config` and its meaning.
///
/// # Errors
/// No `model_type`, one that is not supported (the message lists those that are), or a field that
/// the family cannot use.
pub(crate) fn read(config: &Config) -> Result<(&'static str, Model), CheckpointError> {
    let found = config
        .text("model_type")?
        .ok_or_else(|| config.missing("model_type"))?;
    let family = GROUPS
        .iter()
        .flat_map(|group| group.iter())
        .find(|family| family.model_type == found)
        .ok_or_else(|| config.wrong("model_type", format!("{found:?}"), one_of(&known())))?;
    let mut inner = None;
    for name in family.nested {
        inner = Some(inner.as_ref().unwrap_or(config).nested(name)?);
    }
    let mut model = (family.read)(inner.as_ref().unwrap_or(config))?;
    model.fp8_block = common::fp8_block(config)?;
    model.one_by_one = family.one_by_one;
    Ok((family.model_type, model))
}

/// The supported values of `model_type`, in alphabetical order.
pub(crate) fn known() -> Vec<&'static str> {
    let all = GROUPS.iter().flat_map(|group| group.iter());
    let mut known: Vec<_> = all.map(|family| family.model_type).collect();
    known.sort_unstable();
    known
}

fn one_of(known: &[&str]) -> String {
    format!("one of {}", known.join(", "))
}

// === impl Family ===

impl Family {
    /// A family whose fields are at the top of its configuration.
    const fn new(
        model_type: &'static str,
        read: fn(&Config) -> Result<Model, CheckpointError>,
    ) -> Self {
        Self {
            model_type,
            nested: &[],
            one_by_one: false,
            read,
        }
    }

    /// The same family, whose reference adds up experts one by one.
    const fn one_by_one(mut self) -> Self {
        self.one_by_one = true;
        self
    }

    /// A family whose fields are in `text_config`.
    const fn in_text_config(
        model_type: &'static str,
        read: fn(&Config) -> Result<Model, CheckpointError>,
    ) -> Self {
        Self {
            model_type,
            nested: &["text_config"],
            one_by_one: false,
            read,
        }
    }
}

// === impl Model ===

impl Model {
    /// Sizes and router of `layer`.
    pub(crate) fn at(&self, layer: u32) -> (Sizes, RouterConfig) {
        let mut router = self.router.clone();
        let Some(&(sizes, top_k)) = self.by_layer.get(layer as usize) else {
            return (self.sizes, router);
        };
        router.experts = sizes.experts;
        router.top_k = top_k;
        (sizes, router)
    }
}

// === impl Form ===

impl Form {
    pub(crate) fn kind(self) -> ExpertKind {
        match self {
            Self::Glu { .. } => ExpertKind::Swiglu,
            Self::Mlp { .. } => ExpertKind::Mlp,
        }
    }

    pub(crate) fn activation(self) -> Activation {
        match self {
            Self::Glu { activation, .. } | Self::Mlp { activation, .. } => activation,
        }
    }
}

#[cfg(test)]
mod tests;
