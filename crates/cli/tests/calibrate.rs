//! `calibrate`, `validate` and `simulate --profile`, one after the other as a user has them.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use std::path::Path;

use common::{expertmesh, fails, report, stdout, text};
use expertmesh_telemetry::Source;
use serde_json::Value;

/// A domain that is measured in seconds, and fitted in as many: the more choices a step has, the fewer
/// steps a fit simulates.
const TINY: [&str; 10] = [
    "--points",
    "4",
    "--workers",
    "2,2",
    "--tokens",
    "8,64",
    "--shape",
    "16,8,64,96",
    "--seconds",
    "0.01",
];

fn json(file: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Source of the step that `simulate` gives this layer.
fn source(profile: &Path, tokens: &str, workers: &str, more: &[&str]) -> (Source, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let head = ["simulate", "--profile", text(profile), "--tokens", tokens];
    let layer = ["--experts", "16", "--top-k", "8", "--hidden", "64"];
    let rest = ["--ffn", "96", "--workers", workers, "--steps", "3"];
    let page = stdout(&[&head[..], &layer, &rest, &["--report", text(&file)], more].concat());
    let run = &report(&file).runs[0];
    (run.source_of("latency_us.step").unwrap(), page)
}

#[test]
fn a_profile_is_made_validated_and_believed_as_far_as_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profile.json");
    let page = stdout(&[&["calibrate", "--profile", text(&file)][..], &TINY].concat());
    for words in [
        "calibrate: 4 points",
        "2 workers, 8 to 64 tokens, 16x64x96 top-8, star and all-to-all on loopback",
        "phases.experts",
    ] {
        assert!(page.contains(words), "no {words:?} in {page}");
    }
    let profile = json(&file);
    assert_eq!(profile["domain"]["workers"], serde_json::json!([2, 2]));
    assert_eq!(profile["domain"]["tokens"], serde_json::json!([8, 64]));
    assert_eq!(profile["points"].as_array().unwrap().len(), 4);
    assert_eq!(profile["experts"].as_array().unwrap().len(), 1);
    assert_eq!(profile["verdict"], Value::Null);
    let (before, page) = source(&file, "20", "2", &[]);
    assert_eq!(before, Source::Extrapolated);
    assert!(page.contains("never validated"), "{page}");

    let flags = "--holdout-seed 1,2 --points 2 --restarts 2 --seconds 0.01 --links none --json";
    let flags: Vec<&str> = flags.split(' ').collect();
    let output = expertmesh()
        .args([&["validate", "--profile", text(&file)][..], &flags].concat())
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let seeds = said["seeds"].as_array().unwrap();
    assert_eq!(seeds.len(), 2);
    for (seed, number) in seeds.iter().zip(1..) {
        assert_eq!(seed["holdout_seed"], number);
        let points = seed["points"].as_array().unwrap();
        assert_eq!(points.len(), 2);
        for point in points {
            assert_eq!(point["ledger_difference"], Value::Null, "{point}");
            assert_eq!(point["measured_us"].as_array().unwrap().len(), 2);
        }
        assert_eq!(seed["errors"]["figures"][0][0], "step");
    }
    // Whichever way it falls: timing is the machine's business.
    let verdict = &json(&file)["verdict"];
    assert_eq!(verdict, &said["verdict"]);
    assert_eq!(verdict["holdout_seeds"], serde_json::json!([1, 2]));
    assert_eq!(verdict["error"]["points"], 4);
    let passed = verdict["passed"].as_bool().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let code = if passed { 0 } else { 3 };
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.contains("holdout seed"), !passed, "{stderr}");

    let of = |passed| match passed {
        true => Source::Calibrated,
        false => Source::Extrapolated,
    };
    // Four points are too few to pass.
    assert_eq!(source(&file, "20", "2", &[]).0, Source::Extrapolated);
    // The same, had the machine been noisier, and quieter, at more points.
    for passed in [false, true] {
        let mut profile = json(&file);
        profile["verdict"]["passed"] = passed.into();
        profile["verdict"]["error"]["points"] = 12.into();
        std::fs::write(&file, profile.to_string()).unwrap();
        let (inside, page) = source(&file, "64", "2", &[]);
        assert_eq!(inside, of(passed));
        assert_eq!(page.contains("failed its validation"), !passed, "{page}");
    }
    let outside: [(&str, &str, &[&str]); 6] = [
        ("65", "2", &[]),
        ("20", "3", &[]),
        ("20", "2", &["--experts", "8"]),
        ("20", "2", &["--dtype", "bf16"]),
        ("20", "2", &["--exchange", "hierarchical"]),
        ("20", "2", &["--topology", "lab"]),
    ];
    for (tokens, workers, more) in outside {
        let (outside, page) = source(&file, tokens, workers, more);
        assert_eq!(outside, Source::Extrapolated, "{more:?}: {page}");
    }
}

#[test]
fn domains_that_no_machine_has_are_refused_in_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profile.json");
    let cases: [(&[&str], &[&str]); 13] = [
        (&["--workers", "4,2"], &["--workers", "4,2", "LOW,HIGH"]),
        (&["--workers", "0,2"], &["--workers", "at least 1"]),
        (&["--workers", "2"], &["--workers", "LOW,HIGH"]),
        (
            &["--workers", "2,1000"],
            &["--workers", "1000", "at most 64"],
        ),
        (&["--tokens", "0,16"], &["--tokens", "at least 1"]),
        (
            &["--tokens", "1,99999999"],
            &["--tokens", "99999999", "8,2,1024,2816"],
        ),
        (&["--shape", "4,5,64,64"], &["--shape", "K is 5", "1 to 4"]),
        (&["--shape", "4,0,64,64"], &["--shape", "at least 1"]),
        (&["--shape", "4,2,64"], &["--shape", "E,K,H,F"]),
        (
            &["--shape", "100000,2,8192,8192"],
            &["--shape", "100000,2,8192,8192", "weights", "at most"],
        ),
        (&["--points", "1"], &["--points", "at least 4"]),
        (&["--seconds", "0"], &["--seconds", "above 0"]),
        (
            &["--refit", "p.json", "--workers", "2,4"],
            &["--refit", "--workers"],
        ),
    ];
    for (args, words) in cases {
        fails(
            2,
            &[&["calibrate", "--profile", text(&file)], args].concat(),
            words,
        );
    }
    assert!(!file.exists());
}
