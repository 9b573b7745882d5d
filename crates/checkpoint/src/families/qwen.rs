//! OLMoE, Qwen2-MoE and Qwen3-MoE: one router, with `norm_topk_prob` deciding on the division by
//! the sum, and gate weights in the model's format. Qwen2-MoE adds a shared expert.

use expertmesh_experts::ExpertKind;
use expertmesh_routing::RouterConfig;

use super::{ANY_DTYPE, Common, Family, MAX_LAYERS, MAX_SIZE, Model, common};
use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::{Layout, Names, SharedNames};
use crate::spec::SharedSpec;

pub(super) const FAMILIES: &[Family] = &[
    Family {
        model_type: "olmoe",
        read: olmoe,
    },
    Family {
        model_type: "qwen2_moe",
        read: qwen2_moe,
    },
    Family {
        model_type: "qwen3_moe",
        read: qwen3_moe,
    },
];

const NAMES: Names = Names {
    prefix: "model.layers.{layer}.mlp.",
    raw_prefix: None,
    gate: "gate.weight",
    experts: Layout::PerExpert {
        gate: "experts.{expert}.gate_proj.weight",
        up: "experts.{expert}.up_proj.weight",
        down: "experts.{expert}.down_proj.weight",
    },
    raw_experts: Some(Layout::Stacked {
        gate_up: "experts.gate_up_proj",
        down: "experts.down_proj",
    }),
    shared: None,
};

const SHARED: SharedNames = SharedNames {
    gate: "shared_expert.gate_proj.weight",
    up: "shared_expert.up_proj.weight",
    down: "shared_expert.down_proj.weight",
    mix: Some("shared_expert_gate.weight"),
};

fn olmoe(config: &Config) -> Result<Model, CheckpointError> {
    let common = common(config, "intermediate_size")?;
    let moe_layers = (0..common.layers).collect();
    model(config, common, moe_layers)
}

fn qwen3_moe(config: &Config) -> Result<Model, CheckpointError> {
    // `intermediate_size` is the dense layers' size in this family.
    let common = common(config, "moe_intermediate_size")?;
    let moe_layers = sparse_layers(config, common.layers)?;
    model(config, common, moe_layers)
}

fn qwen2_moe(config: &Config) -> Result<Model, CheckpointError> {
    let ffn = config.size(&["shared_expert_intermediate_size"], MAX_SIZE)?;
    Ok(Model {
        shared: Some(SharedSpec { ffn, gated: true }),
        names: Names {
            shared: Some(SHARED),
            ..NAMES
        },
        ..qwen3_moe(config)?
    })
}

fn model(config: &Config, common: Common, moe_layers: Vec<u32>) -> Result<Model, CheckpointError> {
    let Common {
        sizes,
        top_k,
        layers,
        activation,
    } = common;
    // False in the code of all three; published Qwen3 configurations state true.
    let norm = config.flag_or("norm_topk_prob", false)?;
    Ok(Model {
        sizes,
        layers,
        moe_layers,
        router: RouterConfig::olmoe(sizes.experts, top_k, norm, ANY_DTYPE),
        kind: ExpertKind::Swiglu,
        activation,
        shared: None,
        names: NAMES,
    })
}

/// Layer i has experts iff it is not in `mlp_only_layers` and `decoder_sparse_step` divides i + 1.
fn sparse_layers(config: &Config, layers: u32) -> Result<Vec<u32>, CheckpointError> {
    let dense = config.layers("mlp_only_layers")?;
    let step = config.size_or("decoder_sparse_step", 1, MAX_LAYERS)?;
    let step = u32::try_from(step).unwrap_or(u32::MAX);
    Ok((0..layers)
        .filter(|i| !dense.contains(i) && (i + 1).is_multiple_of(step))
        .collect())
}
