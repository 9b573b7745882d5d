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
fn doctor_finds_this_machine_fit() {
    let page = stdout(&["doctor"]);
    assert!(!page.contains("FAIL"), "{page}");
    assert_eq!(page.matches("gRPC round trip").count(), 4, "{page}");
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
