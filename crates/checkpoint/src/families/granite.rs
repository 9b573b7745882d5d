//! Granite and JetMoE: experts by the highest logits, weights by a softmax over those, weights of
//! all experts in two tensors.

use expertmesh_experts::Activation;
use expertmesh_routing::{Logits, Norm, Post, RouterConfig, Score, Select, WeightDtype};

use super::common::{Common, FIELDS, Fields, MAX_SIZE, NAMES, STACKED, activation, shared};
use super::{Family, Model};
use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::{Layout, Names, SharedLayout, SharedNames};
use crate::spec::{Combine, SharedKind, SharedSpec};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("granitemoe", |config| granite(config, false)),
    Family::new("granitemoe_swa", |config| granite(config, true)),
    Family::new("granitemoehybrid", |config| granite(config, true)),
    Family::new("granitemoeshared", |config| granite(config, true)),
    Family::new("jetmoe", jetmoe).one_by_one(),
];

const LINEAR: Layout = Layout::Stacked {
    gate_up: "input_linear.weight",
    down: "output_linear.weight",
};

const GRANITE_NAMES: Names = Names {
    prefixes: &["model.layers.{layer}.block_sparse_moe."],
    gate: &["router.layer.weight", "router.weight"],
    experts: &[LINEAR, STACKED],
    ..NAMES
};

/// An MLP that the layer adds to its block: shared in all but name, and beside the block.
const BESIDE: SharedNames = SharedNames {
    layout: SharedLayout::Halves {
        gate_up: "../shared_mlp.input_linear.weight",
        down: "../shared_mlp.output_linear.weight",
    },
    mix: None,
    optional: true,
};

fn router(common: &Common) -> RouterConfig {
    RouterConfig {
        logits: Logits::ModelThenF32,
        score: Score::None,
        select: Select::Logit,
        post: Post::Softmax { f32: true },
        norm: Norm::None,
        weight_dtype: WeightDtype::Model,
        ..common.router()
    }
}

fn granite(config: &Config, beside: bool) -> Result<Model, CheckpointError> {
    if beside
        && !config.has("num_experts")
        && config.count_or(&["num_local_experts"], 8, MAX_SIZE)? == 0
    {
        let expected = "at least 1: a model without experts has no layer for this";
        return Err(config.wrong("num_local_experts", "0", expected));
    }
    let common = Common::read(config, FIELDS)?;
    let model = common.model(router(&common), GRANITE_NAMES);
    if !beside {
        return Ok(model);
    }
    let ffn = config.count_or(&["shared_intermediate_size"], 0, MAX_SIZE)?;
    Ok(Model {
        shared: shared(ffn),
        names: Names {
            shared: Some(BESIDE),
            ..model.names
        },
        ..model
    })
}

/// The block's output has a bias, which is a shared expert of one row.
fn jetmoe(config: &Config) -> Result<Model, CheckpointError> {
    let fields = Fields {
        activation: "activation_function",
        ..FIELDS
    };
    let mut common = Common::read(config, fields)?;
    common.activation = activation(config, "activation_function", Activation::Silu)?;
    let names = Names {
        gate: &["router.layer.weight"],
        experts: &[LINEAR],
        shared: Some(SharedNames {
            layout: SharedLayout::Constant { row: "bias" },
            mix: None,
            optional: false,
        }),
        ..NAMES
    };
    let model = common.model(router(&common), names);
    Ok(Model {
        shared: Some(SharedSpec {
            ffn: 0,
            gated: false,
            kind: SharedKind::Constant,
            combine: Combine::Sum,
        }),
        ..model
    })
}
