//! OLMoE, Qwen-MoE and their kin: one router, with `norm_topk_prob` deciding on the division by the
//! sum, and gate weights in the model's format. Qwen2-MoE and Qwen3-Next add a shared expert with a
//! gate of its own.

use expertmesh_routing::RouterConfig;

use super::common::{
    ANY_DTYPE, Common, FIELDS, Fields, LANGUAGE_MODEL, MAX_LAYERS, MAX_SIZE, MOE_FIELDS, NAMES,
    PROJECTIONS, SHARED_EXPERT, STACKED, sparse_layers, stepped_layers,
};
use super::{Family, Model};
use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::{Layout, Names, SharedNames};
use crate::spec::{Combine, SharedKind, SharedSpec};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("flex_olmo", olmoe),
    Family::new("jamba", jamba),
    Family::new("mellum", mellum),
    Family::new("olmoe", olmoe),
    Family::new("qwen2_moe", qwen2_moe),
    Family::new("qwen3_moe", qwen3_moe),
    Family::new("qwen3_next", qwen3_next),
    Family {
        model_type: "qwen3_omni_moe",
        one_by_one: false,
        nested: &["thinker_config", "text_config"],
        read: qwen3_omni_moe,
    },
    Family::in_text_config("qwen3_5_moe", qwen3_5_moe),
    Family::new("qwen3_5_moe_text", qwen3_5_moe),
    Family::in_text_config("qwen3_vl_moe", qwen3_vl_moe),
    Family::new("qwen3_vl_moe_text", qwen3_vl_moe),
];

const SHARED: SharedNames = SharedNames {
    mix: Some("shared_expert_gate.weight"),
    ..SHARED_EXPERT
};

/// Stacked as `x W` has them, gate columns first.
const STACKED_FOR_X_W: Layout = Layout::Transposed {
    gate_up: "experts.gate_up_proj",
    down: "experts.down_proj",
    interleaved: false,
    biases: None,
};

fn olmoe(config: &Config) -> Result<Model, CheckpointError> {
    model(config, FIELDS, false)
}

fn qwen3_moe(config: &Config) -> Result<Model, CheckpointError> {
    // False in the code; published configurations state true.
    let model = model(config, MOE_FIELDS, false)?;
    Ok(Model {
        moe_layers: stepped_layers(config, model.layers, &[])?,
        ..model
    })
}

fn qwen2_moe(config: &Config) -> Result<Model, CheckpointError> {
    let model = qwen3_moe(config)?;
    with_shared(config, model)
}

fn qwen3_next(config: &Config) -> Result<Model, CheckpointError> {
    let model = model(config, MOE_FIELDS, true)?;
    let model = Model {
        moe_layers: stepped_layers(config, model.layers, &[])?,
        ..model
    };
    with_shared(config, model)
}

/// The thinker's language model: Qwen3-MoE, normalised unless the configuration says otherwise.
fn qwen3_omni_moe(config: &Config) -> Result<Model, CheckpointError> {
    let model = model(config, MOE_FIELDS, true)?;
    Ok(Model {
        moe_layers: stepped_layers(config, model.layers, &[])?,
        names: Names {
            prefixes: &["thinker.model.layers.{layer}.mlp."],
            ..NAMES
        },
        ..model
    })
}

/// Always normalised, experts in every layer.
fn qwen3_5_moe(config: &Config) -> Result<Model, CheckpointError> {
    let model = with_shared(config, normalised(config, MOE_FIELDS)?)?;
    Ok(Model {
        names: Names {
            prefixes: LANGUAGE_MODEL,
            experts: &[PROJECTIONS, STACKED],
            ..model.names
        },
        ..model
    })
}

/// Always normalised.
fn qwen3_vl_moe(config: &Config) -> Result<Model, CheckpointError> {
    let model = normalised(config, MOE_FIELDS)?;
    Ok(Model {
        moe_layers: stepped_layers(config, model.layers, &[])?,
        names: Names {
            prefixes: LANGUAGE_MODEL,
            experts: &[STACKED_FOR_X_W],
            ..NAMES
        },
        ..model
    })
}

fn mellum(config: &Config) -> Result<Model, CheckpointError> {
    let model = model(config, MOE_FIELDS, true)?;
    Ok(Model {
        moe_layers: sparse_layers(config, model.layers, 0)?,
        ..model
    })
}

/// Never normalised; layer i has experts iff i mod `expert_layer_period` is `expert_layer_offset`.
fn jamba(config: &Config) -> Result<Model, CheckpointError> {
    let common = Common::read(config, FIELDS)?;
    let router = RouterConfig::olmoe(common.sizes.experts, common.top_k, false, ANY_DTYPE);
    let period = config.size_or("expert_layer_period", 2, MAX_LAYERS)? as u64;
    let offset = config.count_or(&["expert_layer_offset"], 1, MAX_LAYERS)? as u64;
    let names = Names {
        prefixes: &["model.layers.{layer}.feed_forward."],
        gate: &["router.weight"],
        ..NAMES
    };
    let model = common.model(router, names);
    let has_experts = |layer: &u32| u64::from(*layer) % period == offset;
    Ok(Model {
        moe_layers: (0..model.layers).filter(has_experts).collect(),
        ..model
    })
}

/// A model whose `norm_topk_prob` decides, with a default for an absent field.
fn model(config: &Config, fields: Fields, default: bool) -> Result<Model, CheckpointError> {
    let common = Common::read(config, fields)?;
    let norm = config.flag_or("norm_topk_prob", default)?;
    let router = RouterConfig::olmoe(common.sizes.experts, common.top_k, norm, ANY_DTYPE);
    Ok(common.model(router, NAMES))
}

/// A model that normalises whatever its configuration says.
fn normalised(config: &Config, fields: Fields) -> Result<Model, CheckpointError> {
    let common = Common::read(config, fields)?;
    let router = RouterConfig::olmoe(common.sizes.experts, common.top_k, true, ANY_DTYPE);
    Ok(common.model(router, NAMES))
}

/// Adds the shared expert with its sigmoid gate.
fn with_shared(config: &Config, model: Model) -> Result<Model, CheckpointError> {
    let ffn = config.size(&["shared_expert_intermediate_size"], MAX_SIZE)?;
    Ok(Model {
        shared: Some(SharedSpec {
            ffn,
            gated: true,
            kind: SharedKind::Glu,
            combine: Combine::Sum,
        }),
        names: Names {
            shared: Some(SHARED),
            ..model.names
        },
        ..model
    })
}
