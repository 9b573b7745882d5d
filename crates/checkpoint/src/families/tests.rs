use std::path::PathBuf;

use expertmesh_routing::{Norm, WeightDtype};

/// The first families there were; their kin are in `tests/kin.rs`.
const FIRST: [&str; 4] = ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe"];

use super::*;
use crate::spec::{Combine, SharedKind};

/// A configuration of `model_type` with 8 experts, 2 choices, 6 layers, and `more` fields.
fn config(model_type: &str, more: &str) -> Config {
    let text = format!(
        r#"{{"model_type": "{model_type}", "hidden_size": 4, "intermediate_size": 6,
            "moe_intermediate_size": 5, "shared_expert_intermediate_size": 7,
            "num_experts_per_tok": 2, "num_hidden_layers": 6 {more}}}"#
    );
    Config::parse(PathBuf::from("config.json"), text.as_bytes()).unwrap()
}

fn model(model_type: &str, more: &str) -> Model {
    read(&config(
        model_type,
        &format!(r#", "num_experts": 8 {more}"#),
    ))
    .unwrap()
    .1
}

fn refusal(model_type: &str, more: &str) -> String {
    read(&config(model_type, more)).unwrap_err().to_string()
}

#[test]
fn each_family_has_its_own_expert_size() {
    assert_eq!(model("mixtral", "").sizes.ffn, 6);
    assert_eq!(model("olmoe", "").sizes.ffn, 6);
    assert_eq!(model("qwen2_moe", "").sizes.ffn, 5);
    assert_eq!(model("qwen3_moe", "").sizes.ffn, 5);
}

#[test]
fn only_qwen2_has_a_shared_expert() {
    assert_eq!(
        model("qwen2_moe", "").shared,
        Some(SharedSpec {
            ffn: 7,
            gated: true,
            kind: SharedKind::Glu,
            combine: Combine::Sum,
        })
    );
    for other in ["mixtral", "olmoe", "qwen3_moe"] {
        assert_eq!(model(other, "").shared, None);
    }
}

#[test]
fn either_spelling_of_the_number_of_experts_serves_every_family() {
    for family in FIRST {
        let local = config(family, r#", "num_local_experts": 8"#);
        assert_eq!(read(&local).unwrap().1.sizes.experts, 8, "{family}");
        assert_eq!(
            refusal(family, ""),
            "config.json has no field num_experts (also spelled num_local_experts)"
        );
    }
}

#[test]
fn weights_are_normalised_as_the_family_says() {
    let sum = Norm::Sum { eps: 0.0 };
    assert_eq!(
        model("mixtral", r#", "norm_topk_prob": false"#).router.norm,
        sum
    );
    for family in ["olmoe", "qwen2_moe", "qwen3_moe"] {
        assert_eq!(model(family, "").router.norm, Norm::None, "{family}");
        assert_eq!(
            model(family, r#", "norm_topk_prob": true"#).router.norm,
            sum,
            "{family}"
        );
        assert_eq!(
            model(family, "").router.weight_dtype,
            WeightDtype::Model,
            "{family}"
        );
    }
    assert_eq!(model("mixtral", "").router.weight_dtype, WeightDtype::F32);
}

#[test]
fn dense_layers_are_told_from_sparse_ones() {
    for family in ["mixtral", "olmoe"] {
        let ignored = r#", "decoder_sparse_step": 2, "mlp_only_layers": [0]"#;
        assert_eq!(
            model(family, ignored).moe_layers,
            [0, 1, 2, 3, 4, 5],
            "{family}"
        );
    }
    for family in ["qwen2_moe", "qwen3_moe"] {
        assert_eq!(model(family, "").moe_layers, [0, 1, 2, 3, 4, 5]);
        let step = model(family, r#", "decoder_sparse_step": 2"#);
        assert_eq!(step.moe_layers, [1, 3, 5]);
        let both = model(
            family,
            r#", "decoder_sparse_step": 2, "mlp_only_layers": [3, 99]"#,
        );
        assert_eq!(both.moe_layers, [1, 5]);
        let none = model(family, r#", "decoder_sparse_step": 7"#);
        assert!(none.moe_layers.is_empty());
    }
    let zero = refusal(
        "qwen3_moe",
        r#", "num_experts": 8, "decoder_sparse_step": 0"#,
    );
    assert!(
        zero.contains("decoder_sparse_step is 0, expected a whole number from 1"),
        "{zero}"
    );
}

#[test]
fn activations_are_mapped_by_name() {
    for (name, activation) in [
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
        ("relu", Activation::Relu),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
    ] {
        let read = model("olmoe", &format!(r#", "hidden_act": "{name}""#));
        assert_eq!(read.form.activation(), activation, "{name}");
    }
    assert_eq!(model("olmoe", "").form.activation(), Activation::Silu);
}

#[test]
fn what_cannot_be_used_is_named_with_what_can() {
    let said = refusal("llama", "");
    assert!(
        said.starts_with("config.json: model_type is \"llama\", expected one of afmoe, aria, "),
        "{said}"
    );
    assert!(known().iter().all(|family| said.contains(family)), "{said}");
    let act = refusal("mixtral", r#", "num_experts": 8, "hidden_act": "mish""#);
    assert!(
        act.starts_with("config.json: hidden_act is \"mish\", expected one of silu, "),
        "{act}"
    );
    assert_eq!(
        refusal("mixtral", r#", "num_experts": 1"#),
        "config.json: num_experts_per_tok is 2, expected at most 1, the number of experts"
    );
    let empty = Config::parse(PathBuf::from("config.json"), b"{}").unwrap();
    assert_eq!(
        read(&empty).unwrap_err().to_string(),
        "config.json has no field model_type"
    );
}
