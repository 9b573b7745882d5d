//! Cohere 2 and Aria: experts by the highest logits, weights from those logits alone.

use expertmesh_routing::{Norm, Post, RouterConfig, Score, Select, WeightDtype};

use super::common::{
    Common, FIELDS, Fields, MAX_SIZE, NAMES, SHARED_EXPERTS, shared, sparse_layers,
};
use super::{Family, Model};
use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::{Layout, Names};
use crate::spec::{Combine, SharedSpec};

pub(super) const FAMILIES: &[Family] = &[
    Family::in_text_config("aria", aria),
    Family::new("aria_text", aria),
    Family::new("cohere2_moe", cohere2),
];

fn router(common: &Common, post: Post, norm: Norm) -> RouterConfig {
    RouterConfig {
        score: Score::None,
        select: Select::Logit,
        post,
        norm,
        weight_dtype: WeightDtype::Model,
        ..common.router()
    }
}

/// Softmax or sigmoid of the chosen logits; the shared expert is added or averaged in.
fn cohere2(config: &Config) -> Result<Model, CheckpointError> {
    let common = Common::read(config, FIELDS)?;
    let sum = match config.flag_or("norm_topk_prob", true)? {
        true => Norm::Sum { eps: 0.0 },
        false => Norm::None,
    };
    let (post, norm) = match config.text("expert_selection_fn")?.unwrap_or("softmax") {
        "softmax" => (Post::Softmax { f32: true }, Norm::None),
        "sigmoid" => (Post::Sigmoid { f32: false }, sum),
        other => {
            let expected = "\"softmax\" or \"sigmoid\"";
            return Err(config.wrong("expert_selection_fn", format!("{other:?}"), expected));
        }
    };
    let field = "shared_expert_combination_strategy";
    let combine = match config.text(field)?.unwrap_or("average") {
        "sum" => Combine::Sum,
        "average" => Combine::Average,
        other => {
            let expected = "\"sum\" or \"average\"";
            return Err(config.wrong(field, format!("{other:?}"), expected));
        }
    };
    let count = config.count_or(&["num_shared_experts"], 0, MAX_SIZE)?;
    let names = Names {
        shared: (count > 0).then_some(SHARED_EXPERTS),
        ..NAMES
    };
    let model = common.model(router(&common, post, norm), names);
    Ok(Model {
        moe_layers: sparse_layers(config, model.layers, 0)?,
        shared: shared(common.sizes.ffn * count).map(|shared| SharedSpec { combine, ..shared }),
        ..model
    })
}

const ARIA_NAMES: Names = Names {
    prefixes: &[
        "language_model.model.layers.{layer}.mlp.",
        "model.language_model.layers.{layer}.mlp.",
        "model.layers.{layer}.mlp.",
    ],
    gate: &["router.weight"],
    experts: &[
        Layout::Transposed {
            gate_up: "experts.fc1.weight",
            down: "experts.fc2.weight",
            interleaved: false,
            biases: None,
        },
        Layout::Transposed {
            gate_up: "experts.gate_up_proj",
            down: "experts.down_proj",
            interleaved: false,
            biases: None,
        },
    ],
    shared: Some(SHARED_EXPERTS),
    ..NAMES
};

/// Softmax of the chosen logits in the model's format.
fn aria(config: &Config) -> Result<Model, CheckpointError> {
    if config.flag_or("mlp_bias", false)? {
        let expected = "false: networks without biases";
        return Err(config.wrong("mlp_bias", "true", expected));
    }
    super::common::only(config, "hidden_act", "silu")?;
    let fields = Fields {
        experts: &["moe_num_experts"],
        top_k: &["moe_topk"],
        ..FIELDS
    };
    let common = Common::read(config, fields)?;
    let post = Post::Softmax { f32: false };
    let model = common.model(router(&common, post, Norm::None), ARIA_NAMES);
    let count = config.count_or(&["moe_num_shared_experts"], 2, MAX_SIZE)?;
    Ok(Model {
        shared: shared(common.sizes.ffn * count),
        ..model
    })
}
