//! Topologies: what files say, and launches over emulated links. Links are slow beside what any
//! machine takes, so that bounds hold on all of them.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use std::path::PathBuf;

use common::{SMALL, expertmesh, fails, report, stdout, text};
use expertmesh_telemetry::{Network, Report, Run, Source};

/// Hosts with slow links between them.
const SLOW: &str = "
[[host]]
count = \"any\"
[tier.rack]
latency = \"20 ms\"
bandwidth = \"20 Mbit/s\"
jitter = \"1 ms\"
";

/// A folder with one file of that text.
fn file(topology: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.toml");
    std::fs::write(&path, topology).unwrap();
    (folder, path)
}

/// A small launch of 3 workers, and its report.
fn launched(more: &[&str]) -> (String, Report) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let mut args = vec![
        "launch",
        "--workers",
        "3",
        "--warmup",
        "1",
        "--report",
        text(&path),
    ];
    args.extend(SMALL);
    args.extend(more);
    let page = stdout(&args);
    (page, report(&path))
}

/// Outputs and bytes are the same.
#[track_caller]
fn same_work(slow: &Run, fast: &Run, exchange: &str) {
    assert_eq!(slow.digest, fast.digest, "{exchange}");
    let ledgers = [slow, fast].map(|run| {
        let sent = &run.communication;
        (sent.matrix_bytes.clone(), sent.payload_bytes, sent.messages)
    });
    assert_eq!(ledgers[0], ledgers[1], "{exchange}");
}

#[test]
fn a_launch_over_emulated_links_is_slower_and_sends_the_same_bytes() {
    let (_folder, path) = file(SLOW);
    // A tolerance of ten times: whether a busy machine keeps up is not the question here.
    let links = ["--topology", text(&path), "--probe-tolerance", "1000"];
    for exchange in ["star", "all-to-all"] {
        let (page, emulated) = launched(&[&links[..], &["--exchange", exchange]].concat());
        let (_, real) = launched(&["--exchange", exchange]);
        assert!(page.starts_with("links: lab, 3 hosts\n"), "{page}");
        assert!(
            page.lines().all(|line| line.chars().count() <= 100),
            "{page}"
        );
        assert!(
            page.contains("no [tier.host]") && page.contains("\n  rack "),
            "{page}"
        );
        assert_eq!(emulated.environment.network, Network::Emulated);
        assert_eq!(
            emulated.environment.topology.as_deref(),
            Some("lab, 3 hosts")
        );
        let (slow, fast) = (&emulated.runs[0], &real.runs[0]);
        same_work(slow, fast, exchange);
        // Rows go to another host and results come back.
        assert!(
            slow.latency_us.step.min >= 40_000.0,
            "{:?}",
            slow.latency_us.step
        );
        assert_eq!(slow.source_of("latency_us.step"), Some(Source::Emulated));
        assert_eq!(
            slow.source_of("communication.payload_bytes"),
            Some(Source::Measured)
        );
    }
}

/// Where the machine gives no namespaces, which is said in one sentence, nothing is launched.
#[test]
fn processes_with_networks_of_their_own_send_the_same_bytes_over_slow_links() {
    let (_folder, path) = file(SLOW);
    let links = ["--links", "namespaces", "--topology", text(&path)];
    let mut first = expertmesh();
    first
        .args(["launch", "--probe-tolerance", "1000"])
        .args(links);
    let output = first.args(SMALL).output().unwrap();
    if output.status.code() == Some(2) {
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = "error: --links namespaces is not available here: ";
        assert!(said.starts_with(expected), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        return;
    }
    let refused = "--stay keeps the coordinator up for others";
    let stay = ["--workers", "2", "--steps", "0", "--stay"];
    fails(2, &[&["launch"], &links[..], &stay].concat(), &[refused]);
    for exchange in ["star", "all-to-all"] {
        let more = ["--exchange", exchange];
        let tolerance = ["--probe-tolerance", "1000"];
        let (page, switched) = launched(&[&links[..], &tolerance, &more].concat());
        let (_, real) = launched(&more);
        let place = "lab, 3 hosts, network namespaces";
        assert!(page.starts_with(&format!("links: {place}\n")), "{page}");
        assert_eq!(switched.environment.network, Network::Emulated);
        assert_eq!(switched.environment.topology.as_deref(), Some(place));
        let (slow, fast) = (&switched.runs[0], &real.runs[0]);
        same_work(slow, fast, exchange);
        // There and back.
        let step = &slow.latency_us.step;
        assert!(step.min >= 40_000.0, "{step:?}");
    }
}

#[test]
fn stretched_time_is_said_and_divided_out() {
    let (_folder, path) = file(
        &SLOW
            .replace("20 ms", "200 us")
            .replace("1 ms", "10 us")
            .replace("20 Mbit/s", "2 Gbit/s"),
    );
    let links = [
        "--topology",
        text(&path),
        "--probe-tolerance",
        "1000",
        "--dilation",
        "100",
    ];
    let (page, report) = launched(&links);
    assert!(page.contains("take 100 times as long"), "{page}");
    assert!(
        page.contains("\nlinks of lab, 3 hosts, dilation 100\n"),
        "{page}"
    );
    let step = &report.runs[0].latency_us.step;
    // Two ways of 200 µs at least, which took 40 ms.
    assert!(step.min >= 400.0 && step.min < 400_000.0, "{step:?}");
}

#[test]
fn what_the_machine_cannot_carry_asks_for_dilation() {
    let (_folder, path) = file(&SLOW.replace("20 Mbit/s", "9000 TB/s"));
    let args = [
        "launch",
        "--workers",
        "2",
        "--topology",
        text(&path),
        "--steps",
        "1",
    ];
    let words = [
        "tier rack of topology lab has links of 9000 TB/s",
        "--dilation ",
    ];
    fails(3, &args, &words);
}

#[test]
fn wrong_topologies_and_flags_are_one_sentence() {
    let (_folder, path) = file(&format!("{SLOW}colour = 1\n"));
    let (_other, short) = file(&SLOW.replace("\"any\"", "2"));
    let (_third, costly) = file(&format!("{SLOW}per_message = \"1 us\"\n"));
    let cases: [(&[&str], &[&str]); 9] = [
        (
            &["launch", "--topology", "nope"],
            &["neither a file nor a preset", "h800"],
        ),
        (
            &["launch", "--topology", text(&path)],
            &["lab.toml:8:", "unknown field `colour`"],
        ),
        (
            &["launch", "--topology", text(&short)],
            &["lab.toml:2: 4 workers", "at most 2"],
        ),
        (&["launch", "--dilation", "3"], &["--topology"]),
        (
            &["launch", "--topology", "wan", "--dilation", "0.5"],
            &["--dilation holds 0.5"],
        ),
        (
            &["launch", "--topology", "wan", "--probe-tolerance", "0"],
            &["--probe-tolerance holds 0"],
        ),
        (
            &[
                "launch",
                "--topology",
                text(&costly),
                "--links",
                "namespaces",
            ],
            &["lab.toml:8: `per_message` is a cost that packets do not see"],
        ),
        (
            &["topology", "lost.toml"],
            &["topology lost.toml cannot be read"],
        ),
        (
            &[
                "run",
                "--input",
                "x",
                "--output",
                "y",
                "--coordinator",
                "a:1",
                "--topology",
                "wan",
            ],
            &["--topology", "--coordinator"],
        ),
    ];
    for (args, words) in cases {
        fails(2, args, words);
    }
}

#[test]
fn a_topology_is_told_with_its_paths_and_places() {
    let page = stdout(&["topology", "h100", "--workers", "300"]);
    assert!(page.starts_with("h100 with 300 workers"), "{page}");
    assert!(page.contains("coordinator, worker-0 to worker-7"), "{page}");
    assert!(page.contains("… and 22 more"), "{page}");
    for tier in ["host", "rack", "spine"] {
        assert!(page.contains(&format!("\n  {tier} ")), "{page}");
    }
    assert!(page.contains("2.8 µs + bytes / 50 GB/s"), "{page}");
    assert!(page.contains("rack0 up → rack1 down"), "{page}");
    assert!(stdout(&["topology", "--presets"]).contains("100gbe"));
}
