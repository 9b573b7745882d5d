//! Families whose scores are sigmoids: MiniMax-M2 and -M3, AFMoE, LFM2, Laguna, Hunyuan V3, Flint.

use expertmesh_routing::{Logits, Norm, RouterConfig, Score, Select, WeightDtype};

use super::common::{
    Common, FIELDS, MAX_SIZE, MIXTRAL_NAMES, MOE_FIELDS, NAMES, NUMBERED, PROJECTIONS,
    SHARED_EXPERT, SHARED_EXPERTS, STACKED, from_layer, selection, selection_f32, shared,
    sparse_layers, stepped_layers,
};
use super::openai::swish;
use super::{Family, Form, Model};
use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::{Names, SharedLayout, SharedNames};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("afmoe", afmoe),
    Family::new("flint", flint),
    Family::new("hy_v3", hy_v3),
    Family::new("laguna", laguna),
    Family::new("lfm2_moe", lfm2),
    Family::new("minimax_m2", minimax_m2),
    Family::in_text_config("minimax_m3_vl", minimax_m3),
    Family::new("minimax_m3_vl_text", minimax_m3),
];

/// f32 scores of logits in the model's format, a bias for the choice, divided by the sum.
fn router(common: &Common) -> RouterConfig {
    RouterConfig {
        logits: Logits::ModelThenF32,
        score: Score::Sigmoid { f32: true },
        select: Select::ScorePlusBias,
        norm: Norm::Sum { eps: 0.0 },
        ..common.router()
    }
}

fn minimax_m2(config: &Config) -> Result<Model, CheckpointError> {
    let common = Common::read(config, FIELDS)?;
    let names = Names {
        // Its bias is rounded with the model.
        selection: Some(selection(&["e_score_correction_bias"])),
        ..MIXTRAL_NAMES
    };
    Ok(common.model(router(&common), names))
}

const M3_NAMES: Names = Names {
    prefixes: &[
        "language_model.model.layers.{layer}.block_sparse_moe.",
        "model.layers.{layer}.block_sparse_moe.",
    ],
    selection: Some(selection(&["e_score_correction_bias"])),
    experts: &[NUMBERED],
    shared: Some(SHARED_EXPERTS),
    ..NAMES
};

/// M2's router, gpt-oss's middle, and a factor on the sum over the routed experts.
fn minimax_m3(config: &Config) -> Result<Model, CheckpointError> {
    let common = Common::read(config, FIELDS)?;
    let model = common.model(router(&common), M3_NAMES);
    let ffn = config.count_or(&["shared_intermediate_size"], 3072, MAX_SIZE)?;
    Ok(Model {
        moe_layers: m3_layers(config, model.layers)?,
        form: Form::Glu {
            activation: common.activation,
            clamp: swish(config)?,
        },
        routed_scale: config.number_or("routed_scaling_factor", 2.0)?,
        shared: shared(ffn),
        ..model
    })
}

/// Layers by `mlp_layer_types`, else those that `moe_layer_freq` marks with 1, else all.
fn m3_layers(config: &Config, layers: u32) -> Result<Vec<u32>, CheckpointError> {
    if config.has("mlp_layer_types") || !config.has("moe_layer_freq") {
        return sparse_layers(config, layers, 0);
    }
    let marks = config.marks("moe_layer_freq", layers as usize)?;
    let marked = (0..layers).zip(marks).filter(|(_, mark)| *mark);
    Ok(marked.map(|(layer, _)| layer).collect())
}

const AFMOE_NAMES: Names = Names {
    gate: &["router.gate.weight"],
    selection: Some(selection(&["expert_bias"])),
    shared: Some(SHARED_EXPERTS),
    ..NAMES
};

fn afmoe(config: &Config) -> Result<Model, CheckpointError> {
    let common = Common::read(config, MOE_FIELDS)?;
    let router = RouterConfig {
        norm: Norm::Sum { eps: 1e-20 },
        scale: config.number_or("route_scale", 1.0)?,
        ..router(&common)
    };
    let model = common.model(router, AFMOE_NAMES);
    let count = config.count_or(&["num_shared_experts"], 2, MAX_SIZE)?;
    Ok(Model {
        moe_layers: from_layer(config, "num_dense_layers", model.layers, 1)?,
        shared: shared(common.sizes.ffn * count),
        ..model
    })
}

const LFM2_NAMES: Names = Names {
    prefixes: &["model.layers.{layer}.feed_forward."],
    experts: &[NUMBERED, STACKED],
    ..NAMES
};

/// Scores and weights in the model's format; the bias, where there is one, stays F32.
fn lfm2(config: &Config) -> Result<Model, CheckpointError> {
    let common = Common::read(config, MOE_FIELDS)?;
    let biased = config.flag_or("use_expert_bias", true)?;
    let router = RouterConfig {
        logits: Logits::Model,
        score: Score::Sigmoid { f32: false },
        select: if biased {
            Select::ScorePlusBias
        } else {
            Select::Score
        },
        norm: if config.flag_or("norm_topk_prob", true)? {
            Norm::Sum { eps: 1e-6 }
        } else {
            Norm::None
        },
        scale: config.number_or("routed_scaling_factor", 1.0)?,
        weight_dtype: WeightDtype::Model,
        ..common.router()
    };
    let names = Names {
        selection: biased.then_some(selection_f32(&["expert_bias"])),
        ..LFM2_NAMES
    };
    let model = common.model(router, names);
    Ok(Model {
        moe_layers: from_layer(config, "num_dense_layers", model.layers, 2)?,
        ..model
    })
}

const LAGUNA_NAMES: Names = Names {
    selection: Some(selection(&[
        "experts.e_score_correction_bias",
        "gate.e_score_correction_bias",
    ])),
    shared: Some(SHARED_EXPERT),
    ..NAMES
};

/// Logits perhaps capped, and a factor on the sum over the routed experts.
fn laguna(config: &Config) -> Result<Model, CheckpointError> {
    if config.flag_or("moe_apply_router_weight_on_input", false)? {
        let field = "moe_apply_router_weight_on_input";
        return Err(config.wrong(field, "true", "false, the only form there is an answer for"));
    }
    let common = Common::read(config, MOE_FIELDS)?;
    let cap = config.number_or("moe_router_logit_softcapping", 0.0)?;
    let router = RouterConfig {
        softcap: (cap > 0.0).then_some(cap),
        weight_dtype: WeightDtype::Model,
        ..router(&common)
    };
    let model = common.model(router, LAGUNA_NAMES);
    let ffn = config.count_or(&["shared_expert_intermediate_size"], 512, MAX_SIZE)?;
    Ok(Model {
        moe_layers: sparse_layers(config, model.layers, 1)?,
        routed_scale: config.number_or("moe_routed_scaling_factor", 1.0)?,
        shared: shared(ffn),
        ..model
    })
}

const HY_V3_NAMES: Names = Names {
    gate: &["router.gate.weight", "gate.weight"],
    selection: Some(selection_f32(&["expert_bias", "e_score_correction_bias"])),
    shared: Some(SharedNames {
        layout: SharedLayout::Glu {
            gate: "shared_mlp.gate_proj.weight",
            up: "shared_mlp.up_proj.weight",
            down: "shared_mlp.down_proj.weight",
        },
        mix: None,
        optional: false,
    }),
    ..NAMES
};

/// An f32 gate; both experts' outputs are rounded before they are added, so that the sum in f32
/// that the configuration may ask for has the same bits.
fn hy_v3(config: &Config) -> Result<Model, CheckpointError> {
    let common = Common::read(config, MOE_FIELDS)?;
    let router = RouterConfig {
        logits: Logits::F32,
        norm: Norm::Sum { eps: 1e-20 },
        scale: config.number_or("router_scaling_factor", 2.826)?,
        ..router(&common)
    };
    let model = common.model(router, HY_V3_NAMES);
    let count = config.count_or(&["num_shared_experts"], 1, MAX_SIZE)?;
    Ok(Model {
        moe_layers: sparse_layers(config, model.layers, 1)?,
        shared: shared(common.sizes.ffn * count),
        ..model
    })
}

/// An F32 gate, no bias; divided by the sum if `norm_topk_prob`.
fn flint(config: &Config) -> Result<Model, CheckpointError> {
    let common = Common::read(config, MOE_FIELDS)?;
    let router = RouterConfig {
        logits: Logits::F32,
        select: Select::Score,
        norm: if config.flag_or("norm_topk_prob", true)? {
            Norm::Sum { eps: 0.0 }
        } else {
            Norm::None
        },
        ..router(&common)
    };
    let names = Names {
        gate_f32: true,
        experts: &[PROJECTIONS, STACKED],
        shared: Some(SHARED_EXPERT),
        ..NAMES
    };
    let model = common.model(router, names);
    let ffn = config.count_or(&["shared_expert_intermediate_size"], 1024, MAX_SIZE)?;
    Ok(Model {
        moe_layers: stepped_layers(config, model.layers, &[0, 1])?,
        shared: shared(ffn),
        ..model
    })
}
