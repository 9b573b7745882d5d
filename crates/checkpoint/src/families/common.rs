//! Fields and names that families share.

use expertmesh_experts::{Activation, Clamp, ExpertError};
use expertmesh_kernels::Format;
use expertmesh_routing::{GroupScore, Groups, RouterConfig};

use super::{Form, Model};
use crate::config::{Config, spellings};
use crate::error::CheckpointError;
use crate::layout::{Layout, Names, SelectionNames, SharedLayout, SharedNames, Sizes};
use crate::spec::{Combine, SharedKind, SharedSpec};
use crate::weights::FP8_BLOCK;

// Above every published model by orders of magnitude, and low enough that no product of three
// sizes and an element's bytes overflows 64 bits.
pub(super) const MAX_SIZE: usize = 1 << 20;
pub(super) const MAX_LAYERS: usize = 1 << 16;

/// The number format of a model's router before one is asked for.
pub(super) const ANY_DTYPE: Format = Format::F32;

/// Under which names a family's configuration has what every family has.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    pub(super) hidden: &'static [&'static str],
    pub(super) layers: &'static [&'static str],
    pub(super) experts: &'static [&'static str],
    pub(super) top_k: &'static [&'static str],
    /// The routed experts' inner size.
    pub(super) ffn: &'static [&'static str],
    pub(super) activation: &'static str,
}

/// The values of [`Fields`].
pub(super) struct Common {
    pub(super) sizes: Sizes,
    pub(super) top_k: usize,
    pub(super) layers: u32,
    pub(super) activation: Activation,
}

/// The names of most families whose experts are as large as `intermediate_size`.
pub(super) const FIELDS: Fields = Fields {
    hidden: &["hidden_size"],
    layers: &["num_hidden_layers"],
    experts: &["num_experts", "num_local_experts"],
    top_k: &["num_experts_per_tok"],
    ffn: &["intermediate_size"],
    activation: "hidden_act",
};

/// Those of families where `intermediate_size` is the dense layers' size.
pub(super) const MOE_FIELDS: Fields = Fields {
    ffn: &["moe_intermediate_size"],
    ..FIELDS
};

/// gate_proj, up_proj and down_proj of each expert.
pub(super) const PROJECTIONS: Layout = Layout::PerExpert {
    gate: "experts.{expert}.gate_proj.weight",
    up: "experts.{expert}.up_proj.weight",
    down: "experts.{expert}.down_proj.weight",
};

/// The same as w1, w3 and w2.
pub(super) const NUMBERED: Layout = Layout::PerExpert {
    gate: "experts.{expert}.w1.weight",
    up: "experts.{expert}.w3.weight",
    down: "experts.{expert}.w2.weight",
};

/// What transformers 5 has in memory for both.
pub(super) const STACKED: Layout = Layout::Stacked {
    gate_up: "experts.gate_up_proj",
    down: "experts.down_proj",
};

/// The names of most families.
pub(super) const NAMES: Names = Names {
    prefixes: &["model.layers.{layer}.mlp."],
    second: None,
    gate: &["gate.weight"],
    gate_bias: None,
    gate_f32: false,
    selection: None,
    experts: &[PROJECTIONS, STACKED],
    shared: None,
    latent: ["", ""],
};

/// Where the language model of a multimodal checkpoint is, in its files and in memory.
pub(super) const LANGUAGE_MODEL: &[&str] = &[
    "model.language_model.layers.{layer}.mlp.",
    "language_model.model.layers.{layer}.mlp.",
    "model.layers.{layer}.mlp.",
];

/// Mixtral's names.
pub(super) const MIXTRAL_NAMES: Names = Names {
    prefixes: &[
        "model.layers.{layer}.block_sparse_moe.",
        "model.layers.{layer}.mlp.",
    ],
    experts: &[NUMBERED, STACKED],
    ..NAMES
};

pub(super) const SHARED_EXPERTS: SharedNames = SharedNames {
    layout: SharedLayout::Glu {
        gate: "shared_experts.gate_proj.weight",
        up: "shared_experts.up_proj.weight",
        down: "shared_experts.down_proj.weight",
    },
    mix: None,
    optional: false,
};

pub(super) const SHARED_EXPERT: SharedNames = SharedNames {
    layout: SharedLayout::Glu {
        gate: "shared_expert.gate_proj.weight",
        up: "shared_expert.up_proj.weight",
        down: "shared_expert.down_proj.weight",
    },
    ..SHARED_EXPERTS
};

/// A bias of the selection that is rounded with the model.
pub(super) const fn selection(names: &'static [&'static str]) -> SelectionNames {
    SelectionNames {
        names,
        f32: false,
        row: false,
    }
}

/// A bias of the selection that stays F32.
pub(super) const fn selection_f32(names: &'static [&'static str]) -> SelectionNames {
    SelectionNames {
        names,
        f32: true,
        row: false,
    }
}

/// A shared expert of `ffn` units, added as it is; `None` where it would have no units.
pub(super) fn shared(ffn: usize) -> Option<SharedSpec> {
    (ffn > 0).then_some(SharedSpec {
        ffn,
        gated: false,
        kind: SharedKind::Glu,
        combine: Combine::Sum,
    })
}

// === impl Common ===

impl Common {
    /// Reads the fields under the names that `fields` says.
    pub(super) fn read(config: &Config, fields: Fields) -> Result<Self, CheckpointError> {
        let layers = config.size(fields.layers, MAX_LAYERS)?;
        Self::of_layers(config, fields, u32::try_from(layers).unwrap_or(u32::MAX))
    }

    /// As [`Common::read`], for a number of layers that the configuration says otherwise.
    pub(super) fn of_layers(
        config: &Config,
        fields: Fields,
        layers: u32,
    ) -> Result<Self, CheckpointError> {
        let experts = config.size(fields.experts, MAX_SIZE)?;
        let top_k = config.size(fields.top_k, MAX_SIZE)?;
        check_top_k(config, fields.top_k, top_k, experts)?;
        let sizes = Sizes {
            hidden: config.size(fields.hidden, MAX_SIZE)?,
            ffn: config.size(fields.ffn, MAX_SIZE)?,
            experts,
            free: 0,
            latent: None,
        };
        Ok(Self {
            sizes,
            top_k,
            layers,
            activation: activation(config, fields.activation, Activation::Silu)?,
        })
    }

    /// Mixtral's router for these sizes, to be changed where a family differs.
    pub(super) fn router(&self) -> RouterConfig {
        RouterConfig::mixtral(self.sizes.experts, self.top_k, ANY_DTYPE)
    }

    /// A model of these sizes with gated experts in every layer, to be changed where a family
    /// differs.
    pub(super) fn model(&self, router: RouterConfig, names: Names) -> Model {
        Model {
            sizes: self.sizes,
            layers: self.layers,
            moe_layers: (0..self.layers).collect(),
            by_layer: Vec::new(),
            router,
            form: Form::Glu {
                activation: self.activation,
                clamp: Clamp::None,
            },
            shared: None,
            weight_on_input: false,
            routed_scale: 1.0,
            one_by_one: false,
            capacity: None,
            names,
            fp8_block: FP8_BLOCK,
        }
    }
}

/// Refuses more choices than experts.
pub(super) fn check_top_k(
    config: &Config,
    names: &[&str],
    top_k: usize,
    experts: usize,
) -> Result<(), CheckpointError> {
    if top_k <= experts {
        return Ok(());
    }
    let name = names.iter().find(|name| config.has(name));
    let expected = format!("at most {experts}, the number of experts");
    let name = name.map_or_else(|| spellings(names), |name| (*name).to_owned());
    Err(config.wrong(&name, top_k.to_string(), expected))
}

/// The activation that `field` names, spelled as in published configurations.
pub(super) fn activation(
    config: &Config,
    field: &str,
    default: Activation,
) -> Result<Activation, CheckpointError> {
    let Some(found) = config.text(field)? else {
        return Ok(default);
    };
    found.parse().map_err(|error| match error {
        ExpertError::UnknownName { expected, .. } => {
            config.wrong(field, format!("{found:?}"), format!("one of {expected}"))
        }
        other => config.wrong(field, format!("{found:?}"), other.to_string()),
    })
}

/// Refuses a text other than `expected`, which is the default.
pub(super) fn only(config: &Config, field: &str, expected: &str) -> Result<(), CheckpointError> {
    match config.text(field)? {
        Some(found) if found != expected => {
            Err(config.wrong(field, format!("{found:?}"), format!("{expected:?}")))
        }
        _ => Ok(()),
    }
}

/// The layers from `first_k_dense_replace` on; or, where the configuration lists the kind of every
/// layer in `mlp_layer_types`, those called "sparse".
pub(super) fn sparse_layers(
    config: &Config,
    layers: u32,
    default: usize,
) -> Result<Vec<u32>, CheckpointError> {
    let Some(kinds) = config.texts("mlp_layer_types")? else {
        return from_layer(config, "first_k_dense_replace", layers, default);
    };
    if kinds.len() != layers as usize {
        let found = format!("a list of {}", kinds.len());
        let expected = format!("one word for each of {layers} layers");
        return Err(config.wrong("mlp_layer_types", found, expected));
    }
    let sparse = (0..layers).zip(kinds).filter(|(_, kind)| *kind == "sparse");
    Ok(sparse.map(|(layer, _)| layer).collect())
}

/// The layers from the number in `field` on.
pub(super) fn from_layer(
    config: &Config,
    field: &str,
    layers: u32,
    default: usize,
) -> Result<Vec<u32>, CheckpointError> {
    let first = config.count_or(&[field], default, MAX_LAYERS)?;
    let first = u32::try_from(first).unwrap_or(u32::MAX);
    Ok((first.min(layers)..layers).collect())
}

/// Layer i has experts iff it is not in `mlp_only_layers` and `decoder_sparse_step` divides i + 1.
pub(super) fn stepped_layers(
    config: &Config,
    layers: u32,
    dense_by_default: &[u32],
) -> Result<Vec<u32>, CheckpointError> {
    let mut dense = config.layers("mlp_only_layers")?;
    if !config.has("mlp_only_layers") {
        dense.extend(dense_by_default);
    }
    let step = config.size_or("decoder_sparse_step", 1, MAX_LAYERS)?;
    let step = u32::try_from(step).unwrap_or(u32::MAX);
    Ok((0..layers)
        .filter(|i| !dense.contains(i) && (i + 1).is_multiple_of(step))
        .collect())
}

/// Limits on groups, under the names `groups` and `kept`; `None` where every group is kept.
pub(super) fn groups(
    config: &Config,
    sizes: Sizes,
    names: [&[&str]; 2],
    defaults: [usize; 2],
    by: GroupScore,
) -> Result<Option<Groups>, CheckpointError> {
    let n = config.count_or(names[0], defaults[0], MAX_SIZE)?.max(1);
    let keep = config.count_or(names[1], defaults[1], MAX_SIZE)?.max(1);
    if keep >= n {
        return Ok(None);
    }
    if !sizes.experts.is_multiple_of(n) {
        let expected = format!("a divisor of {}, the number of experts", sizes.experts);
        return Err(config.wrong(names[0][0], n.to_string(), expected));
    }
    Ok(Some(Groups {
        n,
        keep,
        by,
        fill: f32::NEG_INFINITY,
        weights_from_masked: false,
    }))
}

/// Rows and columns that share a scale in F8 weights.
pub(super) fn fp8_block(config: &Config) -> Result<[usize; 2], CheckpointError> {
    if !config.has("quantization_config") {
        return Ok(FP8_BLOCK);
    }
    let quantisation = config.nested("quantization_config")?;
    quantisation.pair_or("weight_block_size", FP8_BLOCK, MAX_SIZE)
}
