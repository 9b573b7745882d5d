//! Softmax routers: Mixtral's, Qwen's and what else has one.

use crate::kin::{EXPERTS, FEED_FORWARD, FFN, HIDDEN, Kin, MIXTRAL, MLP};

pub(crate) fn softmax() -> Vec<Kin> {
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
