//! `simulate` and `validate --published`: machines that are not there, from the command line.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use common::{SMALL, expertmesh, fails, report, stdout, text};
use expertmesh_telemetry::{Network, Source};

#[test]
fn a_simulation_and_a_launch_of_one_seed_have_one_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let (real, simulated) = (
        directory.path().join("l.json"),
        directory.path().join("s.json"),
    );
    for exchange in ["star", "all-to-all"] {
        let flags = [
            "--workers",
            "3",
            "--exchange",
            exchange,
            "--capacity-factor",
            "0.9",
        ];
        let with = |command: &str, file| {
            let head = [command, "--report", file];
            stdout(&[&head[..], &flags[..], &SMALL[..], &["--workload", "zipf:1"]].concat());
        };
        with("launch", text(&real));
        with("simulate", text(&simulated));
        let (one, other) = (report(&real), report(&simulated));
        assert_eq!(other.environment.network, Network::Simulated);
        let (one, other) = (&one.runs[0], &other.runs[0]);
        assert_eq!(
            one.communication.matrix_bytes,
            other.communication.matrix_bytes
        );
        assert_eq!(one.communication.messages, other.communication.messages);
        assert_eq!(
            one.overflow.per_expert, other.overflow.per_expert,
            "{exchange}"
        );
        assert!(one.overflow.dropped > 0);
        assert_eq!(other.source_of("latency_us.step"), Some(Source::Preset));
    }
}

#[test]
fn the_same_seed_gives_the_same_event_log_and_says_why_it_takes_so_long() {
    let directory = tempfile::tempdir().unwrap();
    let log = |name: &str| {
        let file = directory.path().join(name);
        let args = [
            "simulate",
            "--topology",
            "10gbe",
            "--workers",
            "4",
            "--workload",
            "hot:0.6",
        ];
        let page = stdout(&[&args[..], &SMALL[..], &["--event-log", text(&file)]].concat());
        for word in ["ends ", "critical path", "links twice as fast", "even load"] {
            assert!(page.contains(word), "no {word:?} in {page}");
        }
        std::fs::read(file).unwrap()
    };
    let one = log("one");
    assert!(one.len() > 1000);
    assert_eq!(one, log("other"));
}

#[test]
fn a_whole_model_and_a_sweep_are_simulated() {
    let model = [
        "simulate",
        "--topology",
        "h800",
        "--model",
        "olmoe",
        "--workers",
        "8",
    ];
    let page = stdout(
        &[
            &model[..],
            &["--tokens", "64", "--steps", "1", "--layers", "2"],
        ]
        .concat(),
    );
    assert!(
        page.contains("olmoe") && page.contains("2 layer-steps"),
        "{page}"
    );
    let sweep = [
        "--sweep",
        "exchange=star,all-to-all",
        "--sweep",
        "workers=2,3",
    ];
    let page = stdout(&[&["simulate"][..], &SMALL[..], &sweep[..]].concat());
    assert!(page.contains("sweep: 4 simulations"), "{page}");
    assert!(page.contains("exchange all-to-all, workers 3"), "{page}");
}

#[test]
fn what_cannot_be_simulated_is_said_in_a_sentence() {
    let cases: [(&[&str], &[&str]); 7] = [
        (&["--topology", "h900"], &["h900", "h800"]),
        (&["--model", "gpt-9"], &["gpt-9", "deepseek-v3"]),
        (&["--costs", "free"], &["--costs", "free", "loopback"]),
        (&["--sweep", "workers"], &["--sweep", "workers", "FLAG=A,B"]),
        (&["--sweep", "report=a"], &["--sweep", "report"]),
        (&["--fault", "sleeps:1:2"], &["slow-compute"]),
        (&["--stage", "decode"], &["--stage", "--model"]),
    ];
    for (args, words) in cases {
        fails(2, &[&["simulate"], args].concat(), words);
    }
}

#[test]
fn figures_of_others_are_met_but_for_the_stated_miss() {
    let output = expertmesh()
        .args(["validate", "--published"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let page = String::from_utf8(output.stdout).unwrap();
    let missed: Vec<&str> = page
        .lines()
        .filter(|line| line.contains("MISSED"))
        .collect();
    assert!(!missed.is_empty());
    assert!(
        missed.iter().all(|line| line.contains("EP32 combine")),
        "{missed:?}"
    );
    fails(
        2,
        &["validate", "--published", "--table", "none.csv"],
        &["none.csv"],
    );
}
