//! `launch`: the report, the digest, the configuration file.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use std::path::Path;

use common::{SMALL, expertmesh, fails, report, stdout, text};

/// Runs `launch` with the small shape and `more`, and gives its report.
fn launched(more: &[&str]) -> (String, expertmesh_telemetry::Report) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let mut args = vec!["launch", "--report", text(&file)];
    args.extend(SMALL);
    args.extend(more);
    let page = stdout(&args);
    (page, report(&file))
}

#[test]
fn a_launch_prints_the_report_that_it_writes() {
    let (page, report) = launched(&["--workload", "zipf:1.0", "--seed", "7"]);
    assert!(
        page.lines().all(|line| line.chars().count() <= 100),
        "{page}"
    );
    let run = &report.runs[0];
    assert_eq!(run.identity.workers, 4);
    assert_eq!(run.identity.endpoints.len(), 5);
    assert_eq!(run.identity.workload, "zipf:1");
    assert_eq!(run.identity.numerics, "fma-chain/2 f32");
    assert_eq!((run.load.steps, run.load.warmup_steps), (6, 10));
    assert_eq!(run.overflow.assigned, 6 * 24 * 2);
    run.overflow.check_conservation().unwrap();
    let digest = run.digest.as_deref().unwrap();
    assert!(page.contains(digest), "{page}");
    assert!(page.contains("measured: max/mean"), "{page}");
    assert!(page.contains("claimed"), "{page}");
    // No other client was served, so the sockets carried the run's messages and their framing.
    let communication = &run.communication;
    assert!(communication.wire_bytes.unwrap() > communication.payload_bytes);
    let phases = run.latency_us.phases.values();
    assert!(phases.clone().any(|phase| phase.mean > 0.0));
}

#[test]
fn the_digest_is_the_same_for_any_workers_exchange_placement_and_threads() {
    let digest = |more: &[&str]| launched(more).1.runs[0].digest.clone().unwrap();
    let expected = digest(&["--workers", "1", "--exchange", "star"]);
    for workers in ["1", "2", "3", "4", "5"] {
        for exchange in ["star", "all-to-all"] {
            let got = digest(&["--workers", workers, "--exchange", exchange]);
            assert_eq!(got, expected, "{workers} workers, {exchange}");
        }
    }
    for size in ["1", "2", "3"] {
        let got = digest(&["--exchange", "hierarchical", "--group-size", size]);
        assert_eq!(got, expected, "4 workers in groups of {size}");
    }
    for placement in ["round-robin", "shuffled"] {
        let got = digest(&["--workers", "3", "--placement", placement, "--threads", "2"]);
        assert_eq!(got, expected, "{placement}");
    }
    assert_eq!(
        digest(&["--warmup", "0", "--chunk-bytes", "900"]),
        expected,
        "chunks"
    );
    assert_ne!(digest(&["--seed", "1"]), expected, "another seed");
    assert_ne!(digest(&["--dtype", "bf16"]), expected, "another format");
}

#[test]
fn overflow_policies_drop_what_they_say() {
    let dropped = |more: &[&str]| {
        let mut args = vec!["--workload", "hot:0.9", "--workers", "2"];
        args.extend(more);
        let (_, report) = launched(&args);
        let overflow = report.runs[0].overflow.clone();
        overflow.check_conservation().unwrap();
        (overflow.dropped, overflow.lost_gate_weight)
    };
    assert_eq!(dropped(&[]), (0, 0.0));
    let by_position = dropped(&["--capacity-factor", "1"]);
    let named = dropped(&["--capacity-factor", "1", "--overflow", "drop"]);
    let by_weight = dropped(&["--capacity-factor", "1", "--overflow", "drop-weight"]);
    assert!(by_position.0 > 0);
    assert_eq!(by_position, named);
    assert_eq!(by_position.0, by_weight.0, "as many, but lighter ones");
    assert!(by_weight.1 <= by_position.1);
}

#[test]
fn every_kind_of_layer_and_load_runs() {
    let directory = tempfile::tempdir().unwrap();
    let table = directory.path().join("placement.toml");
    std::fs::write(&table, "experts = [[1], [1], [0], [0]]\n").unwrap();
    for more in [
        &["--expert", "mlp", "--workload", "normal"][..],
        &["--expert", "identity", "--tokens", "1", "--workers", "9"],
        &[
            "--experts",
            "4",
            "--top-k",
            "4",
            "--workers",
            "2",
            "--placement",
            text(&table),
        ],
        &["--wire-dtype", "bf16", "--workers", "2"],
        &["--dtype", "bf16", "--exchange", "star"],
    ] {
        let (page, report) = launched(more);
        let run = &report.runs[0];
        assert!(run.digest.is_some(), "{page}");
        run.overflow.check_conservation().unwrap();
    }
}

#[test]
fn the_example_configuration_runs_and_flags_override_it() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cluster/local.toml");
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("report.json");
    let mut args = vec!["launch", "--config", text(&file), "--report", text(&out)];
    args.extend(SMALL);
    args.extend(["--workers", "2", "--overflow", "drop-position"]);
    stdout(&args);
    let run = &report(&out).runs[0];
    // Of the file, where no flag says otherwise.
    assert_eq!(run.identity.seed, 7);
    assert_eq!(run.identity.workload, "zipf:1");
    assert_eq!(run.overflow.capacity_factor, Some(1.25));
    // Of the flags.
    assert_eq!(run.identity.workers, 2);
    assert_eq!(run.identity.shape.as_ref().unwrap().hidden, 48);
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_by_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cluster.toml");
    let args = ["launch", "--config", text(&file)];
    fails(2, &args, &["cannot read", "cluster.toml"]);
    for (content, words) in [
        (
            "expertz = 8\n",
            &["unknown key `expertz`", "expected one of"][..],
        ),
        (
            "experts = \"many\"\n",
            &["`experts` holds \"many\"", "a whole number"],
        ),
        (
            "exchange = \"ring\"\n",
            &["`exchange` holds \"ring\"", "star"],
        ),
        ("stay = 3\n", &["`stay` holds 3", "true or false"]),
        ("workers = 0\n", &["`workers` holds 0", "at least 1"]),
        (
            "workers = [1]\n",
            &["`workers` holds [1]", "a string or a number"],
        ),
        ("experts = 8\nworkers 4\n", &["line 2"]),
        ("config = \"other.toml\"\n", &["unknown key `config`"]),
    ] {
        std::fs::write(&file, content).unwrap();
        let mut expected = vec!["cluster.toml"];
        expected.extend(words);
        fails(2, &args, &expected);
    }
}

#[test]
fn a_checkpoint_layer_is_driven_with_rows_of_its_own_or_from_a_file() {
    let model = common::golden("mixtral");
    let input = model.join("input.safetensors");
    let layer = [
        "launch",
        "--model",
        text(&model),
        "--layer",
        "1",
        "--steps",
        "3",
    ];
    let page = stdout(&layer);
    assert!(page.contains("mixtral layer 1"), "{page}");
    assert!(page.contains("normal"), "{page}");
    let mut args = layer.to_vec();
    args.extend(["--input", text(&input), "--workers", "3"]);
    let page = stdout(&args);
    assert!(page.contains("24 tokens a step"), "{page}");
    args.extend(["--workload", "zipf"]);
    fails(2, &args, &["--input", "--workload"]);
    let mut args = layer.to_vec();
    args.extend(["--workload", "zipf"]);
    fails(2, &args, &["workload zipf:1", "normal"]);
}

#[test]
fn nothing_is_printed_but_the_report() {
    let mut args = vec!["launch"];
    args.extend(SMALL);
    let output = expertmesh().args(&args).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
