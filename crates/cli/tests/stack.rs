//! `launch` over several layers: mixture-of-depths, early exit, and what the report says of them.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use common::{SMALL, golden, report, stdout, text};
use expertmesh_telemetry::Run;

/// The run of a `launch` with the small shape and `more`.
fn launched(more: &[&str]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let mut args = vec!["launch", "--report", text(&file), "--warmup", "1"];
    args.extend(SMALL);
    args.extend(more);
    stdout(&args);
    report(&file).runs.remove(0)
}

#[test]
fn tokens_that_skip_layers_or_leave_are_in_the_ledger() {
    let flags = [
        "--layers",
        "3",
        "--exit",
        "probability:0.9",
        "--depth-capacity",
        "0.5",
        "--workload",
        "normal",
    ];
    let mut digests = Vec::new();
    for more in [["1", "star"], ["3", "star"], ["2", "all-to-all"]] {
        let place = ["--workers", more[0], "--exchange", more[1]];
        let run = launched(&[&flags[..], &place].concat());
        let overflow = &run.overflow;
        overflow.check_conservation().unwrap();
        // Steps, layers, tokens, choices.
        assert_eq!(overflow.assigned, 6 * 3 * 24 * 2);
        // Half of the tokens go round every layer, and some leave.
        assert!(overflow.skipped > 6 * 3 * 12 * 2, "{}", overflow.skipped);
        assert!(overflow.computed > 0);
        assert_eq!(overflow.computed + overflow.skipped, overflow.assigned);
        assert_eq!(
            run.identity.model,
            "synthetic, 3 layers, depth 0.5, exit probability:0.9"
        );
        // Ledgers of all layers together are what the sockets carried.
        let wire = run.communication.wire_bytes.unwrap();
        assert!(wire > run.communication.payload_bytes);
        digests.push(run.digest.unwrap());
    }
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "{digests:?}"
    );
}

#[test]
fn a_stack_of_one_layer_is_the_layer_and_every_layer_has_its_own_weights() {
    let one = launched(&[]);
    assert_eq!(one.digest, launched(&["--layers", "1"]).digest);
    let two = launched(&["--layers", "2"]);
    assert_ne!(one.digest, two.digest);
    assert_eq!(two.overflow.assigned, 2 * one.overflow.assigned);
    assert_eq!(two.overflow.skipped, 0);
    assert!(two.communication.payload_bytes > one.communication.payload_bytes);
}

#[test]
fn a_checkpoint_has_its_own_layers() {
    let model = golden("mixtral");
    let flags = [
        "--steps",
        "2",
        "--tokens",
        "8",
        "--workers",
        "2",
        "--depth-capacity",
        "0.5",
    ];
    let file = tempfile::tempdir().unwrap();
    let file = file.path().join("report.json");
    let mut args = vec!["launch", "--model", text(&model), "--layer", "1"];
    args.extend(["--report", text(&file)]);
    args.extend(flags);
    stdout(&args);
    let run = report(&file).runs.remove(0);
    run.overflow.check_conservation().unwrap();
    assert_eq!(run.overflow.skipped * 2, run.overflow.assigned);
}
