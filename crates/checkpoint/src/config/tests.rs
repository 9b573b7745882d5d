use super::*;

fn config(text: &str) -> Config {
    Config::parse(PathBuf::from("config.json"), text.as_bytes()).unwrap()
}

fn message<T: std::fmt::Debug>(result: Result<T, CheckpointError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn either_spelling_is_read_and_null_is_absent() {
    const NAMES: &[&str] = &["num_experts", "num_local_experts"];
    assert_eq!(config(r#"{"num_experts": 8}"#).size(NAMES, 99).unwrap(), 8);
    assert_eq!(
        config(r#"{"num_local_experts": 8}"#)
            .size(NAMES, 99)
            .unwrap(),
        8
    );
    let both = r#"{"num_experts": null, "num_local_experts": 8}"#;
    assert_eq!(config(both).size(NAMES, 99).unwrap(), 8);
    assert_eq!(
        message(config("{}").size(NAMES, 99)),
        "config.json has no field num_experts (also spelled num_local_experts)"
    );
}

#[test]
fn spellings_that_disagree_are_refused() {
    let text = r#"{"num_experts": 8, "num_local_experts": 4}"#;
    assert_eq!(
        message(config(text).size(&["num_experts", "num_local_experts"], 99)),
        "config.json: num_local_experts is 4, expected the value of its other spelling \
         num_experts, which is 8"
    );
}

#[test]
fn wrong_values_name_field_value_and_expectation() {
    for bad in [
        "0",
        "-1",
        "1.5",
        "\"8\"",
        "100",
        "1e30",
        "18446744073709551616",
        "[8]",
    ] {
        let text = format!(r#"{{"hidden_size": {bad}}}"#);
        let said = message(config(&text).size(&["hidden_size"], 99));
        assert!(said.starts_with("config.json: hidden_size is "), "{said}");
        assert!(
            said.ends_with(", expected a whole number from 1 to 99"),
            "{said}"
        );
    }
    let said = message(config(r#"{"norm_topk_prob": 1}"#).flag_or("norm_topk_prob", false));
    assert_eq!(
        said,
        "config.json: norm_topk_prob is 1, expected true or false"
    );
    let said = message(config(r#"{"mlp_only_layers": [1, -2]}"#).layers("mlp_only_layers"));
    assert!(
        said.contains("a list with -2, expected a list of layer numbers"),
        "{said}"
    );
    let long = format!(r#"{{"hidden_act": [{}]}}"#, "\"é\",".repeat(500) + "1");
    assert!(message(config(&long).text("hidden_act")).len() < 200);
}

#[test]
fn text_that_is_not_an_object_is_refused() {
    for bad in ["", "{", "[1]", "3", "\u{0}", &"[".repeat(100_000)] {
        let parsed = Config::parse(PathBuf::from("config.json"), bad.as_bytes());
        assert!(
            message(parsed).starts_with("cannot read config.json: "),
            "{bad:.20}"
        );
    }
}

#[test]
fn defaults_stand_in_for_absent_fields() {
    let empty = config("{}");
    assert!(empty.flag_or("x", true).unwrap());
    assert_eq!(empty.size_or("decoder_sparse_step", 1, 9).unwrap(), 1);
    assert_eq!(empty.text("hidden_act").unwrap(), None);
    assert!(empty.layers("mlp_only_layers").unwrap().is_empty());
}
