use super::*;

#[test]
fn names_parse_back() {
    for activation in [
        Activation::Silu,
        Activation::Relu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu2,
    ] {
        assert_eq!(
            activation.to_string().parse::<Activation>().unwrap(),
            activation
        );
    }
    for kind in [ExpertKind::Swiglu, ExpertKind::Mlp, ExpertKind::Identity] {
        assert_eq!(kind.to_string().parse::<ExpertKind>().unwrap(), kind);
    }
    assert_eq!("swish".parse::<Activation>().unwrap(), Activation::Silu);
    assert_eq!(
        "gelu_new".parse::<Activation>().unwrap(),
        Activation::GeluTanh
    );
}

#[test]
fn unknown_names_list_the_known_ones() {
    assert_eq!(
        "moe".parse::<ExpertKind>().unwrap_err().to_string(),
        "unknown expert kind \"moe\"; expected one of swiglu, mlp, identity"
    );
    let error = "tanh".parse::<Activation>().unwrap_err().to_string();
    assert!(error.contains("unknown activation \"tanh\"") && error.contains("gelu_pytorch_tanh"));
}

#[test]
fn a_spec_needs_the_dimensions_that_it_uses() {
    let spec = |hidden, ffn, kind| ExpertSpec {
        hidden,
        ffn,
        kind,
        activation: Activation::Silu,
        dtype: Format::F32,
    };
    assert!(spec(4, 0, ExpertKind::Identity).validate().is_ok());
    assert!(
        spec(4, 0, ExpertKind::Mlp)
            .validate()
            .unwrap_err()
            .to_string()
            .starts_with("ffn")
    );
    let error = spec(0, 4, ExpertKind::Swiglu).validate().unwrap_err();
    assert!(error.to_string().starts_with("hidden"));
    assert_eq!(
        spec(usize::MAX, usize::MAX, ExpertKind::Mlp).weight_bytes(),
        usize::MAX
    );
    assert_eq!(
        spec(usize::MAX, usize::MAX, ExpertKind::Mlp).flops_per_row(),
        u64::MAX
    );
}

#[test]
fn an_activation_applies_to_every_value() {
    for activation in [
        Activation::Silu,
        Activation::Relu,
        Activation::Gelu,
        Activation::GeluTanh,
    ] {
        let mut values = [-3.0, 0.0, 3.0];
        activation.apply(&mut values);
        // All four vanish at 0, approach x above it and 0 below it.
        assert!(values[0].abs() < 0.15 && values[1] == 0.0 && (values[2] - 3.0).abs() < 0.15);
    }
    let mut values = [-3.0, 0.0, 3.0];
    Activation::Relu2.apply(&mut values);
    assert_eq!(values, [0.0, 0.0, 9.0]);
}
