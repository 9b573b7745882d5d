//! The report command, given reports that the real commands wrote.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{SMALL, fails, report, stdout, text};
use expertmesh_report::parse_lanes;
use tempfile::TempDir;

/// Flags of what is both launched and simulated.
const SAME: [&str; 6] = [
    "--workers",
    "2",
    "--exchange",
    "star",
    "--workload",
    "zipf:1",
];

/// A launch and a simulation of the same, saved.
struct Pair {
    directory: TempDir,
}

impl Pair {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pair = Self { directory };
        for command in ["launch", "simulate"] {
            let report = pair.file(&format!("{command}.json"));
            let lanes = pair.file(&format!("{command}-lanes.json"));
            let files = ["--report", text(&report), "--lanes", text(&lanes)];
            stdout(&[&[command][..], &SAME, &SMALL, &files].concat());
        }
        pair
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `report` of both with `more` flags.
    fn both(&self, more: &[&str]) -> String {
        let files = ["launch.json", "simulate.json"].map(|name| self.file(name));
        let lanes = ["launch-lanes.json", "simulate-lanes.json"].map(|name| self.file(name));
        let args = [
            "report",
            text(&files[0]),
            text(&files[1]),
            "--lanes",
            text(&lanes[0]),
            "--lanes",
            text(&lanes[1]),
        ];
        stdout(&[&args[..], more].concat())
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_launch_and_its_simulation_stand_beside_each_other() {
    let pair = Pair::new();
    let (page, steps) = (pair.file("both.html"), pair.file("both-steps.json"));
    pair.both(&["--html", text(&page)]);
    pair.both(&["--run", "1", "--perfetto", text(&steps)]);

    let page = read(&page);
    assert_eq!(page.matches("Predicted beside measured").count(), 2);
    assert!(page.contains("Both moved the same bytes between the same endpoints."));

    // One process for each endpoint as measured, and one as predicted.
    let steps: serde_json::Value = serde_json::from_str(&read(&steps)).unwrap();
    let events = steps["traceEvents"].as_array().unwrap();
    let names = events
        .iter()
        .filter(|event| event["name"] == "process_name");
    let names: Vec<&str> = names
        .map(|event| event["args"]["name"].as_str().unwrap())
        .collect();
    let traces = parse_lanes(&read(&pair.file("launch-lanes.json"))).unwrap();
    assert_eq!(names.len(), 2 * traces[0].endpoints.len(), "{names:?}");

    // Each run under its own roof, and a simulation says of which machines.
    let page = pair.both(&[]);
    let (launched, simulated) = page.split_once("Run 2 of 2").unwrap();
    assert!(launched.contains("loopback network") && !launched.contains("simulated network"));
    assert!(simulated.contains("simulated network") && simulated.contains("links of loopback, "));
    let simulated = report(&pair.file("simulate.json"));
    let machines = simulated.environment.topology.as_deref();
    assert_eq!(machines, Some("loopback, 1 host"));
}

#[test]
fn a_sweep_over_machines_tells_those_of_each_run() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sweep.json");
    let sweep = [
        "simulate",
        "--sweep",
        "topology=10gbe,h100",
        "--workers",
        "2",
    ];
    stdout(&[&sweep[..], &SMALL, &["--report", text(&file)]].concat());
    let report = report(&file);
    let machines = report.runs.iter().map(|run| report.environment_of(run));
    let machines: Vec<&str> = machines
        .map(|place| place.topology.as_deref().unwrap())
        .collect();
    assert!(machines[0].starts_with("10gbe, ") && machines[1].starts_with("h100, "));
}

#[test]
fn no_file_is_written_over_another() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let saved = file("saved.json");
    stdout(&[&["simulate"][..], &SMALL, &["--report", text(&saved)]].concat());
    let before = read(&saved);
    fs::create_dir(file("below")).unwrap();
    let detour = file("below/../saved.json");
    let link = file("link.json");
    std::os::unix::fs::symlink(&saved, &link).unwrap();
    for same in [&saved, &detour, &link] {
        let args = ["report", text(&saved), "--html", text(same)];
        fails(2, &args, &["--html is", "FILE reads", "a file of its own"]);
    }
    // Not there yet, and named in two ways.
    let (new, other) = (file("new"), file("below/../new"));
    for flags in [
        ["--report", text(&new), "--html", text(&new)],
        ["--html", text(&other), "--event-log", text(&new)],
        ["--perfetto", text(&new), "--lanes", text(&other)],
    ] {
        let words = [flags[0], flags[2], "writes", "a file of its own"];
        fails(2, &[&["simulate"][..], &SMALL, &flags].concat(), &words);
    }
    assert!(!new.exists());
    assert_eq!(read(&saved), before);
    // A place that keeps nothing may take everything.
    let nowhere = ["--report", "/dev/null", "--html", "/dev/null"];
    stdout(&[&["simulate"][..], &SMALL, &nowhere].concat());
}

#[test]
fn a_file_is_replaced_whole_through_links_and_with_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let (saved, link) = (
        directory.path().join("saved.json"),
        directory.path().join("link.json"),
    );
    fs::write(&saved, "old").unwrap();
    fs::set_permissions(&saved, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&saved, &link).unwrap();
    // Whoever has the old file open keeps it: it is another file that takes its name.
    let mut old = fs::File::open(&saved).unwrap();
    stdout(&[&["simulate"][..], &SMALL, &["--report", text(&link)]].concat());
    let mut kept = String::new();
    std::io::Read::read_to_string(&mut old, &mut kept).unwrap();
    assert_eq!(kept, "old");
    report(&saved);
    assert!(link.symlink_metadata().unwrap().is_symlink());
    let mode = saved.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn a_report_that_contradicts_itself_is_refused_in_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let (saved, page) = (
        directory.path().join("saved.json"),
        directory.path().join("page.html"),
    );
    stdout(&[&["simulate"][..], &SMALL, &["--report", text(&saved)]].concat());
    let mut whole: serde_json::Value = serde_json::from_str(&read(&saved)).unwrap();
    whole["runs"][0]["latency_us"]["distribution"] =
        serde_json::json!({"step": {"counts": [1], "edges": []}});
    fs::write(&saved, whole.to_string()).unwrap();
    fails(
        2,
        &["report", text(&saved), "--html", text(&page)],
        &[
            "saved.json",
            "distribution.step.edges",
            "has 0 entries, expected 2",
        ],
    );
}
