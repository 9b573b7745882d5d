//! Every supported model type over a tiny checkpoint under the names of a published one: each tensor
//! is needed, and no other one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking"
)]

mod common;

use std::collections::BTreeSet;
use std::fs;

use common::Tensors;
use expertmesh_checkpoint::{Checkpoint, LayerSource, describe, known_model_types};
use expertmesh_experts::Scratch;
use expertmesh_kernels::Format;
use safetensors::Dtype;

const HIDDEN: usize = 8;
/// Inner size of an expert.
const FFN: usize = 4;
const EXPERTS: usize = 4;

/// A model type, what its configuration says, and the tensors of its layer 1.
struct Kin {
    model_type: &'static str,
    config: String,
    prefix: &'static str,
    tensors: Vec<(String, Vec<usize>)>,
    /// The layers with experts, of four.
    moe_layers: Vec<u32>,
    /// Inner size of the shared expert.
    shared: Option<usize>,
}

const MLP: &str = "model.layers.1.mlp.";
const MIXTRAL: &str = "model.layers.1.block_sparse_moe.";
const FEED_FORWARD: &str = "model.layers.1.feed_forward.";
const ALL: [u32; 4] = [0, 1, 2, 3];

impl Kin {
    fn new(model_type: &'static str, config: &str, prefix: &'static str) -> Self {
        Self {
            model_type,
            config: format!(
                r#""hidden_size": {HIDDEN}, "num_hidden_layers": 4, "num_experts_per_tok": 2 {config}"#
            ),
            prefix,
            tensors: Vec::new(),
            moe_layers: ALL.to_vec(),
            shared: None,
        }
    }

    /// As [`Kin::new`], with nothing said in advance.
    fn bare(model_type: &'static str, config: &str, prefix: &'static str) -> Self {
        let config = config.to_owned();
        Self {
            config,
            ..Self::new(model_type, "", prefix)
        }
    }

    fn after_dense(mut self, first: u32) -> Self {
        self.moe_layers.retain(|layer| *layer >= first);
        self
    }

    fn only(self, moe_layers: &[u32]) -> Self {
        let moe_layers = moe_layers.to_vec();
        Self { moe_layers, ..self }
    }

    fn nested(self) -> Self {
        let config = format!(r#""text_config": {{ {} }}"#, self.config);
        Self { config, ..self }
    }

    fn with(mut self, name: &str, shape: &[usize]) -> Self {
        self.tensors
            .push((format!("{}{name}", self.prefix), shape.to_vec()));
        self
    }

    fn gate(self, name: &str) -> Self {
        self.with(name, &[EXPERTS, HIDDEN])
    }

    fn bias(self, name: &str) -> Self {
        self.with(name, &[EXPERTS])
    }

    /// Each expert's matrices by name: those of `[FFN, HIDDEN]` first, then the other one.
    fn experts(mut self, wide: &[&str], narrow: &str) -> Self {
        for expert in 0..EXPERTS {
            for name in wide {
                let name = format!("experts.{expert}.{name}.weight");
                self = self.with(&name, &[FFN, HIDDEN]);
            }
            let name = format!("experts.{expert}.{narrow}.weight");
            self = self.with(&name, &[HIDDEN, FFN]);
        }
        self
    }

    fn projections(self) -> Self {
        self.experts(&["gate_proj", "up_proj"], "down_proj")
    }

    fn numbered(self) -> Self {
        self.experts(&["w1", "w3"], "w2")
    }

    fn shared(self, name: &str, ffn: usize) -> Self {
        let kin = self
            .with(&format!("{name}.gate_proj.weight"), &[ffn, HIDDEN])
            .with(&format!("{name}.up_proj.weight"), &[ffn, HIDDEN])
            .with(&format!("{name}.down_proj.weight"), &[HIDDEN, ffn]);
        Self {
            shared: Some(ffn),
            ..kin
        }
    }

    fn stacked_for_x_w(self, gate_up: &str, down: &str) -> Self {
        self.with(gate_up, &[EXPERTS, HIDDEN, 2 * FFN])
            .with(down, &[EXPERTS, FFN, HIDDEN])
    }

    fn write(&self, without: Option<&str>) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            r#"{{"model_type": "{}", {}}}"#,
            self.model_type, self.config
        );
        fs::write(directory.path().join("config.json"), config).unwrap();
        let mut tensors = Tensors::default();
        let kept = self
            .tensors
            .iter()
            .filter(|(name, _)| Some(&name[..]) != without);
        for (at, (name, shape)) in kept.enumerate() {
            let values = (0..shape.iter().product()).map(|i: usize| (i * 7 + at) % 11);
            let data = values.flat_map(|v| (v as f32 / 8.0 - 0.6).to_le_bytes());
            let tensor = (Dtype::F32, shape.clone(), data.collect());
            tensors.0.insert(name.clone(), tensor);
        }
        tensors.write(&directory.path().join("model.safetensors"));
        directory
    }
}

/// The families whose block is that of DeepSeek-V3 in all but names and defaults.
fn deepseek() -> Vec<Kin> {
    const MOE: &str = r#", "moe_intermediate_size": 4, "n_routed_experts": 4"#;
    const GROUPED: &str = r#", "moe_intermediate_size": 4, "n_routed_experts": 4, "n_group": 2,
        "topk_group": 1, "n_shared_experts": 2"#;
    let gate_bias = "gate.e_score_correction_bias";
    let v3 = |model_type, config: &str, prefix| {
        Kin::new(model_type, config, prefix)
            .gate("gate.weight")
            .bias(gate_bias)
            .projections()
    };
    let sparse = format!(r#"{MOE}, "mlp_layer_types": ["dense", "sparse", "dense", "sparse"]"#);
    let v32 = format!(r#"{GROUPED}, "first_k_dense_replace": 1"#);
    let counted = r#", "moe_intermediate_size": 4, "num_experts": 4, "num_shared_experts": 2"#;
    let token = r#""hidden_size": 8, "num_hidden_layers": 4, "num_experts_per_token": 2,
        "moe_intermediate_size": 4, "num_experts": 4, "num_expert_group": 2, "topk_group": 1,
        "moe_renormalize": true, "num_shared_experts": 1, "first_k_dense_replace": 1"#;
    let v2 = Kin::new("deepseek_v2", GROUPED, MLP);
    vec![
        v2.gate("gate.weight")
            .projections()
            .shared("shared_experts", 8),
        v3("deepseek_v3", &v32, MLP)
            .shared("shared_experts", 8)
            .after_dense(1),
        v3("deepseek_v32", &v32, MLP)
            .shared("shared_experts", 8)
            .after_dense(1),
        v3("glm4_moe", MOE, MLP)
            .shared("shared_experts", 4)
            .after_dense(1),
        v3("glm4_moe_lite", &sparse, MLP)
            .shared("shared_experts", 4)
            .only(&[1, 3]),
        v3("glm4v_moe", MOE, "model.language_model.layers.1.mlp.")
            .shared("shared_experts", 4)
            .after_dense(1)
            .nested(),
        v3("glm4v_moe_text", MOE, MLP)
            .shared("shared_experts", 4)
            .after_dense(1),
        v3("glm_moe_dsa", &v32, MLP)
            .shared("shared_experts", 8)
            .after_dense(1),
        v3("dots1", MOE, MLP),
        v3("mimo_v2_flash", MOE, MLP).after_dense(1),
        v3("solar_open", MOE, MLP).shared("shared_experts", 4),
        Kin::new("exaone_moe", counted, MLP)
            .gate("gate.weight")
            .bias("e_score_correction_bias")
            .projections()
            .shared("shared_experts", 8)
            .after_dense(1),
        Kin::bare("bailing_hybrid", token, MLP)
            .gate("gate.weight")
            .bias("gate.expert_bias")
            .projections()
            .shared("shared_experts", 4)
            .after_dense(1),
        Kin::bare("kimi_linear", token, MIXTRAL)
            .gate("gate.weight")
            .bias(gate_bias)
            .numbered()
            .shared("shared_experts", 4)
            .after_dense(1),
        Kin::new("mistral4", GROUPED, MLP)
            .gate("gate.weight")
            .projections()
            .shared("shared_experts", 8),
        nemotron(),
    ]
}

/// With a latent size of 6, so that the experts' matrices have other rows.
fn nemotron() -> Kin {
    let config = r#""hidden_size": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 4,
        "n_routed_experts": 4, "moe_latent_size": 6, "moe_shared_expert_intermediate_size": 5,
        "hybrid_override_pattern": "ME*-""#;
    let mut kin = Kin::bare("nemotron_h", config, "backbone.layers.1.mixer.")
        .gate("gate.weight")
        .bias("gate.e_score_correction_bias")
        .with("fc1_latent_proj.weight", &[6, HIDDEN])
        .with("fc2_latent_proj.weight", &[HIDDEN, 6])
        .with("shared_experts.up_proj.weight", &[5, HIDDEN])
        .with("shared_experts.down_proj.weight", &[HIDDEN, 5])
        .only(&[1]);
    for expert in 0..EXPERTS {
        kin = kin
            .with(&format!("experts.{expert}.up_proj.weight"), &[FFN, 6])
            .with(&format!("experts.{expert}.down_proj.weight"), &[6, FFN]);
    }
    Kin {
        shared: Some(5),
        ..kin
    }
}

/// Softmax routers: Mixtral's, Qwen's and what else has one.
fn softmax() -> Vec<Kin> {
    const LOCAL: &str = r#", "intermediate_size": 4, "num_local_experts": 4"#;
    const MOE: &str = r#", "intermediate_size": 9, "moe_intermediate_size": 4, "num_experts": 4,
        "shared_expert_intermediate_size": 6"#;
    let mixtral = |model_type| {
        Kin::new(model_type, LOCAL, MIXTRAL)
            .gate("gate.weight")
            .numbered()
    };
    let qwen = |model_type, config: &str, prefix| {
        Kin::new(model_type, config, prefix)
            .gate("gate.weight")
            .projections()
    };
    let gated = |kin: Kin| {
        kin.shared("shared_expert", 6)
            .with("shared_expert_gate.weight", &[1, HIDDEN])
    };
    let stepped = format!(r#"{MOE}, "decoder_sparse_step": 2, "norm_topk_prob": true"#);
    let vl = "model.language_model.layers.1.mlp.";
    vec![
        mixtral("mixtral"),
        mixtral("minimax"),
        mixtral("phimoe"),
        qwen("olmoe", LOCAL, MLP),
        qwen("flex_olmo", LOCAL, MLP),
        qwen("mellum", MOE, MLP),
        qwen("qwen3_moe", &stepped, MLP).only(&[1, 3]),
        gated(qwen("qwen2_moe", MOE, MLP)),
        gated(qwen("qwen3_next", &stepped, MLP)).only(&[1, 3]),
        {
            let kin = qwen("qwen3_omni_moe", MOE, "thinker.model.layers.1.mlp.").nested();
            let config = format!(r#""thinker_config": {{ {} }}"#, kin.config);
            Kin { config, ..kin }
        },
        gated(qwen("qwen3_5_moe", MOE, vl)).nested(),
        gated(qwen("qwen3_5_moe_text", MOE, MLP)),
        Kin::new("qwen3_vl_moe", MOE, vl)
            .gate("gate.weight")
            .stacked_for_x_w("experts.gate_up_proj", "experts.down_proj")
            .nested(),
        Kin::new("qwen3_vl_moe_text", MOE, MLP)
            .gate("gate.weight")
            .stacked_for_x_w("experts.gate_up_proj", "experts.down_proj"),
        Kin::new("jamba", LOCAL, FEED_FORWARD)
            .gate("router.weight")
            .projections()
            .only(&[1, 3]),
        Kin::bare(
            "dbrx",
            r#""d_model": 8, "n_layers": 4, "ffn_config": {"ffn_hidden_size": 4,
               "moe_num_experts": 4, "moe_top_k": 2, "ffn_act_fn": {"name": "silu"}}"#,
            "transformer.blocks.1.ffn.",
        )
        .gate("router.layer.weight")
        .with("experts.mlp.w1", &[EXPERTS * FFN, HIDDEN])
        .with("experts.mlp.v1", &[EXPERTS * FFN, HIDDEN])
        .with("experts.mlp.w2", &[EXPERTS * FFN, HIDDEN]),
        Kin::bare(
            "ernie4_5_moe",
            r#""hidden_size": 8, "num_hidden_layers": 4, "moe_k": 2, "moe_num_experts": 4,
               "moe_intermediate_size": 4, "moe_num_shared_experts": 2, "moe_layer_end_index": 2,
               "moe_layer_interval": 1"#,
            MLP,
        )
        .gate("gate.weight")
        .with("moe_statics.e_score_correction_bias", &[1, EXPERTS])
        .projections()
        .shared("shared_experts", 8)
        .only(&[1, 2]),
        Kin::bare(
            "hunyuan_v1_moe",
            r#""hidden_size": 8, "num_hidden_layers": 4, "moe_topk": [1, 2, 1, 1],
               "num_experts": [2, 4, 4, 2], "intermediate_size": 4"#,
            MLP,
        )
        .gate("gate.wg.weight")
        .projections()
        .shared("shared_mlp", 4),
        Kin::bare(
            "longcat_flash",
            r#""hidden_size": 8, "num_layers": 4, "moe_topk": 2, "n_routed_experts": 4,
               "zero_expert_num": 2, "expert_ffn_hidden_size": 4"#,
            MLP,
        )
        .with("router.classifier.weight", &[EXPERTS + 2, HIDDEN])
        .with("router.e_score_correction_bias", &[EXPERTS + 2])
        .projections(),
    ]
}

/// Sigmoid routers without groups.
fn sigmoid() -> Vec<Kin> {
    const LOCAL: &str = r#", "intermediate_size": 4, "num_local_experts": 4"#;
    const MOE: &str = r#", "moe_intermediate_size": 4, "num_experts": 4, "num_shared_experts": 2,
        "shared_expert_intermediate_size": 6"#;
    let m3 = |model_type, prefix| {
        let config =
            format!(r#"{LOCAL}, "shared_intermediate_size": 6, "moe_layer_freq": [0, 1, 1, 0]"#);
        Kin::new(model_type, &config, prefix)
            .gate("gate.weight")
            .bias("e_score_correction_bias")
            .numbered()
            .shared("shared_experts", 6)
            .only(&[1, 2])
    };
    let m3_prefix = "language_model.model.layers.1.block_sparse_moe.";
    vec![
        Kin::new("minimax_m2", LOCAL, MIXTRAL)
            .gate("gate.weight")
            .bias("e_score_correction_bias")
            .numbered(),
        m3("minimax_m3_vl", m3_prefix).nested(),
        m3("minimax_m3_vl_text", MIXTRAL),
        Kin::new("afmoe", MOE, MLP)
            .gate("router.gate.weight")
            .bias("expert_bias")
            .projections()
            .shared("shared_experts", 8)
            .after_dense(1),
        Kin::new(
            "lfm2_moe",
            &format!(r#"{MOE}, "num_dense_layers": 1"#),
            FEED_FORWARD,
        )
        .gate("gate.weight")
        .bias("expert_bias")
        .numbered()
        .after_dense(1),
        Kin::new("laguna", MOE, MLP)
            .gate("gate.weight")
            .bias("experts.e_score_correction_bias")
            .projections()
            .shared("shared_expert", 6)
            .after_dense(1),
        Kin::new("hy_v3", MOE, MLP)
            .gate("router.gate.weight")
            .bias("expert_bias")
            .projections()
            .shared("shared_mlp", 8)
            .after_dense(1),
        Kin::new("flint", &format!(r#"{MOE}, "mlp_only_layers": [2]"#), MLP)
            .gate("gate.weight")
            .projections()
            .shared("shared_expert", 6)
            .only(&[0, 1, 3]),
    ]
}

/// Routers that choose by the logit, and the two with a capacity.
fn others() -> Vec<Kin> {
    const LOCAL: &str = r#", "intermediate_size": 4, "num_local_experts": 4"#;
    let llama4 = |model_type, prefix| {
        let config = format!(r#"{LOCAL}, "interleave_moe_layer_step": 2"#);
        Kin::new(model_type, &config, prefix)
            .gate("router.weight")
            .stacked_for_x_w("experts.gate_up_proj", "experts.down_proj")
            .shared("shared_expert", 4)
            .only(&[1, 3])
    };
    let linear = |model_type, config: &str, prefix| {
        Kin::new(model_type, config, prefix)
            .gate("router.layer.weight")
            .with("input_linear.weight", &[EXPERTS, 2 * FFN, HIDDEN])
            .with("output_linear.weight", &[EXPERTS, HIDDEN, FFN])
    };
    let beside = |model_type| {
        let config = format!(r#"{LOCAL}, "shared_intermediate_size": 6"#);
        let mut kin = linear(model_type, &config, MIXTRAL);
        let name = |tail: &str| format!("model.layers.1.shared_mlp.{tail}_linear.weight");
        kin.tensors.push((name("input"), vec![12, HIDDEN]));
        kin.tensors.push((name("output"), vec![HIDDEN, 6]));
        kin.shared = Some(6);
        kin
    };
    let aria = |model_type, prefix| {
        let config = r#""hidden_size": 8, "num_hidden_layers": 4, "moe_topk": 2,
            "moe_num_experts": 4, "intermediate_size": 4, "moe_num_shared_experts": 2"#;
        Kin::bare(model_type, config, prefix)
            .gate("router.weight")
            .stacked_for_x_w("experts.fc1.weight", "experts.fc2.weight")
            .shared("shared_experts", 8)
    };
    let cohere = r#", "intermediate_size": 4, "num_experts": 4, "num_shared_experts": 2,
        "expert_selection_fn": "sigmoid", "first_k_dense_replace": 1"#;
    let mut jetmoe = linear("jetmoe", LOCAL, MLP).with("bias", &[HIDDEN]);
    jetmoe.shared = Some(0);
    vec![
        llama4("llama4", "language_model.model.layers.1.feed_forward.").nested(),
        llama4("llama4_text", FEED_FORWARD),
        linear("granitemoe", LOCAL, MIXTRAL),
        {
            let mut kin = beside("granitemoe_swa");
            for (name, _) in &mut kin.tensors {
                for (hub, raw) in [
                    ("moe.input_linear.weight", "moe.experts.gate_up_proj"),
                    ("moe.output_linear.weight", "moe.experts.down_proj"),
                    ("moe.router.layer.weight", "moe.router.weight"),
                ] {
                    *name = name.replace(hub, raw);
                }
            }
            kin
        },
        beside("granitemoehybrid"),
        beside("granitemoeshared"),
        jetmoe,
        aria("aria", "language_model.model.layers.1.mlp.").nested(),
        aria("aria_text", MLP),
        Kin::new("cohere2_moe", cohere, MLP)
            .gate("gate.weight")
            .projections()
            .shared("shared_experts", 8)
            .after_dense(1),
        Kin::new("gpt_oss", LOCAL, MLP)
            .gate("router.weight")
            .bias("router.bias")
            .stacked_for_x_w("experts.gate_up_proj", "experts.down_proj")
            .with("experts.gate_up_proj_bias", &[EXPERTS, 2 * FFN])
            .with("experts.down_proj_bias", &[EXPERTS, HIDDEN]),
        switch(),
        nllb(),
    ]
}

/// Layer 1 is the decoder's layer 0: the encoder has one layer, not a sparse one.
fn switch() -> Kin {
    let config = r#""d_model": 8, "d_ff": 4, "num_experts": 4, "num_layers": 1,
        "num_decoder_layers": 3, "num_sparse_encoder_layers": 0, "num_sparse_decoder_layers": 3,
        "router_bias": true, "expert_capacity": 2"#;
    let mut kin = Kin::bare(
        "switch_transformers",
        config,
        "decoder.block.0.layer.2.mlp.",
    )
    .gate("router.classifier.weight")
    .bias("router.classifier.bias");
    for expert in 0..EXPERTS {
        kin = kin
            .with(
                &format!("experts.expert_{expert}.wi.weight"),
                &[FFN, HIDDEN],
            )
            .with(
                &format!("experts.expert_{expert}.wo.weight"),
                &[HIDDEN, FFN],
            );
    }
    // A step of 1 layer without sparse ones makes the encoder's only layer sparse all the same.
    kin.only(&[0, 1, 2, 3])
}

/// The decoder's networks are smaller than the encoder's.
fn nllb() -> Kin {
    let config = r#""d_model": 8, "encoder_ffn_dim": 6, "decoder_ffn_dim": 4, "num_experts": 4,
        "encoder_layers": 1, "decoder_layers": 3, "encoder_sparse_step": 0,
        "decoder_sparse_step": 1"#;
    let mut kin = Kin::bare("nllb-moe", config, "model.decoder.layers.0.ffn.")
        .gate("router.classifier.weight");
    for expert in 0..EXPERTS {
        let name = |tail: &str| format!("experts.expert_{expert}.{tail}");
        kin = kin
            .with(&name("fc1.weight"), &[FFN, HIDDEN])
            .with(&name("fc1.bias"), &[FFN])
            .with(&name("fc2.weight"), &[HIDDEN, FFN])
            .with(&name("fc2.bias"), &[HIDDEN]);
    }
    kin.only(&[1, 2, 3])
}

fn every() -> Vec<Kin> {
    [deepseek(), softmax(), sigmoid(), others()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn every_model_type_has_its_names_here() {
    let here: BTreeSet<&str> = every().iter().map(|kin| kin.model_type).collect();
    let known: BTreeSet<&str> = known_model_types().into_iter().collect();
    assert_eq!(here, known);
}

#[test]
fn a_layer_is_read_whole() {
    for kin in every() {
        let name = kin.model_type;
        let directory = kin.write(None);
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        assert_eq!(checkpoint.layers(), 4, "{name}");
        assert_eq!(checkpoint.moe_layers(), kin.moe_layers, "{name}");
        for dtype in [Format::F32, Format::Bf16] {
            let layer = checkpoint
                .layer(1, dtype)
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            let spec = layer.spec();
            assert_eq!((spec.routed_experts(), spec.ffn), (EXPERTS, FFN), "{name}");
            assert_eq!(spec.shared.map(|shared| shared.ffn), kin.shared, "{name}");
            let x: Vec<f32> = (0..3 * HIDDEN).map(|i| (i % 5) as f32 - 2.0).collect();
            let route = layer.gate().unwrap().route(&x, 3, None).unwrap();
            assert_eq!(route.experts.len(), 3 * spec.top_k, "{name}");
            let (mut y, mut scratch) = (vec![0.0; 3 * HIDDEN], Scratch::default());
            let mut bytes = 0;
            for expert in 0..spec.experts {
                let expert = layer.expert(expert).unwrap();
                expert.forward(&x, &mut y, &mut scratch).unwrap();
                assert!(y.iter().all(|y| y.is_finite()), "{name}");
                bytes += expert.weight_bytes() as u64;
            }
            assert_eq!(bytes, spec.weights.experts.bytes, "{name}");
            let shared = layer.shared().unwrap();
            assert_eq!(shared.is_some(), kin.shared.is_some(), "{name}");
            let elements: usize = kin
                .tensors
                .iter()
                .map(|(_, s)| s.iter().product::<usize>())
                .sum();
            let total = spec.weights.total();
            assert_eq!(
                total.parameters, elements as u64,
                "{name}: {:?}",
                spec.weights
            );
        }
        let seen = describe(directory.path()).unwrap();
        let one = seen
            .moe_layers
            .iter()
            .find(|layer| layer.layer == 1)
            .unwrap();
        assert_eq!(
            (one.problem.as_ref(), &one.block[..]),
            (None, kin.prefix),
            "{name}"
        );
        assert_eq!(seen.tensors, kin.tensors.len(), "{name}");
    }
}

#[test]
fn every_tensor_is_needed() {
    for kin in every() {
        let beside =
            |name: &str| name.contains("shared_mlp") && kin.model_type.starts_with("granite");
        for (tensor, _) in &kin.tensors {
            let directory = kin.write(Some(tensor));
            let layer = Checkpoint::open(directory.path())
                .unwrap()
                .layer(1, Format::F32);
            let said = layer
                .err()
                .unwrap_or_else(|| panic!("{}: {tensor}", kin.model_type));
            let said = said.to_string();
            // Without the tensor that tells spellings apart, the message has the hub's.
            assert!(
                said.contains(" is missing from "),
                "{}: {said}",
                kin.model_type
            );
            assert!(
                said.contains(&tensor[..])
                    || tensor.contains(".0.")
                    || kin.model_type == "granitemoe_swa"
                    || beside(tensor),
                "{}: without {tensor} it says {said}",
                kin.model_type
            );
        }
    }
}
