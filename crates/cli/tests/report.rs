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

use common::{SMALL, stdout, text};
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
}
