//! Help, and the commands that start no cluster.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use common::{expertmesh, golden, stdout, text};

#[test]
fn every_command_helps_with_an_example() {
    for command in [
        &["launch"][..],
        &["run"],
        &["worker"],
        &["coordinator"],
        &["bench", "dispatch"],
        &["bench", "overflow"],
        &["report"],
        &["inspect"],
        &["doctor"],
        &["completions"],
    ] {
        let help = stdout(&[command, &["--help"]].concat());
        assert!(help.contains("Example"), "{command:?}: {help}");
        let call = format!("expertmesh {}", command.join(" "));
        assert!(help.matches(&call).count() >= 2, "{command:?}: {help}");
        assert!(!help.contains("die-with-parent"), "{command:?}");
    }
    let help = stdout(&["--help"]);
    assert!(help.contains("Exit codes: 0 done"), "{help}");
}

#[test]
fn the_rules_of_gates_are_listed_one_a_line() {
    for command in ["launch", "run", "simulate"] {
        let page = stdout(&[command, "--gate", "help"]);
        let names: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("  "))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        for name in ["topk", "soft", "expert-choice", "moe++"] {
            assert!(names.contains(&name), "no {name} in {page}");
        }
        assert!(page.contains("(groups=8, kept groups=4)\n"), "{page}");
    }
}

#[test]
fn inspect_tells_what_is_there_and_what_each_worker_would_load() {
    let page = stdout(&["inspect", text(&golden("qwen2_moe")), "--workers", "3"]);
    for words in [
        "qwen2_moe",
        "8 a layer, top-3",
        "inner size 24, gated",
        "0 to 2",
        "6 to 7",
    ] {
        assert!(page.contains(words), "no {words:?} in {page}");
    }
    // The case holds one layer of two.
    assert!(page.contains("layer 0 cannot be used"), "{page}");
}

#[test]
fn inspect_without_workers_shows_the_powers_of_two() {
    let page = stdout(&["inspect", text(&golden("gpt_oss_mxfp4"))]);
    for words in [
        "workers",
        "experts each",
        "experts in",
        "MXFP4",
        "sigmoid(1.702 gate), limited to 7",
    ] {
        assert!(page.contains(words), "no {words:?} in {page}");
    }
    let table = page.split("would load").nth(1).unwrap();
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let counts: Vec<String> = table.lines().skip(3).filter_map(first).collect();
    assert_eq!(counts, ["1", "2", "4"], "{page}");

    let page = stdout(&["inspect", text(&golden("nllb_moe"))]);
    for words in [
        "second by logit",
        "an expert takes 0.25 of a batch's tokens",
        "output times 0.8",
        "layer 1 is model.decoder.layers.0.ffn",
    ] {
        assert!(page.contains(words), "no {words:?} in {page}");
    }
}

#[test]
fn doctor_finds_this_machine_fit() {
    let page = stdout(&["doctor"]);
    assert!(!page.contains("FAIL"), "{page}");
    assert_eq!(page.matches("gRPC round trip").count(), 5, "{page}");
    for check in ["cores", "descriptors", "shared clock", "matrix kernel"] {
        assert!(page.contains(check), "no {check:?} in {page}");
    }
}

#[test]
fn completions_know_the_commands_in_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&["completions", shell]);
        assert!(script.contains("coordinator"), "{shell}");
    }
}

#[test]
fn a_logging_filter_that_is_none_is_refused() {
    let output = expertmesh()
        .args(["doctor"])
        .env("EXPERTMESH_LOG", "expertmesh=loud")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("EXPERTMESH_LOG"), "{stderr}");
}
