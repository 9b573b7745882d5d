//! Bad input ends with exit code 2 or 1 and one clear sentence.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use std::net::TcpListener;
use std::path::Path;

use common::files::{checkpoint_with, hidden_states, raw};
use common::{fails, golden, stdout, text};

/// `run` on the mixtral case with this input must end with 2 and these words.
#[track_caller]
fn bad_hidden_states(input: &Path, words: &[&str]) {
    let model = golden("mixtral");
    let output = input.with_extension("out");
    let args = [
        "run",
        "--model",
        text(&model),
        "--layer",
        "1",
        "--input",
        text(input),
        "--output",
        text(&output),
        "--workers",
        "1",
    ];
    let mut all = vec![text(input)];
    all.extend(words);
    fails(2, &args, &all);
    assert!(!output.exists());
}

/// `run` on this checkpoint must end with 2 and these words, and so must `launch`.
#[track_caller]
fn bad_model(model: &Path, layer: &str, words: &[&str]) {
    let input = golden("mixtral").join("input.safetensors");
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.safetensors");
    let model = ["--model", text(model), "--layer", layer];
    let files = ["--input", text(&input), "--output", text(&output)];
    fails(2, &[&["run"][..], &model, &files].concat(), words);
    fails(2, &[&["launch"][..], &model].concat(), words);
}

/// Rows that experts square past f32 are computed as asked, and told; so is how even the load was.
#[test]
fn outputs_beyond_f32_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("in.safetensors");
    let output = directory.path().join("out.safetensors");
    let layer = ["run", "--hidden", "16", "--ffn", "16", "--workers", "1"];
    let files = ["--input", text(&input), "--output", text(&output)];
    let told = |scale: f32| {
        let values: Vec<f32> = (0..32).map(|at| scale * (at as f32 - 15.5)).collect();
        hidden_states(&input, &[2, 16], &values);
        stdout(&[&layer[..], &files].concat())
    };
    let page = told(1e30);
    assert!(
        page.contains("not finite        32 of 32 output values"),
        "{page}"
    );
    assert!(page.lines().all(|line| line.len() < 120), "{page}");
    let page = told(0.1);
    assert!(page.contains("  balance           gini 0."), "{page}");
    assert!(!page.contains("not finite"), "{page}");
    let replay = [&layer[..], &files, &["--gate", "replay"]].concat();
    fails(2, &replay, &["--gate replay", "add --trace FILE"]);
    fails(
        2,
        &["simulate", "--gate", "replay"],
        &["--gate replay", "add --trace FILE"],
    );
}

#[test]
fn hidden_states_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("in.safetensors");
    bad_hidden_states(&input, &["cannot open"]);

    std::fs::write(&input, []).unwrap();
    bad_hidden_states(&input, &["is empty"]);

    std::fs::write(&input, (1_u64 << 60).to_le_bytes()).unwrap();
    bad_hidden_states(&input, &["header", "1152921504606846976"]);

    let header = r#"{"hidden_states":{"dtype":"F32","shape":[1,32],"data_offsets":[0,128]}}"#;
    raw(&input, header, &[0; 100]);
    bad_hidden_states(&input, &["bad safetensors header"]);

    let other = r#"{"hidden_state":{"dtype":"F32","shape":[1,32],"data_offsets":[0,128]}}"#;
    raw(&input, other, &[0; 128]);
    bad_hidden_states(&input, &["\"hidden_state\"", "hidden_states, padding_mask"]);

    raw(&input, &header.replace("F32", "I32"), &[0; 128]);
    bad_hidden_states(&input, &["is I32, expected F32 or BF16"]);

    raw(&input, &header.replace("[1,32]", "[32]"), &[0; 128]);
    bad_hidden_states(&input, &["has shape [32]", "[T, H] or [B, S, H]"]);

    raw(&input, &header.replace("[1,32]", "[2,16]"), &[0; 128]);
    bad_hidden_states(&input, &["has shape [2, 16]", "rows of 32"]);

    let mut rows = vec![0.5; 64];
    rows[40] = f32::NAN;
    hidden_states(&input, &[2, 32], &rows);
    bad_hidden_states(&input, &["holds NaN at token 1, element 8"]);

    let mask = r#"{"hidden_states":{"dtype":"F32","shape":[1,32],"data_offsets":[0,128]},
        "padding_mask":{"dtype":"U8","shape":[3],"data_offsets":[128,131]}}"#;
    raw(&input, mask, &[0; 131]);
    bad_hidden_states(
        &input,
        &["padding_mask", "[3]", "1 values, one for each token"],
    );
}

#[test]
fn checkpoints_that_cannot_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    bad_model(&at.join("nothing"), "1", &["cannot open", "nothing"]);
    bad_model(&golden("mixtral"), "7", &["layer 7 is not there"]);

    let unknown = checkpoint_with(at, "olmoe", "\"olmoe\"", "\"clippy\"");
    bad_model(&unknown, "1", &["clippy", "mixtral"]);

    let dense = checkpoint_with(
        at,
        "qwen2_moe",
        "\"mlp_only_layers\": []",
        "\"mlp_only_layers\": [1]",
    );
    bad_model(&dense, "1", &["layer 1 is not a mixture-of-experts layer"]);

    let model = golden("mixtral");
    let args = [
        "launch",
        "--model",
        text(&model),
        "--layer",
        "1",
        "--layers",
        "9",
    ];
    fails(2, &args, &["--layers", "from layer 1 on"]);

    let greedy = checkpoint_with(
        at,
        "qwen3_moe",
        "\"num_experts_per_tok\": 3",
        "\"num_experts_per_tok\": 9",
    );
    bad_model(&greedy, "1", &["num_experts_per_tok", "9"]);

    let wide = checkpoint_with(at, "mixtral", "\"hidden_size\": 32", "\"hidden_size\": 64");
    bad_model(&wide, "1", &["gate.weight", "[8, 32]", "64"]);
    let weights = wide.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    bad_model(&wide, "1", &["bad safetensors header", "model.safetensors"]);
    std::fs::write(&weights, (1_u64 << 60).to_le_bytes()).unwrap();
    bad_model(&wide, "1", &["1152921504606846976"]);
    std::fs::remove_file(&weights).unwrap();
    bad_model(&wide, "1", &["no weights in"]);
}

#[test]
fn shapes_and_policies_that_contradict_themselves() {
    for (flags, words) in [
        (&["--top-k", "9"][..], &["top_k is 9", "1 to 8"][..]),
        (&["--workers", "0"], &["'0'", "--workers", "at least 1"]),
        (
            &["--workers", "1000000"],
            &["--workers is 1000000, expected at most 1024"],
        ),
        (&["--experts", "0"], &["experts is 0"]),
        (&["--exchange", "ring"], &["ring", "star", "auto"]),
        (
            &["--profile", "p.json"],
            &["--profile is p.json", "--exchange auto"],
        ),
        (
            &["--exchange", "auto", "--profile", "nowhere.json"],
            &["nowhere.json"],
        ),
        (
            &["--exchange", "hierarchical"],
            &["hierarchical", "needs --group-size"],
        ),
        (
            &["--group-size", "2"],
            &["--group-size is 2", "all-to-all has no groups"],
        ),
        (&["--group-size", "0"], &["--group-size", "1"]),
        (&["--combine", "partial"], &["partial", "exact"]),
        (
            &["--overflow", "dropless", "--capacity-factor", "1.5"],
            &["--capacity-factor", "--overflow dropless", "drop-position"],
        ),
        (
            &["--overflow", "dropless", "--automatic-capacity"],
            &["--automatic-capacity", "--overflow dropless"],
        ),
        (
            &["--overflow", "drop"],
            &["--overflow is drop-position", "--capacity-factor 1.25"],
        ),
        (
            &["--bias-rate", "0.001", "--training"],
            &["--bias-rate", "gate topk", "sigmoid-bias"],
        ),
        (&["--capacity-factor", "-1"], &["-1"]),
        (
            &["--gate", "replay"],
            &["--gate replay", "add --trace FILE"],
        ),
        // Bounded before memory is taken for it.
        (
            &["--gate", "null:9007199254740992"],
            &["null:9007199254740992", "from 0 to 262144"],
        ),
        (
            &["--gate", "soft:200000", "--workload", "normal"],
            &["slots_per_expert: 200000", "at most 32768"],
        ),
        (
            &[
                "--gate",
                "soft",
                "--workload",
                "normal",
                "--capacity-factor",
                "1",
                "--overflow",
                "reroute",
            ],
            &["`overflow` holds reroute", "soft MoE"],
        ),
        (
            &["--min-capacity", "4294967296"],
            &["4294967296", "below 2^32"],
        ),
        (&["--deadline", "5"], &["30s"]),
        (&["--deadline", "0s"], &["0s"]),
        (
            &["--placement", "nowhere.toml"],
            &["cannot read nowhere.toml"],
        ),
        (&["--placement", "sideways"], &["sideways", "round-robin"]),
        (&["--steps", "0"], &["--steps is 0", "--stay"]),
        (
            &["--report", "/nowhere/report.json"],
            &["/nowhere/report.json", "directory"],
        ),
        (&["--workload", "zipf:x"], &["zipf:x", "balanced"]),
        (&["--model", "here"], &["--layer"]),
        (&["--hidden", "2000000"], &["hidden is 2000000"]),
        (&["--layers", "0"], &["'0'", "--layers", "at least 1"]),
        (
            &["--depth-capacity", "1.5"],
            &["1.5", "--depth-capacity", "at most 1"],
        ),
        (&["--depth-capacity", "0"], &["'0'", "0.125"]),
        (
            &["--layers", "2", "--exit", "luck:0.5"],
            &["luck:0.5", "--exit", "entropy"],
        ),
        (
            &["--layers", "2", "--exit", "gap:1.5"],
            &["gap:1.5", "--exit", "at most 1"],
        ),
        (
            &["--layers", "2", "--exit", "entropy:nan"],
            &["entropy:nan", "--exit", "above 0"],
        ),
        (&["--exit", "entropy:0.5"], &["--exit", "--layers 2"]),
        (&["--bogus"], &["--bogus"]),
    ] {
        fails(2, &[&["launch"], flags].concat(), words);
    }
    fails(
        2,
        &["run", "--input", "a", "--output", "b"],
        &["--model", "--coordinator"],
    );
    fails(2, &["run", "--output", "b"], &["--input"]);
    fails(2, &["inspect", "/nowhere"], &["/nowhere"]);
}

#[test]
fn a_placement_file_that_does_not_fit() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("placement.toml");
    std::fs::write(&file, "experts = [[0], [4]]\n").unwrap();
    let args = ["launch", "--experts", "2", "--placement", text(&file)];
    fails(2, &args, &["placement.toml", "experts[1][0]: worker 4"]);
    let args = ["launch", "--experts", "3", "--placement", text(&file)];
    fails(2, &args, &["2 entries, expected 3"]);
}

#[test]
fn addresses_where_nobody_or_somebody_else_listens() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let words = ["cannot listen on", &address, "the port is taken"];
    fails(2, &["worker", "--listen", &address], &words);
    fails(
        2,
        &[
            "coordinator",
            "--listen",
            &address,
            "--workers",
            "127.0.0.1:1",
        ],
        &words,
    );
    fails(2, &["launch", "--listen", &address], &words);

    // Nobody serves the port multiplexer of 1988, and no test is given its port.
    let address = "127.0.0.1:1";
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.safetensors");
    let input = golden("mixtral").join("input.safetensors");
    let args = [
        "run",
        "--coordinator",
        address,
        "--input",
        text(&input),
        "--output",
        text(&output),
    ];
    fails(2, &args, &["no one listens at", address]);
    let args = ["coordinator", "--workers", address];
    fails(2, &args, &["worker-0", "no one listens at", address]);
    fails(
        2,
        &["worker", "--listen", "nonsense"],
        &["nonsense", "host:port"],
    );
}

#[test]
fn flags_that_a_layer_with_rules_of_its_own_cannot_take() {
    for (case, layer, flags, words) in [
        (
            "nllb_moe",
            "0",
            &["--overflow", "drop"][..],
            &["--overflow", "capacity rule of its own"][..],
        ),
        (
            "nllb_moe",
            "0",
            &["--capacity-factor", "1"],
            &["--capacity-factor", "nllb-moe"],
        ),
        (
            "nllb_moe",
            "0",
            &["--automatic-capacity"],
            &["drop --automatic-capacity"],
        ),
        (
            "nllb_moe",
            "0",
            &["--depth-capacity", "0.5"],
            &["drop --depth-capacity", "every token"],
        ),
        (
            "switch_transformers",
            "1",
            &["--depth-capacity", "0.5"],
            &["--depth-capacity", "switch_transformers"],
        ),
    ] {
        let model = golden(case);
        let launch = ["launch", "--model", text(&model), "--layer", layer];
        fails(2, &[&launch[..], flags].concat(), words);
    }
}
