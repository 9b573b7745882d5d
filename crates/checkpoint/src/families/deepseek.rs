//! DeepSeek-V2 and -V3, and the many families that took over V3's block: sigmoid scores, a bias that
//! moves the choice alone, groups, a shared expert. Gate and weights are f32.

use expertmesh_experts::Activation;
use expertmesh_routing::{
    GroupScore, Groups, Logits, Norm, RouterConfig, Score, Select, WeightDtype,
};

use super::common::{
    Common, Fields, LANGUAGE_MODEL, MAX_SIZE, MIXTRAL_NAMES, MOE_FIELDS, NAMES, SHARED_EXPERTS,
    activation, from_layer, groups, selection, selection_f32, shared, sparse_layers,
};
use super::{Family, Form, Model};
use crate::config::{Config, spellings};
use crate::error::CheckpointError;
use crate::layout::{Layout, Names, SharedLayout, SharedNames};
use crate::spec::{SharedKind, SharedSpec};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("bailing_hybrid", |config| v3(config, &BAILING)),
    Family::new("deepseek_v2", v2),
    Family::new("deepseek_v3", |config| v3(config, &V3)),
    Family::new("deepseek_v32", |config| v3(config, &V3)),
    Family::new("dots1", |config| v3(config, &DOTS1)),
    Family::new("exaone_moe", |config| v3(config, &EXAONE)),
    Family::new("glm4_moe", |config| v3(config, &GLM4)),
    Family::new("glm4_moe_lite", |config| v3(config, &GLM4_LITE)),
    Family::in_text_config("glm4v_moe", |config| v3(config, &GLM4V)),
    Family::new("glm4v_moe_text", |config| v3(config, &GLM4V)),
    Family::new("glm_moe_dsa", |config| v3(config, &GLM_DSA)),
    Family::new("kimi_linear", |config| v3(config, &KIMI)),
    Family::new("mimo_v2_flash", |config| v3(config, &MIMO)),
    Family::new("mistral4", mistral4),
    Family::new("nemotron_h", nemotron_h),
    Family::new("solar_open", |config| v3(config, &SOLAR)),
];

/// What the families of V3's block differ in: names and defaults.
struct Kin {
    /// `n_group` and `topk_group`.
    groups: [usize; 2],
    scale: f32,
    norm: bool,
    /// `first_k_dense_replace`.
    dense: usize,
    /// `n_shared_experts`.
    shared: usize,
    names: Names,
}

const FIELDS: Fields = Fields {
    experts: &["n_routed_experts", "num_experts", "num_local_experts"],
    top_k: &["num_experts_per_tok", "num_experts_per_token"],
    ..MOE_FIELDS
};

const SHARED_COUNT: &[&str] = &["n_shared_experts", "num_shared_experts"];

const GROUP_FIELDS: [&[&str]; 2] = [&["n_group", "num_expert_group"], &["topk_group"]];

const V3_NAMES: Names = Names {
    selection: Some(selection_f32(&["gate.e_score_correction_bias"])),
    shared: Some(SHARED_EXPERTS),
    ..NAMES
};

const V3: Kin = Kin {
    groups: [8, 4],
    scale: 2.5,
    norm: true,
    dense: 3,
    shared: 1,
    names: V3_NAMES,
};

const GLM4: Kin = Kin {
    groups: [1, 1],
    scale: 1.0,
    dense: 1,
    ..V3
};

const GLM4_LITE: Kin = Kin { scale: 1.8, ..GLM4 };

const GLM4V: Kin = Kin {
    names: Names {
        prefixes: LANGUAGE_MODEL,
        ..V3_NAMES
    },
    ..GLM4
};

const GLM_DSA: Kin = Kin {
    groups: [1, 1],
    ..V3
};

const DOTS1: Kin = Kin {
    norm: false,
    dense: 0,
    shared: 0,
    ..GLM4
};

const SOLAR: Kin = Kin { dense: 0, ..GLM4 };

const MIMO: Kin = Kin {
    shared: 0,
    names: Names {
        shared: None,
        ..V3_NAMES
    },
    ..GLM4
};

const EXAONE: Kin = Kin {
    scale: 2.5,
    names: Names {
        selection: Some(selection_f32(&[
            "e_score_correction_bias",
            "gate.e_score_correction_bias",
        ])),
        ..V3_NAMES
    },
    ..GLM4
};

const BAILING: Kin = Kin {
    dense: 2,
    names: Names {
        selection: Some(selection_f32(&[
            "gate.expert_bias",
            "gate.e_score_correction_bias",
        ])),
        ..V3_NAMES
    },
    ..V3
};

const KIMI: Kin = Kin {
    scale: 2.446,
    names: Names {
        selection: Some(selection(&["gate.e_score_correction_bias"])),
        shared: Some(SHARED_EXPERTS),
        ..MIXTRAL_NAMES
    },
    ..GLM4
};

const NEMOTRON: Kin = Kin {
    names: Names {
        prefixes: &[
            "backbone.layers.{layer}.mixer.",
            "model.layers.{layer}.mixer.",
        ],
        experts: &[
            Layout::PerExpertMlp {
                up: "experts.{expert}.up_proj.weight",
                down: "experts.{expert}.down_proj.weight",
                biases: None,
            },
            Layout::StackedMlp {
                up: "experts.up_proj",
                down: "experts.down_proj",
            },
        ],
        shared: Some(SharedNames {
            layout: SharedLayout::Mlp {
                up: "shared_experts.up_proj.weight",
                down: "shared_experts.down_proj.weight",
            },
            ..SHARED_EXPERTS
        }),
        latent: ["fc1_latent_proj.weight", "fc2_latent_proj.weight"],
        ..V3_NAMES
    },
    ..GLM4
};

/// Softmax scores times a factor, never normalised: `norm_topk_prob` is not read.
fn v2(config: &Config) -> Result<Model, CheckpointError> {
    let common = Common::read(config, FIELDS)?;
    let limited = match config.text("topk_method")?.unwrap_or("greedy") {
        "greedy" => None,
        "group_limited_greedy" => {
            let by = GroupScore::Max;
            groups(config, common.sizes, GROUP_FIELDS, [1, 1], by)?
        }
        other => {
            let expected = "\"greedy\" or \"group_limited_greedy\"";
            return Err(config.wrong("topk_method", format!("{other:?}"), expected));
        }
    };
    let router = RouterConfig {
        logits: Logits::F32,
        // What is masked counts as a score of 0, for the choice and for the weight.
        groups: limited.map(|groups| Groups {
            fill: 0.0,
            weights_from_masked: true,
            ..groups
        }),
        norm: Norm::None,
        scale: config.number_or("routed_scaling_factor", 1.0)?,
        ..common.router()
    };
    let names = Names {
        shared: Some(SHARED_EXPERTS),
        ..NAMES
    };
    let model = common.model(router, names);
    Ok(Model {
        moe_layers: from_layer(config, "first_k_dense_replace", model.layers, 0)?,
        shared: shared(common.sizes.ffn * config.count_or(SHARED_COUNT, 2, MAX_SIZE)?),
        ..model
    })
}

fn v3(config: &Config, kin: &Kin) -> Result<Model, CheckpointError> {
    let common = Common::read(config, FIELDS)?;
    let model = common.model(v3_router(config, &common, kin)?, kin.names);
    let count = match kin.names.shared {
        Some(_) => config.count_or(SHARED_COUNT, kin.shared, MAX_SIZE)?,
        None => 0,
    };
    Ok(Model {
        moe_layers: sparse_layers(config, model.layers, kin.dense)?,
        shared: shared(common.sizes.ffn * count),
        ..model
    })
}

fn v3_router(config: &Config, common: &Common, kin: &Kin) -> Result<RouterConfig, CheckpointError> {
    let norm = match config.has("moe_renormalize") {
        true => config.flag_or("moe_renormalize", kin.norm)?,
        false => config.flag_or("norm_topk_prob", kin.norm)?,
    };
    let by = GroupScore::Sum2;
    Ok(RouterConfig {
        logits: Logits::F32,
        score: Score::Sigmoid { f32: true },
        select: Select::ScorePlusBias,
        groups: groups(config, common.sizes, GROUP_FIELDS, kin.groups, by)?,
        norm: if norm {
            Norm::Sum { eps: 1e-20 }
        } else {
            Norm::None
        },
        scale: config.number_or("routed_scaling_factor", kin.scale)?,
        ..common.router()
    })
}

/// V3's router without the bias, softmax scores, all in the model's format; a masked expert has a
/// key of 0.
fn mistral4(config: &Config) -> Result<Model, CheckpointError> {
    let model = v3(config, &SOLAR)?;
    let router = RouterConfig {
        logits: Logits::Model,
        score: Score::Softmax { f32: false },
        select: Select::Score,
        groups: model.router.groups.map(|groups| Groups {
            fill: 0.0,
            ..groups
        }),
        weight_dtype: WeightDtype::Model,
        ..model.router
    };
    Ok(Model {
        router,
        names: Names {
            selection: None,
            ..V3_NAMES
        },
        ..model
    })
}

/// V3's router before networks that are not gated, perhaps behind a projection.
fn nemotron_h(config: &Config) -> Result<Model, CheckpointError> {
    let (layers, moe_layers) = nemotron_layers(config)?;
    let fields = Fields {
        activation: "mlp_hidden_act",
        ..FIELDS
    };
    let mut common = Common::of_layers(config, fields, layers)?;
    if config.flag_or("mlp_bias", false)? {
        let expected = "false: networks without biases";
        return Err(config.wrong("mlp_bias", "true", expected));
    }
    if config.has("moe_latent_size") {
        common.sizes.latent = Some(config.size(&["moe_latent_size"], MAX_SIZE)?);
    }
    let ffn = config.size(&["moe_shared_expert_intermediate_size"], MAX_SIZE)?;
    let model = common.model(v3_router(config, &common, &NEMOTRON)?, NEMOTRON.names);
    Ok(Model {
        moe_layers,
        form: Form::Mlp {
            activation: activation(config, "mlp_hidden_act", Activation::Relu2)?,
            scale: 1.0,
        },
        shared: shared(ffn).map(|shared| SharedSpec {
            kind: SharedKind::Mlp,
            ..shared
        }),
        ..model
    })
}

/// How many layers there are, and those with experts: "moe" in a list of kinds, E in a pattern.
fn nemotron_layers(config: &Config) -> Result<(u32, Vec<u32>), CheckpointError> {
    for field in ["layers_block_type", "layer_types"] {
        if let Some(kinds) = config.texts(field)? {
            return Ok(marked(kinds.iter().map(|kind| *kind == "moe")));
        }
    }
    match config.text("hybrid_override_pattern")? {
        Some(pattern) => Ok(marked(pattern.chars().map(|kind| kind == 'E'))),
        None => Err(config.missing(&spellings(&[
            "layers_block_type",
            "layer_types",
            "hybrid_override_pattern",
        ]))),
    }
}

/// The number of marks, and the places of those that are set.
fn marked(marks: impl Iterator<Item = bool>) -> (u32, Vec<u32>) {
    let mut layers = 0;
    let mut set = Vec::new();
    for (layer, mark) in (0..).zip(marks) {
        layers = layer + 1;
        if mark {
            set.push(layer);
        }
    }
    (layers, set)
}
