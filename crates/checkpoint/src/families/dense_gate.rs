//! Families whose scores are a softmax over all experts: DBRX, ERNIE 4.5, Hunyuan, LongCat-Flash.

use expertmesh_experts::Activation;
use expertmesh_routing::{Logits, Norm, RouterConfig, Score, Select, WeightDtype};

use super::common::{
    Common, FIELDS, Fields, MAX_LAYERS, MAX_SIZE, MOE_FIELDS, NAMES, SHARED_EXPERTS, activation,
    check_top_k, selection, shared,
};
use super::{Family, Model};
use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::{Layout, Names, SelectionNames, SharedLayout, SharedNames, Sizes};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("dbrx", dbrx).one_by_one(),
    Family::new("ernie4_5_moe", ernie),
    Family::new("hunyuan_v1_moe", hunyuan),
    Family::new("longcat_flash", longcat).one_by_one(),
];

const DBRX_NAMES: Names = Names {
    prefixes: &["transformer.blocks.{layer}.ffn."],
    gate: &["router.layer.weight"],
    experts: &[Layout::Rows {
        gate: "experts.mlp.w1",
        up: "experts.mlp.v1",
        down: "experts.mlp.w2",
    }],
    ..NAMES
};

/// Scores in the model's format, divided by a p-norm; experts' fields in `ffn_config`.
fn dbrx(config: &Config) -> Result<Model, CheckpointError> {
    let ffn = config.nested("ffn_config")?;
    let experts = ffn.count_or(&["moe_num_experts"], 4, MAX_SIZE)?.max(1);
    let top_k = ffn.count_or(&["moe_top_k"], 1, MAX_SIZE)?.max(1);
    check_top_k(&ffn, &["moe_top_k"], top_k, experts)?;
    let layers = config.size(&["n_layers", "num_hidden_layers"], MAX_LAYERS)?;
    let common = Common {
        sizes: Sizes {
            hidden: config.size(&["d_model", "hidden_size"], MAX_SIZE)?,
            ffn: ffn.size_or("ffn_hidden_size", 3584, MAX_SIZE)?,
            experts,
            free: 0,
            latent: None,
        },
        top_k,
        layers: u32::try_from(layers).unwrap_or(u32::MAX),
        activation: match ffn.has("ffn_act_fn") {
            true => activation(&ffn.nested("ffn_act_fn")?, "name", Activation::Silu)?,
            false => Activation::Silu,
        },
    };
    let norm = match ffn.number("moe_normalize_expert_weights")? {
        None if ffn.is_null("moe_normalize_expert_weights") => Norm::None,
        None => Norm::PNorm { p: 1.0 },
        Some(p) if p == 1.0 || p == 2.0 => Norm::PNorm { p: p as f32 },
        Some(p) => {
            let expected = "1, 2 or null";
            return Err(ffn.wrong("moe_normalize_expert_weights", p.to_string(), expected));
        }
    };
    let router = RouterConfig {
        score: Score::Softmax { f32: false },
        norm,
        weight_dtype: WeightDtype::Model,
        ..common.router()
    };
    Ok(common.model(router, DBRX_NAMES))
}

const ERNIE_NAMES: Names = Names {
    gate_f32: true,
    selection: Some(SelectionNames {
        names: &[
            "moe_statics.e_score_correction_bias",
            "gate.moe_statics.e_score_correction_bias",
        ],
        f32: true,
        row: true,
    }),
    shared: Some(SHARED_EXPERTS),
    ..NAMES
};

/// A bias moves the choice; the gate is F32. Layer i has experts iff `moe_layer_interval` divides
/// i + 1 and i is between the start and the end index.
fn ernie(config: &Config) -> Result<Model, CheckpointError> {
    if config.flag_or("use_bias", false)? {
        let expected = "false: networks without biases";
        return Err(config.wrong("use_bias", "true", expected));
    }
    let fields = Fields {
        experts: &["moe_num_experts", "num_experts", "num_local_experts"],
        top_k: &["moe_k", "num_experts_per_tok"],
        ..MOE_FIELDS
    };
    let common = Common::read(config, fields)?;
    let min = config.number_or("moe_norm_min", 1e-12)?;
    if min < f32::MIN_POSITIVE {
        return Err(config.wrong("moe_norm_min", min.to_string(), "a number above 0"));
    }
    let router = RouterConfig {
        logits: Logits::F32,
        select: Select::ScorePlusBias,
        norm: Norm::ClampSum { min },
        weight_dtype: WeightDtype::Model,
        ..common.router()
    };
    let model = common.model(router, ERNIE_NAMES);
    let interval = config.size_or("moe_layer_interval", 1, MAX_LAYERS)?;
    let interval = i64::try_from(interval).unwrap_or(i64::MAX);
    let start = index(config, "moe_layer_start_index", 1)?;
    let end = match index(config, "moe_layer_end_index", -1)? {
        // The last layer.
        -1 => i64::from(model.layers) - 1,
        end => end,
    };
    let has_experts = |layer: &u32| {
        let layer = i64::from(*layer);
        (layer + 1) % interval == 0 && (start..=end).contains(&layer)
    };
    let count = config.count_or(&["moe_num_shared_experts"], 2, MAX_SIZE)?;
    Ok(Model {
        moe_layers: (0..model.layers).filter(has_experts).collect(),
        shared: shared(common.sizes.ffn * count),
        ..model
    })
}

/// A layer's number, or -1.
fn index(config: &Config, field: &str, default: i64) -> Result<i64, CheckpointError> {
    let Some(number) = config.number(field)? else {
        return Ok(default);
    };
    let limit = MAX_LAYERS as f64;
    if number.fract() == 0.0 && (-1.0..=limit).contains(&number) {
        Ok(number as i64)
    } else {
        let expected = format!("a whole number from -1 to {MAX_LAYERS}");
        Err(config.wrong(field, number.to_string(), expected))
    }
}

const HUNYUAN_NAMES: Names = Names {
    gate: &["gate.wg.weight"],
    gate_f32: true,
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

/// An F32 gate, always normalised; experts and choices may be listed layer by layer.
fn hunyuan(config: &Config) -> Result<Model, CheckpointError> {
    let layers = config.size(FIELDS.layers, MAX_LAYERS)?;
    let experts = config.sizes(FIELDS.experts, layers, MAX_SIZE)?;
    let top_ks = config.sizes(&["moe_topk", "num_experts_per_tok"], layers, MAX_SIZE)?;
    let sizes = |experts| -> Result<Sizes, CheckpointError> {
        Ok(Sizes {
            hidden: config.size(FIELDS.hidden, MAX_SIZE)?,
            ffn: config.size(FIELDS.ffn, MAX_SIZE)?,
            experts,
            free: 0,
            latent: None,
        })
    };
    let mut by_layer = Vec::with_capacity(layers);
    for (&experts, &top_k) in experts.iter().zip(&top_ks) {
        check_top_k(config, &["moe_topk", "num_experts_per_tok"], top_k, experts)?;
        by_layer.push((sizes(experts)?, top_k));
    }
    // At least one layer: the number of layers is at least 1.
    let (sizes, top_k) = by_layer.first().copied().unwrap_or((sizes(1)?, 1));
    if by_layer.iter().all(|layer| *layer == (sizes, top_k)) {
        by_layer.clear();
    }
    let common = Common {
        sizes,
        top_k,
        layers: u32::try_from(layers).unwrap_or(u32::MAX),
        activation: activation(config, FIELDS.activation, Activation::Silu)?,
    };
    let router = RouterConfig {
        logits: Logits::F32,
        ..common.router()
    };
    let model = common.model(router, HUNYUAN_NAMES);
    Ok(Model {
        by_layer,
        shared: shared(sizes.ffn),
        ..model
    })
}

const LONGCAT_NAMES: Names = Names {
    gate: &["router.classifier.weight"],
    selection: Some(selection(&["router.e_score_correction_bias"])),
    experts: &[super::common::PROJECTIONS],
    ..NAMES
};

/// A bias moves the choice, weights are scaled and not normalised; the last experts are free.
fn longcat(config: &Config) -> Result<Model, CheckpointError> {
    let fields = Fields {
        layers: &["num_layers"],
        experts: &["n_routed_experts"],
        top_k: &["moe_topk"],
        ffn: &["expert_ffn_hidden_size"],
        ..FIELDS
    };
    let mut common = Common::read(config, fields)?;
    let free = config.count_or(&["zero_expert_num"], 0, MAX_SIZE)?;
    common.sizes.experts += free;
    common.sizes.free = free;
    if config.flag_or("router_bias", false)? {
        // The class has such a bias and its forward pass leaves it out.
        return Err(config.wrong("router_bias", "true", "false"));
    }
    let router = RouterConfig {
        logits: Logits::F32,
        select: Select::ScorePlusBias,
        norm: Norm::None,
        scale: config.number_or("routed_scaling_factor", 6.0)?,
        ..common.router()
    };
    Ok(common.model(router, LONGCAT_NAMES))
}
