//! Llama 4: sigmoid weights that multiply the experts' input.

use expertmesh_routing::{Norm, Post, RouterConfig, Score, Select, WeightDtype};

use super::common::{Common, FIELDS, MAX_LAYERS, NAMES, SHARED_EXPERT, shared};
use super::{Family, Model};
use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::{Layout, Names};

pub(super) const FAMILIES: &[Family] = &[
    Family::in_text_config("llama4", read),
    Family::new("llama4_text", read),
];

const LLAMA4_NAMES: Names = Names {
    prefixes: &[
        "language_model.model.layers.{layer}.feed_forward.",
        "model.language_model.layers.{layer}.feed_forward.",
        "model.layers.{layer}.feed_forward.",
    ],
    gate: &["router.weight"],
    experts: &[Layout::Transposed {
        gate_up: "experts.gate_up_proj",
        down: "experts.down_proj",
        interleaved: false,
        biases: None,
    }],
    shared: Some(SHARED_EXPERT),
    ..NAMES
};

fn read(config: &Config) -> Result<Model, CheckpointError> {
    let common = Common::read(config, FIELDS)?;
    let router = RouterConfig {
        score: Score::None,
        select: Select::Logit,
        post: Post::Sigmoid { f32: true },
        norm: Norm::None,
        weight_dtype: WeightDtype::Model,
        ..common.router()
    };
    let model = common.model(router, LLAMA4_NAMES);
    Ok(Model {
        moe_layers: moe_layers(config, model.layers)?,
        // `intermediate_size` is that of the shared expert too.
        shared: shared(common.sizes.ffn),
        weight_on_input: true,
        ..model
    })
}

/// Those that `moe_layers` lists; without it every `interleave_moe_layer_step`-th.
fn moe_layers(config: &Config, layers: u32) -> Result<Vec<u32>, CheckpointError> {
    if config.has("moe_layers") {
        let listed = config.layers("moe_layers")?;
        return Ok(listed.into_iter().filter(|layer| *layer < layers).collect());
    }
    let step = config.size_or("interleave_moe_layer_step", 1, MAX_LAYERS)?;
    Ok((0..layers).skip(step - 1).step_by(step).collect())
}
