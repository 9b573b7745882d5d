//! The examples of `examples/`, run as their users would. `own-expert` has a test of its own.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;
use serde_json::Value;

const EXPERTMESH: &str = env!("CARGO_BIN_EXE_expertmesh");

fn root() -> PathBuf {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR"));
    cli.ancestors().nth(2).unwrap().to_owned()
}

/// Runs a command in the root of the project, from where the examples are called.
fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program)
        .args(args)
        .current_dir(root())
        .env("EXPERTMESH", EXPERTMESH)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    output
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn launch_toml_gives_the_report_that_it_promises() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let config = ["launch", "--config", "examples/launch.toml"];
    run(
        EXPERTMESH,
        &[&config[..], &["--report", text(&file)]].concat(),
    );

    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let run = &report["runs"][0];
    assert_eq!(run["identity"]["workers"], 3);
    assert_eq!(run["identity"]["shape"]["experts"], 16);
    assert_eq!(run["load"]["steps"], 50);
    let count = |name: &str| run["overflow"][name].as_u64().unwrap();
    assert_eq!(count("assigned"), 50 * 64 * 4);
    // The comment in the file says that experts overflow.
    assert!(count("dropped") > 0);
    assert_eq!(count("assigned"), count("computed") + count("dropped"));
}

#[test]
fn a_flag_wins_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let config = ["launch", "--config", "examples/launch.toml"];
    let flags = ["--workers", "1", "--steps", "2", "--report", text(&file)];
    run(EXPERTMESH, &[&config[..], &flags].concat());
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(report["runs"][0]["identity"]["workers"], 1);
    assert_eq!(report["runs"][0]["load"]["steps"], 2);
}

#[test]
fn run_checkpoint_writes_outputs_and_routing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.safetensors");
    run("examples/run-checkpoint.sh", &[text(&file)]);

    let bytes = std::fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| tensors.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape("output"), [2, 12, 32]);
    assert_eq!(shape("router_logits"), [24, 8]);
    assert_eq!(shape("topk_index"), [24, 2]);
    // Dropless, on workers that live: every choice was computed.
    let fates = tensors.tensor("fate").unwrap();
    assert!(fates.data().iter().all(|fate| *fate == 0));
}

#[test]
fn bench_dispatch_measures_the_floor_of_both_exchanges() {
    let few = [
        "--tokens",
        "8",
        "--steps",
        "20",
        "--warmup",
        "2",
        "--restarts",
        "1",
    ];
    let output = run("examples/bench-dispatch.sh", &few);
    let printed = String::from_utf8(output.stdout).unwrap();
    for word in ["star", "all-to-all", "floor"] {
        assert!(printed.contains(word), "{word} is not in:\n{printed}");
    }
}
