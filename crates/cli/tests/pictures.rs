//! Pictures of a real run, and the report command that reads what it saved.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{fails, stdout, text};
use expertmesh_report::parse_lanes;
use expertmesh_telemetry::Phase;
use tempfile::TempDir;

/// A small cluster's report and pictures.
struct Saved {
    directory: TempDir,
}

impl Saved {
    fn of(exchange: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let saved = Self { directory };
        let file = |name: &str| saved.file(name).to_str().unwrap().to_owned();
        stdout(&[
            "launch",
            "--workers",
            "2",
            "--hidden",
            "64",
            "--ffn",
            "64",
            "--tokens",
            "16",
            "--steps",
            "30",
            "--warmup",
            "2",
            "--lane-steps",
            "3",
            "--exchange",
            exchange,
            "--report",
            &file("report.json"),
            "--html",
            &file("page.html"),
            "--perfetto",
            &file("steps.json"),
            "--lanes",
            &file("lanes.json"),
        ]);
        saved
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }
}

#[test]
fn a_launch_draws_its_last_steps_and_the_report_command_reads_them() {
    for exchange in ["star", "all-to-all"] {
        let saved = Saved::of(exchange);
        let traces = parse_lanes(&saved.read("lanes.json")).unwrap();
        assert_eq!(traces.len(), 1);
        assert_eq!(traces[0].endpoints.len(), 3);
        assert_eq!(traces[0].steps().len(), 3);
        // Every worker has experts, whoever was slowest.
        for worker in [1, 2] {
            let lanes = traces[0].lanes.iter();
            let mut of = lanes.filter(|lane| lane.endpoint == worker);
            assert!(
                of.any(|lane| lane.phase == Phase::Experts),
                "{exchange} {worker}"
            );
        }
        let page = saved.read("page.html");
        assert!(page.contains("Timeline of a step") && page.ends_with("</html>\n"));
        let steps: serde_json::Value = serde_json::from_str(&saved.read("steps.json")).unwrap();
        assert!(steps["traceEvents"].as_array().unwrap().len() > traces[0].lanes.len());

        let (report, lanes) = (saved.file("report.json"), saved.file("lanes.json"));
        let (report, lanes) = (text(&report), text(&lanes));
        let printed = stdout(&["report", report]);
        assert!(printed.contains("Where a step goes"), "{printed}");
        let compared = stdout(&["report", report, report]);
        assert!(compared.contains("Comparison"), "{compared}");

        let again = saved.file("again.html");
        let (nccl, chakra) = (saved.file("matrix.txt"), saved.file("traces"));
        let told = stdout(&[
            "report",
            report,
            "--lanes",
            lanes,
            "--html",
            text(&again),
            "--nccl",
            text(&nccl),
            "--chakra",
            text(&chakra),
        ]);
        assert_eq!(told.lines().count(), 3, "{told}");
        assert_eq!(saved.read("again.html"), page);
        assert_eq!(saved.read("matrix.txt").lines().count(), 3);
        assert_eq!(fs::read_dir(&chakra).unwrap().count(), 3);
    }
}

#[test]
fn what_cannot_be_drawn_is_refused_in_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("none.json");
    fails(2, &["report", text(&file)], &["cannot read"]);
    fs::write(&file, "{}").unwrap();
    fails(
        2,
        &["report", text(&file)],
        &["none.json", "is not a report"],
    );
    let nowhere = Path::new("no/such/directory/page.html");
    fails(2, &["launch", "--html", text(nowhere)], &["make it first"]);
    fails(2, &["launch", "--lane-steps", "2"], &["nothing is"]);
    let many = ["bench", "dispatch", "--perfetto", "out.json"];
    fails(2, &many, &["expertmesh report --run"]);
}
