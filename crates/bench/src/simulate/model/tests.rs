use super::*;

fn device() -> Device {
    Device {
        name: "one".to_owned(),
        flops: 1e15,
        memory_bytes_per_s: 1e15,
        efficiency: 1.0,
        launch_ns: 0,
        source: "made up".to_owned(),
    }
}

fn prefill(model: &ModelPreset, tokens: usize) -> f64 {
    model.between_ns(Stage::Prefill, tokens, Format::Bf16, &device()) as f64
}

#[test]
fn a_long_prefill_grows_with_the_square_of_its_sequence() {
    let model = ModelPreset::named("mixtral-8x7b").unwrap();
    // 2 · weights · T and 2 · (query + value elements) · T² / 2, at 10⁶ operations a nanosecond.
    let expected = |tokens: f64| {
        let linear = 2.0 * (2.0 * 4096.0 * 4096.0 + 2.0 * 4096.0 * 1024.0) * tokens;
        (linear + 2.0 * 8192.0 * tokens * tokens / 2.0) / 1e6
    };
    for tokens in [4096, 131_072] {
        let (held, expected) = (prefill(model, tokens), expected(tokens as f64));
        assert!(
            (held / expected - 1.0).abs() < 1e-3,
            "{held} and {expected}"
        );
    }
    assert!(prefill(model, 131_072) > 100.0 * prefill(model, 4096));
}

#[test]
fn a_sliding_window_bounds_what_every_second_layer_sees() {
    let windowed = ModelPreset::named("gpt-oss-120b").unwrap();
    let whole = ModelPreset {
        window: None,
        ..*windowed
    };
    assert_eq!((windowed.seen(64), whole.seen(64)), (64.0, 64.0));
    assert_eq!((windowed.seen(4096), whole.seen(4096)), (2112.0, 4096.0));
    assert_eq!(windowed.pairs(100), whole.pairs(100));
    let near = 4096.0 * 128.0 - 128.0 * 128.0 / 2.0;
    assert_eq!(windowed.pairs(4096), (whole.pairs(4096) + near) / 2.0);
    let decode = Stage::Decode { context: 65_536 };
    let ns = |model: &ModelPreset| model.between_ns(decode, 128, Format::Bf16, &device());
    assert!(ns(windowed) < ns(&whole));
}

#[test]
fn weights_take_what_their_format_does() {
    let model = ModelPreset::named("olmoe").unwrap();
    let decode = Stage::Decode { context: 4096 };
    let ns = |format| model.between_ns(decode, 1, format, &device());
    assert!(ns(Format::F32).abs_diff(2 * ns(Format::Bf16)) <= 1);
}
