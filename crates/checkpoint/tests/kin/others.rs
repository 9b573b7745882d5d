//! Routers that choose by the logit, and the two with a capacity.

use crate::kin::{EXPERTS, FEED_FORWARD, FFN, HIDDEN, Kin, MIXTRAL, MLP};

pub(crate) fn others() -> Vec<Kin> {
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
