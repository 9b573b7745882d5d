//! A checkpoint whose experts work on latent rows, from the command line.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

#[path = "../../testkit/src/latent.rs"]
#[allow(unreachable_pub, reason = "public where it lives")]
#[allow(clippy::expect_used, reason = "a helper of tests fails by panicking")]
mod latent;

use common::{golden, report, stdout, text};
use expertmesh_checkpoint::TensorFile;
use expertmesh_kernels::Format;
use expertmesh_telemetry::Run;
use latent::LatentCase;

const CASE: &str = "nemotron_h";

fn checkpoint() -> (tempfile::TempDir, LatentCase) {
    let directory = tempfile::tempdir().unwrap();
    let case = LatentCase::write(&golden(CASE), directory.path());
    (directory, case)
}

/// On 1 and 3 workers with both exchanges: the model's order of sums, and the same file.
#[test]
fn run_computes_what_the_model_does() {
    let (directory, case) = checkpoint();
    let layer = LatentCase::LAYER.to_string();
    let input = golden(CASE).join("input.safetensors");
    let output = directory.path().join("out.safetensors");
    let (_, x) = TensorFile::open(&input)
        .unwrap()
        .f32("hidden_states")
        .unwrap();
    for dtype in [Format::F32, Format::Bf16] {
        let mut first: Option<Vec<u8>> = None;
        for (workers, exchange) in [("1", "all-to-all"), ("3", "star"), ("3", "all-to-all")] {
            let format = dtype.to_string();
            stdout(&[
                "run",
                "--model",
                text(directory.path()),
                "--layer",
                &layer,
                "--input",
                text(&input),
                "--output",
                text(&output),
                "--workers",
                workers,
                "--exchange",
                exchange,
                "--dtype",
                &format,
            ]);
            let bytes = std::fs::read(&output).unwrap();
            if let Some(first) = &first {
                assert!(*first == bytes, "{dtype}: {workers} workers, {exchange}");
                continue;
            }
            first = Some(bytes);
            let got = TensorFile::open(&output).unwrap();
            let (_, experts) = got.i64("topk_index").unwrap();
            let narrow = experts.iter().map(|expert| u32::try_from(*expert).unwrap());
            let (_, weights) = got.f32("topk_weight").unwrap();
            let expected = case.expected(&x, &narrow.collect::<Vec<_>>(), &weights, dtype);
            let (_, got) = got.f32("output").unwrap();
            assert_eq!(got.len(), expected.len());
            let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
            let distances = got.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            let error = distances.fold(0f32, f32::max) / largest;
            let limit = if dtype == Format::F32 { 2e-5 } else { 3e-2 };
            assert!(error <= limit, "{dtype}: {error:e}");
        }
    }
}

#[test]
fn a_launch_a_bench_and_a_simulation_send_the_same_latent_rows() {
    let (directory, _) = checkpoint();
    let layer = LatentCase::LAYER.to_string();
    let file = directory.path().join("report.json");
    let told = |command: &[&str], exchange: &str| {
        let flags = ["--layer", &layer, "--exchange", exchange, "--workers", "3"];
        let load = ["--tokens", "20", "--steps", "3", "--seed", "5"];
        let files = ["--model", text(directory.path()), "--report", text(&file)];
        stdout(&[command, &flags, &load, &files].concat());
        report(&file).runs[0].clone()
    };
    for exchange in ["star", "all-to-all"] {
        let real = told(&["launch"], exchange);
        let simulated = told(&["simulate"], exchange);
        let benched = told(&["bench", "dispatch", "--warmup", "0"], exchange);
        // A bench drives more steps than it is told.
        let sent = |run: &Run| -> Vec<Vec<u64>> {
            let a_step = |bytes: &u64| bytes / run.load.steps;
            let rows = run.communication.matrix_bytes.iter();
            rows.map(|row| row.iter().map(a_step).collect()).collect()
        };
        assert_eq!(sent(&real), sent(&simulated), "{exchange}");
        assert_eq!(sent(&real), sent(&benched), "{exchange}");
        let shape = real.identity.shape.unwrap();
        assert_eq!(shape.hidden, LatentCase::HIDDEN as u64);
    }
}

#[test]
fn inspect_leaves_the_projections_to_the_coordinator() {
    let (directory, _) = checkpoint();
    let page = stdout(&["inspect", text(directory.path()), "--workers", "2"]);
    let words = [
        "hidden 32, inner size 16",
        "experts work on rows of 24 values, which travel",
    ];
    for words in words {
        assert!(page.contains(words), "no {words:?} in {page}");
    }
    // No shared expert on a worker: it has no hidden states.
    let shares = page.split("would load").nth(1).unwrap();
    let last = |line: &str| line.trim_end().ends_with("0 B");
    assert_eq!(
        shares.lines().filter(|line| last(line)).count(),
        2,
        "{page}"
    );
}
