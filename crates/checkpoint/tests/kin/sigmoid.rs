//! Sigmoid routers without groups.

use crate::kin::{FEED_FORWARD, Kin, MIXTRAL, MLP};

pub(crate) fn sigmoid() -> Vec<Kin> {
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
