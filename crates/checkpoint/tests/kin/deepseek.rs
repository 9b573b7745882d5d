//! DeepSeek and its kin.

use crate::kin::{EXPERTS, FFN, HIDDEN, Kin, MIXTRAL, MLP};

/// The families whose block is that of DeepSeek-V3 in all but names and defaults.
pub(crate) fn deepseek() -> Vec<Kin> {
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
