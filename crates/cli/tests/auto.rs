//! `--exchange auto`, from the command line.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use std::path::{Path, PathBuf};

use common::files::hidden_states;
use common::{SMALL, expertmesh, fails, report, stdout, text};
use expertmesh_bench::calibrate::{Domain, Profile};
use expertmesh_bench::validate::FigureErrors;
use expertmesh_simulator::Costs;
use expertmesh_telemetry::{Environment, ExchangeKind, Network, Run};

/// A profile of a machine of 8 cores where only the size of messages counts, or only their number.
fn profile(directory: &Path, name: &str, byte_ns: f64, message_ns: f64) -> PathBuf {
    let mut costs = Costs::loopback();
    costs.name = name.to_owned();
    for line in [&mut costs.pack, &mut costs.read] {
        (line.unit_ns, line.fixed_ns) = (byte_ns, message_ns);
    }
    let profile = Profile {
        schema: Profile::SCHEMA.to_owned(),
        environment: Environment {
            version: String::new(),
            cores: 8,
            kernel: String::new(),
            network: Network::Loopback,
            topology: None,
            os: None,
            cpu: None,
        },
        seed: 0,
        domain: Domain::default(),
        costs,
        error: FigureErrors {
            points: 1,
            median: 0.05,
            p90: 0.1,
            max: 0.1,
            bias: 0.0,
        },
        experts: Vec::new(),
        points: Vec::new(),
        loopback: [15_000.0, 1.5],
        verdict: None,
    };
    let file = directory.join(format!("{name}.json"));
    std::fs::write(&file, profile.to_json().unwrap()).unwrap();
    file
}

/// The two profiles, with the exchange that each favours.
fn profiles(directory: &Path) -> [(PathBuf, ExchangeKind); 2] {
    [
        (
            profile(directory, "bytes", 1000.0, 0.0),
            ExchangeKind::AllToAll,
        ),
        (
            profile(directory, "messages", 0.0, 200_000.0),
            ExchangeKind::Star,
        ),
    ]
}

/// Runs a command with `--exchange auto` and gives its runs and what it said on stderr.
fn run(args: &[&str], file: &Path) -> (Vec<Run>, String) {
    let all = [args, &["--exchange", "auto", "--report", text(file)]].concat();
    let output = expertmesh().args(&all).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{all:?}: {said}");
    (report(file).runs, said)
}

/// The exchange of a run is the least of what was predicted.
fn is_the_least(run: &Run) {
    let choice = run.exchange_choice.as_ref().unwrap();
    let least = choice
        .predicted_us
        .values()
        .copied()
        .fold(f64::MAX, f64::min);
    let name = run.identity.exchange.to_string();
    assert_eq!(choice.predicted_us[&name], least, "{choice:?}");
}

#[test]
fn a_launch_takes_the_exchange_that_a_simulation_takes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let mut digests = Vec::new();
    for (profile, expected) in profiles(directory.path()) {
        let flags = [&SMALL[..], &["--profile", text(&profile)]].concat();
        let (launched, said) = run(&[&["launch"], &flags[..]].concat(), &file);
        let (simulated, also_said) = run(&[&["simulate"], &flags[..]].concat(), &file);
        assert_eq!(said, also_said);
        assert!(
            said.contains(&format!("exchange auto: {expected}")),
            "{said}"
        );
        assert!(said.contains("error band of ±10 %"), "{said}");
        let (launched, simulated) = (&launched[0], &simulated[0]);
        assert_eq!(launched.identity.exchange, expected);
        assert_eq!(simulated.identity.exchange, expected);
        assert_eq!(launched.exchange_choice, simulated.exchange_choice);
        is_the_least(launched);
        digests.push(launched.digest.clone().unwrap());
    }
    assert_eq!(digests[0], digests[1]);
    // A gate that hashes tokens needs them, however many there are.
    let many = "simulate --gate hash --tokens 70000 --hidden 64 --expert identity --steps 1";
    let many: Vec<&str> = many.split(' ').collect();
    is_the_least(&run(&many, &file).0[0]);
    // Without a profile: which one it is depends on the cores here, that it is the least does not.
    let (launched, said) = run(&[&["launch"], &SMALL[..]].concat(), &file);
    is_the_least(&launched[0]);
    assert!(said.contains("costs are presets"), "{said}");
}

#[test]
fn benches_and_runs_choose_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let input = directory.path().join("in.safetensors");
    let output = directory.path().join("out.safetensors");
    hidden_states(&input, &[24, 48], &[0.5; 24 * 48]);
    let [(bytes, sharded), (messages, star)] = profiles(directory.path());
    let bench = "bench dispatch --tokens 16,32 --steps 3 --warmup 1 --restarts 1 --hidden 48";
    let bench: Vec<&str> = bench.split(' ').collect();
    let (runs, said) = run(&[&bench[..], &["--profile", text(&bytes)]].concat(), &file);
    assert_eq!(said.lines().count(), 2, "one choice for both: {said}");
    assert_eq!(runs.len(), 2);
    for run in &runs {
        assert_eq!(run.identity.exchange, sharded);
        is_the_least(run);
    }
    let files = ["--input", text(&input), "--output", text(&output)];
    let profile = ["--hidden", "48", "--profile", text(&messages)];
    let (runs, _) = run(&[&["run"], &files[..], &profile[..]].concat(), &file);
    assert_eq!(runs[0].identity.exchange, star);
    is_the_least(&runs[0]);
}

#[test]
fn a_sweep_of_other_flags_names_what_was_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let [(bytes, _), _] = profiles(directory.path());
    let flags = ["--exchange", "auto", "--profile", text(&bytes)];
    let sweep = ["--sweep", "workers=4,5"];
    let page = stdout(&[&["simulate"], &SMALL[..], &flags[..], &sweep[..]].concat());
    assert!(page.contains("workers 5 (all-to-all)"), "{page}");
}

#[test]
fn where_nothing_can_be_chosen_it_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("in.safetensors");
    hidden_states(&file, &[1, 48], &[0.5; 48]);
    let cases: [(&[&str], &[&str]); 6] = [
        (
            &["coordinator", "--workers", "127.0.0.1:1"],
            &["--exchange is auto", "expected star", "launch, run, bench"],
        ),
        (
            &["bench", "overflow"],
            &["--exchange is auto", "expected star"],
        ),
        (
            &["simulate", "--sweep", "exchange=star,all-to-all"],
            &["--exchange is auto", "--sweep exchange", "drop one"],
        ),
        (
            &["launch", "--group-size", "0"],
            &["--group-size", "at least 1"],
        ),
        (
            &[
                "launch",
                "--steps",
                "0",
                "--stay",
                "--force-routes",
                "replay",
            ],
            &["--exchange auto can predict no exchange"],
        ),
        (
            &[
                "run",
                "--output",
                "out",
                "--coordinator",
                "127.0.0.1:1",
                "--input",
                text(&file),
            ],
            &["--exchange auto", "cluster of this run's own"],
        ),
    ];
    for (args, words) in cases {
        fails(2, &[args, &["--exchange", "auto"]].concat(), words);
    }
    let sweep = ["simulate", "--sweep", "exchange=auto,star"];
    fails(2, &sweep, &["--sweep exchange holds auto"]);
    fails(
        2,
        &["simulate", "--exchange", "auto", "--top-k", "9"],
        &["top_k is 9"],
    );
}
