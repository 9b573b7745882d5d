//! gpt-oss: biases everywhere, a clamped middle, weights in bf16 or MXFP4.

use expertmesh_experts::Clamp;
use expertmesh_routing::{Norm, Post, RouterConfig, Score, Select, WeightDtype};

use super::common::{Common, FIELDS, Fields, NAMES};
use super::{Family, Form, Model};
use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::{Layout, Names};

pub(super) const FAMILIES: &[Family] = &[Family::new("gpt_oss", read)];

const BIASES: [&str; 2] = ["experts.gate_up_proj_bias", "experts.down_proj_bias"];

const OSS_NAMES: Names = Names {
    gate: &["router.weight"],
    gate_bias: Some("router.bias"),
    experts: &[
        Layout::Transposed {
            gate_up: "experts.gate_up_proj",
            down: "experts.down_proj",
            interleaved: true,
            biases: Some(BIASES),
        },
        Layout::Mxfp4 {
            gate_up: ["experts.gate_up_proj_blocks", "experts.gate_up_proj_scales"],
            down: ["experts.down_proj_blocks", "experts.down_proj_scales"],
            biases: BIASES,
        },
    ],
    ..NAMES
};

fn read(config: &Config) -> Result<Model, CheckpointError> {
    let fields = Fields {
        top_k: &["num_experts_per_tok", "experts_per_token"],
        ..FIELDS
    };
    let common = Common::read(config, fields)?;
    let router = RouterConfig {
        score: Score::None,
        select: Select::Logit,
        post: Post::Softmax { f32: false },
        norm: Norm::None,
        weight_dtype: WeightDtype::Model,
        ..common.router()
    };
    let clamp = swish(config)?;
    let model = common.model(router, OSS_NAMES);
    Ok(Model {
        form: Form::Glu {
            activation: common.activation,
            clamp,
        },
        ..model
    })
}

/// The middle that `swiglu_limit` and `swiglu_alpha` describe.
pub(super) fn swish(config: &Config) -> Result<Clamp, CheckpointError> {
    Ok(Clamp::Swish {
        limit: config.number_or("swiglu_limit", 7.0)?,
        alpha: config.number_or("swiglu_alpha", 1.702)?,
    })
}
