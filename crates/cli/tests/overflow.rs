//! `bench overflow`: every policy on the same batches, as a table, a report and a picture.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use common::files::hidden_states;
use common::{fails, report, stdout, text};
use expertmesh_routing::Overflow;
use expertmesh_telemetry::Run;

const FEW: [&str; 8] = [
    "--workers",
    "2",
    "--threads",
    "1",
    "--steps",
    "4",
    "--warmup",
    "1",
];
/// Policies that change when and where a choice is computed, and nothing else.
const EXACT: [&str; 2] = ["spill", "grow-and-replay"];

fn policy(run: &Run) -> &str {
    run.overflow.policy.as_deref().unwrap()
}

fn of<'a>(runs: &'a [Run], name: &str, factor: f64) -> &'a Run {
    let wanted = |run: &&Run| policy(run) == name && run.overflow.capacity_factor == Some(factor);
    runs.iter().find(wanted).unwrap()
}

/// What holds for any runs of the bench.
fn check(runs: &[Run], factors: &[f64]) {
    assert_eq!(runs.len(), 1 + 9 * factors.len());
    let dropless = &runs[0];
    assert_eq!(policy(dropless), "dropless");
    let totals = &dropless.overflow;
    assert_eq!((totals.dropped, totals.rerouted, totals.lost), (0, 0, 0));
    for run in runs {
        let (overflow, name) = (&run.overflow, policy(run));
        overflow.check_conservation().unwrap();
        assert_eq!(overflow.assigned, totals.assigned, "{name}");
        assert_eq!(run.identity, dropless.identity, "{name}");
        assert_eq!(run.load.steps, 4, "{name}");
        let (same, error) = (run.digest == dropless.digest, run.losses["output_error"]);
        assert_eq!(same, error == 0.0, "{name}: {error}");
        if EXACT.contains(&name) {
            assert!(same && overflow.dropped == 0, "{name}");
        }
    }
    for factor in factors {
        assert_eq!(
            of(runs, "grow-and-replay", *factor).overflow.events.waves,
            1
        );
        let missed = of(runs, "drop-position", *factor).overflow.dropped;
        assert!(missed > 0);
        assert_eq!(of(runs, "spill", *factor).overflow.events.spilled, missed);
        for name in [
            "drop-weight",
            "drop-random",
            "drop-prioritised",
            "drop-position+renormalise",
        ] {
            assert_eq!(of(runs, name, *factor).overflow.dropped, missed, "{name}");
        }
        assert!(of(runs, "reroute", *factor).overflow.rerouted > 0);
        let weight = |name| of(runs, name, *factor).overflow.lost_gate_weight;
        assert!(weight("drop-weight") <= weight("drop-position"));
    }
}

/// Elements that open and close in pairs, and one root.
fn check_xml(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut roots = 0;
    for part in svg.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap();
        let name = tag.trim_start_matches('/').split(' ').next().unwrap();
        match tag {
            _ if tag.starts_with('?') => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "{part}"),
            _ => {
                roots += usize::from(open.is_empty());
                open.extend((!tag.ends_with('/')).then_some(name));
            }
        }
    }
    assert!(open.is_empty() && roots == 1, "{open:?}, {roots} roots");
}

#[test]
fn every_policy_is_in_the_table_the_report_and_the_picture() {
    let directory = tempfile::tempdir().unwrap();
    let (json, svg) = (
        directory.path().join("overflow.json"),
        directory.path().join("overflow.svg"),
    );
    let shape = [
        "--hidden",
        "48",
        "--ffn",
        "32",
        "--tokens",
        "24",
        "--workload",
        "hot:0.8",
    ];
    let files = ["--report", text(&json), "--svg", text(&svg)];
    let factors = ["--factors", "1,1.25"];
    let args = [&["bench", "overflow"][..], &FEW, &shape, &factors, &files].concat();
    let page = stdout(&args);
    for policy in Overflow::ALL {
        let policy = policy.to_string();
        let named = |line: &&str| line.split_whitespace().next() == Some(&*policy);
        let expected = if policy == "dropless" { 2 } else { 4 };
        assert_eq!(
            page.lines().filter(named).count(),
            expected,
            "{policy} in\n{page}"
        );
    }
    assert!(page.contains("second replica"), "{page}");
    assert!(
        page.lines().all(|line| line.chars().count() <= 100),
        "{page}"
    );

    let report = report(&json);
    check(&report.runs, &[1.0, 1.25]);
    assert_eq!(report.runs[0].identity.workload, "hot:0.8");
    // The other replica has room for as much again.
    let replica = &of(&report.runs, "reroute-to-replica", 1.25);
    assert!(replica.overflow.rerouted > 0);
    if replica.overflow.dropped == 0 {
        assert_eq!(replica.digest, report.runs[0].digest);
    }

    let svg = std::fs::read_to_string(&svg).unwrap();
    check_xml(&svg);
    for policy in Overflow::ALL {
        assert!(svg.contains(&format!(">{policy}")), "{policy}");
    }
}

#[test]
fn a_trace_is_repeated_choice_by_choice() {
    let directory = tempfile::tempdir().unwrap();
    let (trace, json) = (
        directory.path().join("routes.csv"),
        directory.path().join("overflow.json"),
    );
    // Two steps of two layers; layer 1 sends every token to expert 0 first.
    let mut rows = String::from("step,layer,token,slot,expert,weight\n");
    for step in 0..2 {
        for token in 0..8 {
            for (layer, first) in [(0, token % 4), (1, 0)] {
                let second = (first + 1 + token % 3) % 4;
                rows += &format!("{step},{layer},{token},0,{first},0.75\n");
                rows += &format!("{step},{layer},{token},1,{second},0.25\n");
            }
        }
    }
    std::fs::write(&trace, rows).unwrap();
    let from = [
        "--trace",
        text(&trace),
        "--trace-layer",
        "1",
        "--factors",
        "1",
    ];
    let layer = [
        "--hidden",
        "16",
        "--expert",
        "identity",
        "--exchange",
        "star",
    ];
    let file = ["--report", text(&json)];
    let args = [&["bench", "overflow"][..], &FEW, &from, &layer, &file].concat();
    let page = stdout(&args);
    assert!(page.contains("2 of the 2 steps"), "{page}");
    let report = report(&json);
    check(&report.runs, &[1.0]);
    // Four rounds of eight tokens, two choices each; 4 of 8 may go to expert 0.
    let dropless = &report.runs[0].overflow;
    assert_eq!(
        (dropless.assigned, dropless.per_expert[0].assigned),
        (64, 32)
    );
    assert_eq!(dropless.assigned_gate_weight, 32.0);
    let dropped = &of(&report.runs, "drop-position", 1.0).overflow;
    assert_eq!((dropped.dropped, dropped.lost_gate_weight), (16, 12.0));
    // Identity experts: a token without its first choice keeps a quarter of itself.
    let worst = of(&report.runs, "drop-position", 1.0).losses["output_error_worst_token"];
    assert!((worst - 0.75).abs() < 1e-5, "{worst}");
    // Divided by their sum the weights that are left are whole again.
    let whole = of(&report.runs, "drop-position+renormalise", 1.0);
    assert!(whole.losses["output_error"] < 1e-6);
    // Both replicas of expert 0 together have room for all eight.
    let replica = of(&report.runs, "reroute-to-replica", 1.0);
    assert_eq!(replica.overflow.rerouted, 16);
    assert_eq!(replica.digest, report.runs[0].digest);
}

#[test]
fn wrong_input_names_the_flag() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (trace, input) = (at("routes.csv"), at("in.safetensors"));
    std::fs::write(
        &trace,
        "step,layer,token,slot,expert\n0,0,0,0,1\n0,0,0,1,2\n0,0,1,0,1\n0,0,1,1,-1\n",
    )
    .unwrap();
    hidden_states(&input, &[2, 8], &[0.5; 16]);
    let missing = at("none").join("overflow.svg");
    let bad = |flags: &[&str], words: &[&str]| {
        fails(2, &[&["bench", "overflow"][..], flags].concat(), words);
    };
    bad(&["--factors", "1,0"], &["--factors holds 0", "above 0"]);
    bad(&["--factors", "-1"], &["--factors holds -1"]);
    bad(
        &["--factors", "much"],
        &["--factors", "expected a finite number"],
    );
    bad(
        &["--factors", "1,"],
        &["--factors", "expected a finite number"],
    );
    let both = ["--factors", "1", "--capacity-factor", "2"];
    bad(&both, &["--factors", "--capacity-factor"]);
    bad(&["--overflow", "spill"], &["--overflow is spill"]);
    bad(
        &["--eval-capacity-factor", "1"],
        &["--eval-capacity-factor"],
    );
    bad(&["--on-loss", "drop"], &["--on-loss"]);
    bad(&["--steps", "0"], &["--steps is 0"]);
    bad(&["--svg", text(&missing)], &["overflow.svg"]);
    bad(&["--input", text(&input)], &["[2, 8]", "rows of 1024"]);
    bad(&["--trace-layer", "1"], &["--trace"]);
    bad(&["--trace", "none.csv"], &["--trace", "none.csv"]);
    let trace = ["--trace", text(&trace)];
    bad(
        &[&trace[..], &["--tokens", "8"]].concat(),
        &["--trace", "--tokens"],
    );
    bad(
        &[&trace[..], &["--top-k", "1"]].concat(),
        &["--top-k is 1", "2"],
    );
    bad(
        &[&trace[..], &["--trace-layer", "3"]].concat(),
        &["--trace-layer is 3"],
    );
}

#[test]
fn a_ragged_trace_is_measured_too() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("routes.csv");
    // The second token has one choice.
    let routes = "step,layer,token,slot,expert\n0,0,0,0,1\n0,0,0,1,2\n0,0,1,0,1\n0,0,1,1,-1\n";
    std::fs::write(&trace, routes).unwrap();
    let shape = ["--hidden", "48", "--ffn", "32", "--trace", text(&trace)];
    let page = stdout(&[&["bench", "overflow"][..], &FEW, &shape].concat());
    assert!(
        page.contains("(of the same 12 under each policy)"),
        "{page}"
    );
}
