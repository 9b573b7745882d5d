//! Switch Transformers and NLLB-MoE: encoders and decoders whose experts have a capacity.
//!
//! The layers of both towers have one count here: the encoder's first, then the decoder's.

use expertmesh_experts::Activation;
use expertmesh_routing::{
    Logits, ModelCapacity, Norm, RouterConfig, Score, Select, Top2Capacity, WeightDtype,
};

use super::common::{ANY_DTYPE, Common, MAX_LAYERS, MAX_SIZE, NAMES, activation, only};
use super::{Family, Form, Model};
use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::{Layout, Names, Sizes, Tower};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("nllb-moe", nllb).one_by_one(),
    Family::new("switch_transformers", switch).one_by_one(),
];

/// The fields that both models have: sizes with the encoder's inner size, layers of both towers.
struct Towers {
    common: Common,
    encoder: u32,
    decoder: u32,
}

impl Towers {
    fn read(
        config: &Config,
        layers: [&str; 2],
        ffn: &str,
        act: &str,
        top_k: usize,
    ) -> Result<Self, CheckpointError> {
        let experts = config.size(&["num_experts"], MAX_SIZE)?;
        if top_k > experts {
            let expected = format!("at least {top_k}, the choices of a token");
            return Err(config.wrong("num_experts", experts.to_string(), expected));
        }
        let encoder = config.size(&layers[..1], MAX_LAYERS)?;
        // A decoder as deep as the encoder is the default of both classes.
        let decoder = config.count_or(&layers[1..], encoder, MAX_LAYERS)?;
        let [encoder, decoder] = [encoder, decoder].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let common = Common {
            sizes: Sizes {
                hidden: config.size(&["d_model", "hidden_size"], MAX_SIZE)?,
                ffn: config.size(&[ffn], MAX_SIZE)?,
                experts,
                free: 0,
                latent: None,
            },
            top_k,
            layers: encoder.saturating_add(decoder),
            activation: activation(config, act, Activation::Relu)?,
        };
        Ok(Self {
            common,
            encoder,
            decoder,
        })
    }

    /// Scores rounded to the model's format, of f32 logits.
    fn router(&self, select: Select) -> RouterConfig {
        RouterConfig {
            logits: Logits::F32,
            score: Score::Softmax { f32: false },
            select,
            norm: Norm::None,
            weight_dtype: WeightDtype::Model,
            ..RouterConfig::mixtral(self.common.sizes.experts, self.common.top_k, ANY_DTYPE)
        }
    }

    /// The numbers of the layers of both towers that are sparse there.
    fn sparse(&self, sparse: [impl Fn(u32) -> bool; 2]) -> Vec<u32> {
        let [encoder, decoder] = sparse;
        let encoder = (0..self.encoder).filter(|layer| encoder(*layer));
        let decoder = (0..self.decoder).filter(|layer| decoder(*layer));
        let after = decoder.map(|layer| layer.saturating_add(self.encoder));
        encoder.chain(after).collect()
    }
}

fn switch(config: &Config) -> Result<Model, CheckpointError> {
    only(config, "router_dtype", "float32")?;
    let layers = ["num_layers", "num_decoder_layers"];
    let towers = Towers::read(config, layers, "d_ff", "dense_act_fn", 1)?;
    let capacity = config.count_or(&["expert_capacity"], 64, usize::MAX)? as u64;
    let biased = config.flag_or("router_bias", false)?;
    let names = Names {
        prefixes: &["encoder.block.{layer}.layer.1.mlp."],
        second: Some(Tower {
            first: towers.encoder,
            prefixes: &["decoder.block.{layer}.layer.2.mlp."],
        }),
        gate: &["router.classifier.weight"],
        gate_bias: biased.then_some("router.classifier.bias"),
        experts: &[Layout::PerExpertMlp {
            up: "experts.expert_{expert}.wi.weight",
            down: "experts.expert_{expert}.wo.weight",
            biases: None,
        }],
        ..NAMES
    };
    // "HACK", says the class of the step without sparse layers: the layer count itself.
    let step = |field: &str, layers: u32| -> Result<u32, CheckpointError> {
        let sparse = config.count_or(&[field], 3, MAX_LAYERS)?;
        let sparse = u32::try_from(sparse).unwrap_or(u32::MAX);
        Ok(layers.checked_div(sparse).unwrap_or(layers))
    };
    let encoder = step("num_sparse_encoder_layers", towers.encoder)?;
    let decoder = step("num_sparse_decoder_layers", towers.decoder)?;
    let sparse = |step: u32| {
        move |layer: u32| step == 1 || layer.checked_rem(step).is_some_and(|rest| rest == 1)
    };
    let model = towers.common.model(towers.router(Select::Score), names);
    Ok(Model {
        moe_layers: towers.sparse([sparse(encoder), sparse(decoder)]),
        form: Form::Mlp {
            activation: towers.common.activation,
            scale: 1.0,
        },
        capacity: Some(ModelCapacity::PerSequence { capacity }),
        ..model
    })
}

/// Follows the formulas of transformers 4: the block of version 5 takes masks for experts.
fn nllb(config: &Config) -> Result<Model, CheckpointError> {
    only(config, "router_dtype", "float32")?;
    // The other policies draw random numbers.
    only(config, "second_expert_policy", "all")?;
    let layers = ["encoder_layers", "decoder_layers"];
    let towers = Towers::read(config, layers, "encoder_ffn_dim", "activation_function", 2)?;
    let sizes = towers.common.sizes;
    let decoder_ffn = match config.has("decoder_ffn_dim") {
        true => config.size(&["decoder_ffn_dim"], MAX_SIZE)?,
        false => sizes.ffn,
    };
    let mut by_layer = Vec::new();
    if decoder_ffn != sizes.ffn {
        by_layer.resize(towers.encoder as usize, (sizes, 2));
        let decoder = Sizes {
            ffn: decoder_ffn,
            ..sizes
        };
        by_layer.resize(towers.common.layers as usize, (decoder, 2));
    }
    let names = Names {
        prefixes: &["model.encoder.layers.{layer}.ffn."],
        second: Some(Tower {
            first: towers.encoder,
            prefixes: &["model.decoder.layers.{layer}.ffn."],
        }),
        gate: &["router.classifier.weight"],
        gate_bias: config
            .flag_or("router_bias", false)?
            .then_some("router.classifier.bias"),
        experts: &[Layout::PerExpertMlp {
            up: "experts.expert_{expert}.fc1.weight",
            down: "experts.expert_{expert}.fc2.weight",
            biases: Some([
                "experts.expert_{expert}.fc1.bias",
                "experts.expert_{expert}.fc2.bias",
            ]),
        }],
        ..NAMES
    };
    let step = |field: &str| -> Result<u32, CheckpointError> {
        let step = config.count_or(&[field], 4, MAX_LAYERS)?;
        Ok(u32::try_from(step).unwrap_or(u32::MAX))
    };
    let (encoder, decoder) = (step("encoder_sparse_step")?, step("decoder_sparse_step")?);
    let sparse = |step: u32| move |layer: u32| step > 0 && (layer + 1).is_multiple_of(step);
    // In f64, as the class computes it, then a factor of f32 arithmetic.
    let dropout = config.number("moe_token_dropout")?.unwrap_or(0.2);
    let model = towers
        .common
        .model(towers.router(Select::SecondByLogit), names);
    Ok(Model {
        moe_layers: towers.sparse([sparse(encoder), sparse(decoder)]),
        by_layer,
        form: Form::Mlp {
            activation: towers.common.activation,
            scale: if dropout > 0.0 {
                (1.0 - dropout) as f32
            } else {
                1.0
            },
        },
        capacity: Some(ModelCapacity::Top2 {
            capacity: nllb_capacity(config)?,
            prioritised: config.flag_or("batch_prioritized_routing", false)?,
            norm_before_drop: config.flag_or("normalize_router_prob_before_dropping", false)?,
            drop_padding: !config.flag_or("router_ignore_padding_tokens", false)?,
        }),
        ..model
    })
}

/// A fraction of the tokens where one is set; else `expert_capacity`; else by the experts.
fn nllb_capacity(config: &Config) -> Result<Top2Capacity, CheckpointError> {
    let fraction = config
        .number("moe_eval_capacity_token_fraction")?
        .unwrap_or(1.0);
    if fraction > 0.0 {
        return Ok(Top2Capacity::Fraction(fraction));
    }
    if config.is_null("expert_capacity") {
        return Ok(Top2Capacity::PerExpert);
    }
    let fixed = config.count_or(&["expert_capacity"], 64, usize::MAX)?;
    Ok(Top2Capacity::Fixed(fixed as u64))
}
