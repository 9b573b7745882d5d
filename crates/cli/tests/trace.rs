//! Routing traces: made, told, converted, recorded and replayed.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use std::path::{Path, PathBuf};

use common::{expertmesh, fails, golden, report, stdout, text};
use expertmesh_bench::trace::{NO_CHOICE, Trace};
use safetensors::SafeTensors;
use serde_json::Value;

/// A layer that every debug build computes in no time.
const LAYER: [&str; 6] = ["--hidden", "48", "--ffn", "32", "--workers", "2"];

/// A folder, and a name in it.
fn folder() -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, move |name: &str| path.join(name))
}

/// Runs `launch` with the small layer and `more`, and gives its page and its report.
fn launched(at: &Path, more: &[&str]) -> (String, expertmesh_telemetry::Report) {
    let file = at.join("report.json");
    let args = [&["launch", "--report", text(&file)], &LAYER[..], more].concat();
    (stdout(&args), report(&file))
}

#[test]
fn a_synthetic_trace_is_told_converted_and_told_again() {
    let (_folder, at) = folder();
    let made = at("w.moetrace");
    let shape = ["--tokens", "40", "--experts", "16", "--top-k", "4"];
    let synth = [
        "trace",
        "synth",
        "--workload",
        "w5",
        "--steps",
        "6",
        text(&made),
    ];
    let page = stdout(&[&synth[..], &shape, &["--ranks", "2", "--seed", "3"]].concat());
    assert!(page.contains("zero-expert-rank, 6 steps:"), "{page}");
    assert!(
        page.contains(": ok\n") && !page.contains("not so"),
        "{page}"
    );
    let page = stdout(&["trace", "stats", text(&made)]);
    assert!(
        page.lines().all(|line| line.chars().count() <= 100),
        "{page}"
    );
    assert!(page.contains("6 steps of 1 layer, 240 token rows, top-4 of 16 experts"));
    for words in [
        "workload zero-expert-rank",
        "gini",
        "same first",
        "idle",
        "layer 0",
    ] {
        assert!(page.contains(words), "no {words} in {page}");
    }
    let json = |file: &Path, more: &[&str]| -> Value {
        let args = [&["trace", "stats", "--json", text(file)], more].concat();
        serde_json::from_str(&stdout(&args)).unwrap()
    };
    let told = json(&made, &[]);
    let layer = &told["layers"][0];
    assert_eq!(layer["idle"]["measured"], 8.0);
    assert!(layer["idle"]["uniform"].as_f64().unwrap() < 0.1);
    for name in ["w.csv", "w.parquet"] {
        let copy = at(name);
        stdout(&["trace", "convert", text(&made), text(&copy)]);
        // CSV does not say that there are experts beyond the last that was chosen.
        assert_eq!(json(&copy, &["--experts", "16"])["layers"], told["layers"]);
    }
    let odd = at("w.dump");
    let back = at("back.moetrace");
    stdout(&[
        "trace",
        "convert",
        text(&made),
        text(&odd),
        "--to",
        "parquet",
    ]);
    stdout(&[
        "trace",
        "convert",
        text(&odd),
        text(&back),
        "--from",
        "parquet",
    ]);
    assert_eq!(std::fs::read(&made).unwrap(), std::fs::read(&back).unwrap());
}

#[test]
fn loads_become_traces_and_a_seed_repeats() {
    let (_folder, at) = folder();
    let loads = at("loads.csv");
    std::fs::write(&loads, "90,132,40,61\n0,0,0,0\n20,20,20,20\n").unwrap();
    let sample = |name: &str, seed: &str| {
        let out = at(name);
        let args = [
            "trace",
            "sample",
            text(&loads),
            text(&out),
            "--tokens",
            "300",
        ];
        stdout(&[&args[..], &["--steps", "3", "--seed", seed]].concat());
        std::fs::read(&out).unwrap()
    };
    assert_eq!(sample("a.moetrace", "1"), sample("b.moetrace", "1"));
    assert_ne!(sample("a.moetrace", "1"), sample("b.moetrace", "2"));
    let trace = Trace::read(at("a.moetrace")).unwrap();
    assert_eq!((trace.steps(), trace.records().len()), (3, 6));
    let sampled = trace.records().iter().filter(|record| record.layer == 0);
    let chosen: Vec<u32> = sampled.flat_map(|record| record.experts.clone()).collect();
    let share = chosen.iter().filter(|&&expert| expert == 1).count() as f64 / 1800.0;
    assert!((share - 132.0 / 323.0).abs() < 0.03, "{share}");
    let out = at("c.csv");
    let args = ["trace", "sample", text(&loads), text(&out), "--top-k", "3"];
    fails(
        2,
        &args,
        &["layer 0, expert 1", "load is 132 of 323", "loads.csv"],
    );
}

#[test]
fn a_recorded_run_is_replayed_to_the_byte() {
    let (folder, at) = folder();
    let (first, second) = (at("first.moetrace"), at("second.moetrace"));
    let load = ["--workload", "zipf:1.2", "--tokens", "24", "--steps", "6"];
    for exchange in ["star", "all-to-all"] {
        let record = ["--record-trace", text(&first), "--exchange", exchange];
        let (page, recorded) = launched(folder.path(), &[&load[..], &record].concat());
        assert!(page.contains("outside the timed step"), "{page}");
        let replay = [
            "--trace",
            text(&first),
            "--exchange",
            exchange,
            "--seed",
            "9",
        ];
        let more = ["--record-trace", text(&second)];
        let (_, replayed) = launched(folder.path(), &[&replay[..], &more].concat());
        assert_eq!(
            std::fs::read(&first).unwrap(),
            std::fs::read(&second).unwrap()
        );
        let (before, after) = (&recorded.runs[0], &replayed.runs[0]);
        assert_eq!(after.load.steps, 6, "as many as the trace has");
        assert_ne!(before.digest, after.digest, "other rows");
        assert_eq!(before.overflow, after.overflow);
        let bytes = |run: &expertmesh_telemetry::Run| {
            let communication = &run.communication;
            (
                communication.payload_bytes,
                communication.matrix_bytes.clone(),
            )
        };
        assert_eq!(bytes(before), bytes(after));
        assert!(after.identity.workload.starts_with("replay of"));
    }
}

#[test]
fn padding_is_replayed_as_padding_and_steps_come_round() {
    let (folder, at) = folder();
    let (made, second) = (at("ragged.parquet"), at("second.moetrace"));
    let synth = ["trace", "synth", "--workload", "w4", "--tokens", "16"];
    stdout(&[&synth[..], &["--steps", "2", text(&made)]].concat());
    let replay = ["--trace", text(&made), "--record-trace", text(&second)];
    let (_, replayed) = launched(folder.path(), &[&replay[..], &["--steps", "5"]].concat());
    let (made, second) = (Trace::read(&made).unwrap(), Trace::read(&second).unwrap());
    assert_eq!(second.steps(), 5);
    let mut skipped = 0;
    for (step, record) in (0..).zip(second.records()) {
        let from = made.layer(step, 0).unwrap();
        assert_eq!(
            (&record.experts, &record.ranks),
            (&from.experts, &from.ranks)
        );
        let padding = record.experts.iter().filter(|&&expert| expert == NO_CHOICE);
        skipped += padding.count() as u64;
    }
    assert!(skipped > 0);
    assert_eq!(replayed.runs[0].overflow.skipped, skipped);
}

#[test]
fn a_ragged_run_is_replayed_to_the_byte() {
    let (folder, at) = folder();
    let (first, second) = (at("first.moetrace"), at("second.moetrace"));
    for gate in ["expert-choice:1.5", "top-p:0.5"] {
        let load = [
            "--gate",
            gate,
            "--experts",
            "8",
            "--tokens",
            "20",
            "--workload",
            "normal",
        ];
        let more = ["--steps", "3", "--record-trace", text(&first)];
        let (_, recorded) = launched(folder.path(), &[&load[..], &more].concat());
        let trace = Trace::read(&first).unwrap();
        let slots = trace.records().iter().flat_map(|record| &record.experts);
        assert!(slots.clone().any(|&expert| expert == NO_CHOICE), "{gate}");
        // A token has up to as many choices as the trace has slots.
        let slots = trace.header().top_k.to_string();
        let replay = ["--experts", "8", "--top-k", &slots, "--trace", text(&first)];
        let more = ["--seed", "9", "--record-trace", text(&second)];
        let (_, replayed) = launched(folder.path(), &[&replay[..], &more].concat());
        let again = Trace::read(&second).unwrap();
        assert_eq!(trace.records(), again.records(), "{gate}");
        let (before, after) = (&recorded.runs[0], &replayed.runs[0]);
        assert_eq!(
            before.overflow.per_expert, after.overflow.per_expert,
            "{gate}"
        );
        assert_eq!(
            before.communication.matrix_bytes, after.communication.matrix_bytes,
            "{gate}"
        );
    }
}

#[test]
fn a_checkpoint_layer_records_and_replays() {
    let (_folder, at) = folder();
    let trace = at("routes.moetrace");
    // One that chooses by groups and by a bias.
    let model = golden("deepseek_v3");
    let layer = [
        "launch",
        "--workers",
        "2",
        "--steps",
        "3",
        "--model",
        text(&model),
    ];
    let layer = [&layer[..], &["--layer", "1", "--record-trace"]].concat();
    stdout(&[&layer[..], &[text(&trace)]].concat());
    let again = at("again.moetrace");
    stdout(&[&layer[..], &[text(&again), "--trace", text(&trace)]].concat());
    assert_eq!(
        std::fs::read(&trace).unwrap(),
        std::fs::read(&again).unwrap()
    );
    assert_eq!(Trace::read(&trace).unwrap().records()[0].layer, 1);
    let (input, output) = (
        golden("mixtral").join("input.safetensors"),
        at("out.safetensors"),
    );
    let model = golden("mixtral");
    let run = [
        "run",
        "--model",
        text(&model),
        "--layer",
        "1",
        "--workers",
        "2",
    ];
    let files = ["--input", text(&input), "--output", text(&output)];
    let page = stdout(&[&run[..], &files, &["--record-trace", text(&trace)]].concat());
    assert!(page.contains("1 step of 1 layer, 24 token rows"), "{page}");
    let bytes = std::fs::read(&output).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let recorded = Trace::read(&trace).unwrap();
    let recorded = &recorded.records()[0];
    let words = |name: &str| -> Vec<[u8; 4]> {
        let tensor = tensors.tensor(name).unwrap();
        tensor.data().as_chunks::<4>().0.to_vec()
    };
    let experts: Vec<_> = recorded.experts.iter().map(|e| e.to_le_bytes()).collect();
    assert_eq!(experts, words("topk_index"));
    let weights = recorded.weights.iter().flatten();
    let weights: Vec<_> = weights.map(|weight| weight.to_le_bytes()).collect();
    assert_eq!(weights, words("topk_weight"));
}

#[test]
fn a_bench_records_the_rounds_of_its_first_restart() {
    let (_folder, at) = folder();
    let trace = at("rounds.moetrace");
    let bench = [
        "bench",
        "dispatch",
        "--hidden",
        "48",
        "--workers",
        "2",
        "--warmup",
        "2",
    ];
    let record = [
        "--record-trace",
        text(&trace),
        "--restarts",
        "2",
        "--steps",
        "9",
    ];
    let bench = [&bench[..], &record].concat();
    let page = stdout(&[&bench[..], &["--tokens", "8"]].concat());
    assert!(
        page.contains("trace: 9 steps of 1 layer, 72 token rows"),
        "{page}"
    );
    let trace = Trace::read(&trace).unwrap();
    assert_eq!(trace.header().source, "balanced");
    let weights = trace.records()[0].weights.as_deref().unwrap();
    assert!((weights[0] + weights[1] - 1.0).abs() < 1e-6);
    fails(2, &bench, &["--tokens holds 4 values", "--record-trace"]);
}

#[test]
fn a_bench_of_a_gate_that_hashes_has_token_ids() {
    let page = stdout(&[
        "bench",
        "dispatch",
        "--gate",
        "hash:0",
        "--hidden",
        "48",
        "--workers",
        "2",
        "--tokens",
        "8",
        "--steps",
        "4",
        "--warmup",
        "1",
        "--restarts",
        "1",
    ]);
    assert!(page.contains("ratio"), "{page}");
}

#[test]
fn a_self_test_passes_for_the_gate_and_fails_for_forced_routes() {
    let (folder, _) = folder();
    let load = ["--workload", "zipf:2", "--tokens", "64", "--steps", "6"];
    for pattern in ["zipf:2", "w2", "locality", "balanced"] {
        let load = ["--workload", pattern, "--tokens", "64", "--steps", "12"];
        let (page, _) = launched(folder.path(), &[&load[..], &["--self-test"]].concat());
        assert!(page.contains("self-test"), "{page}");
        assert!(page.contains("claimed"), "{page}");
    }
    let (page, report) = launched(
        folder.path(),
        &[&load[..], &["--force-routes", "balance"]].concat(),
    );
    assert!(page.contains("routes forced to balance"), "{page}");
    assert!((report.runs[0].balance.max_over_mean - 1.0).abs() < 1e-12);
    let forced = ["--self-test", "--force-routes", "balance"];
    let args = [&["launch"], &LAYER[..], &load, &forced].concat();
    let output = expertmesh().args(&args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("workload zipf:2: share of tokens"), "{said}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("not so"));
}

#[test]
fn files_that_cannot_be_used_are_told_by_place_and_field() {
    let (_folder, at) = folder();
    let write = |name: &str, content: &str| {
        std::fs::write(at(name), content).unwrap();
        at(name)
    };
    let bad = write(
        "bad.csv",
        "step,layer,token,slot,expert\n0,0,0,0,1\n0,0,0,1,x\n",
    );
    let stats = |file: &Path, words: &[&str]| {
        fails(2, &["trace", "stats", text(file)], words);
    };
    stats(&bad, &["bad.csv", "line 3", "expert is", "x"]);
    stats(&at("none.moetrace"), &["none.moetrace"]);
    stats(&write("bad.moetrace", "moetrace"), &["bad.moetrace"]);
    stats(&write("bad.jsonl", "{}\n"), &["bad.jsonl", "line 1"]);
    let good = write(
        "good.csv",
        "step,layer,token,slot,expert\n0,3,0,0,1\n0,3,0,1,0\n",
    );
    let convert = |out: &str, words: &[&str]| {
        fails(2, &["trace", "convert", text(&good), text(&at(out))], words);
    };
    convert(
        "out.json",
        &["out.json", "format is sglang, which is only read"],
    );
    convert(
        "out.txt",
        &["out.txt", "extension is txt", "moetrace, csv or parquet"],
    );
    convert("no/out.csv", &["out.csv", "no directory"]);
    let launch = |more: &[&str], words: &[&str]| {
        let args = [&["launch"], &LAYER[..], more].concat();
        fails(2, &args, words);
    };
    let replay = ["--trace", text(&good)];
    let with = |more: &[&'static str]| [&replay[..], more].concat();
    launch(
        &with(&["--top-k", "3"]),
        &["good.csv", "header: top_k is 2", "--top-k"],
    );
    launch(
        &with(&["--trace-layer", "4"]),
        &["is of layer 3", "layer 4"],
    );
    launch(&with(&["--layers", "2"]), &["--trace", "one layer"]);
    launch(&with(&["--workload", "zipf"]), &["--trace", "--workload"]);
    launch(
        &with(&["--force-routes", "balance"]),
        &["--force-routes is balance"],
    );
    launch(
        &["--force-routes", "replay"],
        &["nothing to replay", "--trace"],
    );
    launch(
        &["--record-trace", "routes.txt"],
        &["routes.txt", "extension is txt"],
    );
    launch(
        &["--self-test", "--layers", "2"],
        &["--self-test", "--layers asks for 2"],
    );
    let out = at("n.csv");
    let synth = ["trace", "synth", "--workload", "normal", text(&out)];
    fails(2, &synth, &["workload normal", "pattern"]);
    let many = ["trace", "synth", "--workload", "zipf", "--top-k", "9"];
    fails(
        2,
        &[&many[..], &[text(&out)]].concat(),
        &["top_k is 9, expected 1 to 8"],
    );
}

/// The commands of docs/traces.md, one after the other, in a folder with the files that it shows.
#[test]
fn the_commands_of_the_page_run() {
    let (folder, at) = folder();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/traces.md");
    let page = std::fs::read_to_string(page).unwrap();
    std::fs::write(at("loads.csv"), "90,132,40,61,104,165,39,4\n").unwrap();
    let line = r#"{"step": 0, "stage": "pre_dispatch", "block": "decoder", "layer": 3, "rank": 0,
 "num_tokens": 2, "topk": 2, "top_indices": [[1, 4], [0, 4]]}"#;
    std::fs::write(at("router_trace.jsonl"), line.replace('\n', "")).unwrap();
    // The page's paths are those of the checkout.
    let goldens = golden("mixtral");
    let goldens = text(goldens.parent().unwrap()).to_owned();
    let lines = page.replace("\\\n", " ");
    let lines = lines.replace("crates/testkit/goldens", &goldens);
    let commands = lines
        .lines()
        .filter_map(|line| line.strip_prefix("expertmesh "));
    let mut count = 0;
    for command in commands {
        let run = expertmesh()
            .current_dir(folder.path())
            .args(command.split_whitespace())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{command}: {said}");
        count += 1;
    }
    assert!(count >= 8, "{count} commands");
}
