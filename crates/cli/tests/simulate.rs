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
    let cases: [(&[&str], &[&str]); 19] = [
        (
            &["--profile", "p", "--sweep", "costs=h100,loopback,nonsense"],
            &["costs h100: --costs and --profile", "drop one"],
        ),
        (
            &["--sweep", "workers=2,3", "--what-if"],
            &["--what-if", "--sweep"],
        ),
        (
            &["--model", "olmoe", "--stage", "prefill", "--context", "99"],
            &["--context", "prefill"],
        ),
        (
            &["--overlap", "100", "--steps", "3"],
            &["--overlap is 100", "--steps is 3"],
        ),
        (
            &["--threads", "3", "--costs", "h100"],
            &["--threads is 3", "h100"],
        ),
        (
            &["--sweep", "tokens=1,2", "--input", "x.safetensors"],
            &["tokens 1: --tokens", "--input"],
        ),
        (
            &["--layers", "3000000"],
            &["--layers is 3000000", "at most"],
        ),
        (
            &["--model", "olmoe", "--context", "99999999999"],
            &["--context is 99999999999", "at most"],
        ),
        (
            &["--tokens", "18446744073709551615"],
            &["--tokens", "expected at most 4294967295"],
        ),
        (
            &["--steps", "18446744073709551615"],
            &["--steps", "expected at most 4294967295"],
        ),
        (
            &["--topology", "10gbe", "--workers", "1000000"],
            &["1000000 workers take at least", "GiB; ask for fewer"],
        ),
        (
            &["--fault", "dies:4:5ms"],
            &["--fault names worker 4, expected 0 to 3"],
        ),
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
fn printed_costs_are_read_again_and_a_wrong_figure_is_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("costs.toml");
    let printed = stdout(&["simulate", "--costs", "h100", "--print-costs"]);
    std::fs::write(&file, &printed).unwrap();
    let simulated = |costs: &str| {
        let page = stdout(&[&["simulate", "--costs", costs], &SMALL[..]].concat());
        let digest = page.lines().find(|line| line.contains("event log"));
        digest.unwrap().to_owned()
    };
    assert_eq!(simulated(text(&file)), simulated("h100"));
    std::fs::write(&file, printed.replace("pool_ns = 0.0", "pool_ns = -1")).unwrap();
    let line = 1
        + (printed.lines())
            .position(|line| line.starts_with("pool_ns"))
            .unwrap();
    let words = [
        &format!("costs.toml: costs: line {line}: `pool_ns` holds -1, expected 0 to"),
        "nanoseconds",
    ];
    let stderr = fails(2, &["simulate", "--costs", text(&file)], &words);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    std::fs::write(&file, printed.replace("pool_ns = 0.0", "pool_ns = ")).unwrap();
    let stderr = fails(2, &["simulate", "--costs", text(&file)], &["line"]);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_worker_that_died_stays_dead_and_a_fault_that_never_came_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("s.json");
    let shape = ["--hidden", "64", "--ffn", "64", "--tokens", "24"];
    let run = |flags: &str| {
        let flags: Vec<&str> = flags.split(' ').collect();
        let star = ["--exchange", "star", "--on-loss", "drop"];
        let head = [&["simulate", "--report", text(&file)], &star[..]].concat();
        let output = expertmesh()
            .args([&head[..], &shape, &flags].concat())
            .output()
            .unwrap();
        assert!(output.status.success(), "{flags:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        (report(&file).runs.remove(0), stderr)
    };
    let (healthy, _) = run("--layers 1 --steps 1");
    // In the second of four layer-steps.
    let at = (1.5 * healthy.latency_us.step.mean).round();
    let (run_1, told) = run(&format!("--layers 2 --steps 2 --fault dies:1:{at}us"));
    assert!(!told.contains("was to fail"), "{told}");
    // Two experts of eight, which 24 tokens choose twelve times in each layer-step.
    let lost = run_1.overflow.lost;
    assert!((24..=36).contains(&lost), "{lost}");
    let (run_2, told) = run("--steps 2 --fault dies:1:500ms");
    assert_eq!(run_2.overflow.lost, 0);
    assert_eq!(
        told.matches("worker 1 was to fail at 500 ms, which no exchange was under way to see")
            .count(),
        1
    );
}

#[test]
fn hosts_of_a_topology_are_the_groups_of_a_launch_too() {
    let directory = tempfile::tempdir().unwrap();
    let (file, costly) = (
        directory.path().join("t.toml"),
        directory.path().join("p.toml"),
    );
    let topology = r#"
        workers = ["host1", "host1", "host2", "host2"]
        [[host]]
        name = "host"
        count = 3
        slots = 2
        [tier.rack]
        latency = "100 us"
        bandwidth = "1 Gbit/s"
    "#;
    std::fs::write(&file, topology).unwrap();
    let written = directory.path().join("r.json");
    let mut runs = Vec::new();
    for command in ["launch", "simulate"] {
        let flags = [
            command,
            "--exchange",
            "hierarchical",
            "--topology",
            text(&file),
        ];
        let more = ["--report", text(&written)];
        let tolerance: &[&str] = match command {
            "launch" => &["--probe-tolerance", "1000"],
            _ => &[],
        };
        stdout(&[&flags[..], &more, tolerance, &SMALL].concat());
        runs.push(report(&written).runs.remove(0));
    }
    assert_eq!(runs[0].identity.groups, runs[1].identity.groups);
    let matrix = |at: usize| &runs[at].communication.matrix_bytes;
    assert_eq!(matrix(0), matrix(1));
    let uneven = topology.replace("\"host1\", \"host1\"", "\"host1\", \"host2\"");
    std::fs::write(&file, uneven.replace("slots = 2", "slots = 4")).unwrap();
    let launch = ["launch", "--exchange", "hierarchical", "--topology"];
    let words = ["--exchange hierarchical", "equally many", "--group-size"];
    fails(2, &[&launch[..], &[text(&file)]].concat(), &words);
    std::fs::write(
        &costly,
        format!("{topology}\n        per_peer = \"1 us\"\n"),
    )
    .unwrap();
    let words = ["p.toml:", ":11: `per_peer`", "`per_message`"];
    fails(2, &["launch", "--topology", text(&costly)], &words);
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
