//! Mixtral: every layer has experts, `w1` and `w3` are gate and up, gate weights stay in f32.

use expertmesh_experts::ExpertKind;
use expertmesh_routing::RouterConfig;

use super::{ANY_DTYPE, Common, Family, Model, common};
use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::{Layout, Names};

pub(super) const FAMILIES: &[Family] = &[Family {
    model_type: "mixtral",
    read,
}];

const NAMES: Names = Names {
    prefix: "model.layers.{layer}.block_sparse_moe.",
    raw_prefix: Some("model.layers.{layer}.mlp."),
    gate: "gate.weight",
    experts: Layout::PerExpert {
        gate: "experts.{expert}.w1.weight",
        up: "experts.{expert}.w3.weight",
        down: "experts.{expert}.w2.weight",
    },
    raw_experts: Some(Layout::Stacked {
        gate_up: "experts.gate_up_proj",
        down: "experts.down_proj",
    }),
    shared: None,
};

fn read(config: &Config) -> Result<Model, CheckpointError> {
    let Common {
        sizes,
        top_k,
        layers,
        activation,
    } = common(config, "intermediate_size")?;
    Ok(Model {
        sizes,
        layers,
        moe_layers: (0..layers).collect(),
        router: RouterConfig::mixtral(sizes.experts, top_k, ANY_DTYPE),
        kind: ExpertKind::Swiglu,
        activation,
        shared: None,
        names: NAMES,
    })
}
