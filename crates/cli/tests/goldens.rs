//! Real input, known answer: families through `expertmesh run`.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

#[path = "../../testkit/src/cases.rs"]
#[allow(unreachable_pub, reason = "public where it lives")]
mod cases;

use std::path::Path;

use cases::{CASES, SPECIAL, golden_layer};
use common::{fails, golden, stdout, text};
use expertmesh_checkpoint::TensorFile;

fn run(case: &str, output: &Path, more: &[&str]) -> TensorFile {
    let model = golden(case);
    let input = model.join("input.safetensors");
    let layer = golden_layer(case).to_string();
    let mut args = vec![
        "run",
        "--model",
        text(&model),
        "--layer",
        &layer,
        "--input",
        text(&input),
    ];
    args.extend(["--output", text(output)]);
    args.extend(more);
    stdout(&args);
    TensorFile::open(output).unwrap()
}

fn expected(case: &str) -> TensorFile {
    TensorFile::open(&golden(case).join("expected.safetensors")).unwrap()
}

fn f32s(file: &TensorFile, name: &str) -> (Vec<usize>, Vec<f32>) {
    file.f32(name).unwrap()
}

/// Experts of every token, ascending: slot order is not part of the reference.
fn sorted(file: &TensorFile, name: &str) -> Vec<Vec<i64>> {
    let (shape, values) = file.i64(name).unwrap();
    let rows = values.chunks_exact(shape[1]);
    rows.map(|row| {
        let mut row = row.to_vec();
        row.sort_unstable();
        row
    })
    .collect()
}

/// The largest difference, relative to the largest expected value.
fn worst(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let largest = expected
        .iter()
        .fold(0.0_f32, |max, value| max.max(value.abs()));
    let differences = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max) / largest
}

/// For every case on 1, 2 and 3 workers with both exchanges.
fn everywhere(dtype: &str, check: impl Fn(&str, &TensorFile, &TensorFile)) {
    let directory = tempfile::tempdir().unwrap();
    for case in CASES.iter().filter(|case| !SPECIAL.contains(case)) {
        let expected = expected(case);
        let mut first: Option<Vec<u8>> = None;
        for workers in ["1", "2", "3"] {
            for exchange in ["star", "all-to-all"] {
                let output = directory.path().join("out.safetensors");
                let more = [
                    "--workers",
                    workers,
                    "--exchange",
                    exchange,
                    "--dtype",
                    dtype,
                ];
                let got = run(case, &output, &more);
                check(case, &got, &expected);
                let bytes = std::fs::read(&output).unwrap();
                let first = first.get_or_insert_with(|| bytes.clone());
                assert_eq!(*first, bytes, "{case}: {workers} workers, {exchange}");
            }
        }
    }
}

#[test]
fn f32_agrees_with_the_reference() {
    everywhere("f32", |case, got, expected| {
        let (shape, output) = f32s(got, "output");
        let (expected_shape, reference) = f32s(expected, "f32.output");
        assert_eq!(shape, expected_shape, "{case}");
        let off = worst(&output, &reference);
        assert!(off <= 2e-5, "{case}: off by {off}");
        assert_eq!(
            sorted(got, "topk_index"),
            sorted(expected, "f32.topk_index"),
            "{case}"
        );
        assert_eq!(
            sorted(got, "executed_expert"),
            sorted(expected, "f32.topk_index"),
            "{case}"
        );
        let off = worst(
            &f32s(got, "router_logits").1,
            &f32s(expected, "f32.router_logits").1,
        );
        assert!(off <= 2e-5, "{case}: logits off by {off}");
        let weights = |values: Vec<f32>| {
            let mut values = values;
            values.sort_by(f32::total_cmp);
            values
        };
        let off = worst(
            &weights(f32s(got, "topk_weight").1),
            &weights(f32s(expected, "f32.topk_weight").1),
        );
        assert!(off <= 2e-5, "{case}: weights off by {off}");
        let (_, fates) = got.u8("fate").unwrap();
        assert!(fates.iter().all(|fate| *fate == 0), "{case}");
        let losses = ["aux.load_balancing_loss", "aux.load_balancing_loss_masked"];
        for aux in losses.into_iter().filter(|aux| expected.contains(aux)) {
            let (got, expected) = (f32s(got, aux), f32s(expected, aux));
            assert_eq!(got.0, expected.0, "{case}: {aux}");
            let off = worst(&got.1, &expected.1);
            assert!(off <= 1e-5, "{case}: {aux} off by {off}");
        }
    });
}

#[test]
fn bf16_rounds_where_the_reference_rounds() {
    everywhere("bf16", |case, got, expected| {
        let (_, output) = f32s(got, "output");
        // Where there is no other, the loop that rounds after each expert is the reference.
        let name = "bf16.output_grouped_mm";
        let looped = !expected.contains(name);
        let (_, reference) = f32s(expected, if looped { "bf16.output" } else { name });
        let off = worst(&output, &reference);
        assert!(off <= 3e-2, "{case}: off by {off}");
        let round = expertmesh_kernels::f32_to_bf16;
        let pairs = output.iter().zip(&reference);
        let equal = pairs.filter(|(a, b)| round(**a) == round(**b)).count();
        let share = equal as f64 / output.len() as f64;
        let least = if looped { 0.7 } else { 0.9 };
        assert!(share >= least, "{case}: {share} of the elements are equal");
        assert_eq!(
            sorted(got, "topk_index"),
            sorted(expected, "bf16.topk_index"),
            "{case}"
        );
    });
}

#[test]
fn masks_and_capacity_decide_fates() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("in.safetensors");
    let source = TensorFile::open(&golden("mixtral").join("input.safetensors")).unwrap();
    let (shape, rows) = source.f32("hidden_states").unwrap();
    let mut padding = vec![0_u8; 24];
    padding[3] = 1;
    padding[23] = 1;
    let tensor = |name, shape: &[usize], data| expertmesh_checkpoint::NamedTensor {
        name,
        shape: shape.to_vec(),
        data,
    };
    let tensors = [
        tensor(
            "hidden_states",
            &shape,
            expertmesh_checkpoint::TensorData::F32(&rows),
        ),
        tensor(
            "padding_mask",
            &[24],
            expertmesh_checkpoint::TensorData::U8(&padding),
        ),
    ];
    expertmesh_checkpoint::write(&input, &tensors).unwrap();
    let (output, report) = (
        directory.path().join("out.safetensors"),
        directory.path().join("report.json"),
    );
    let model = golden("mixtral");
    let page = stdout(&[
        "run",
        "--model",
        text(&model),
        "--layer",
        "1",
        "--input",
        text(&input),
        "--output",
        text(&output),
        "--report",
        text(&report),
        "--workers",
        "3",
        "--capacity-factor",
        "0.5",
    ]);
    assert!(page.contains("4 skipped"), "{page}");
    let got = TensorFile::open(&output).unwrap();
    assert!(
        !got.contains("aux.load_balancing_loss_masked"),
        "no attention mask was given"
    );
    let (_, fates) = got.u8("fate").unwrap();
    let (_, executed) = got.i64("executed_expert").unwrap();
    let (_, chosen) = got.i64("topk_index").unwrap();
    for (choice, fate) in fates.iter().enumerate() {
        assert_eq!(*fate == 3, padding[choice / 2] == 1, "choice {choice}");
        let ran = if *fate == 0 { chosen[choice] } else { -1 };
        assert_eq!(executed[choice], ran, "choice {choice}");
    }
    let (_, values) = got.f32("output").unwrap();
    let skipped = &values[3 * 32..4 * 32];
    assert!(
        skipped.iter().all(|value| *value == 0.0),
        "padding adds nothing"
    );
    let run = &common::report(&report).runs[0];
    assert_eq!(run.overflow.skipped, 4);
    assert!(run.overflow.dropped > 0);
    assert!(run.losses.contains_key("load_balancing_loss"));
    run.overflow.check_conservation().unwrap();
}

#[test]
fn a_run_replays_what_a_run_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (model, trace) = (golden("mixtral"), at("routes.moetrace"));
    let (first, second) = (at("first.safetensors"), at("second.safetensors"));
    let input = model.join("input.safetensors");
    let layer = ["run", "--model", text(&model), "--layer", "1", "--input"];
    let layer = [&layer[..], &[text(&input), "--workers", "2", "--output"]].concat();
    let once = |output: &Path, more: &[&str]| {
        stdout(&[&layer[..], &[text(output)], more].concat());
        std::fs::read(output).unwrap()
    };
    let recorded = once(&first, &["--record-trace", text(&trace)]);
    let replay = ["--trace", text(&trace)];
    let replayed = once(&second, &[&replay[..], &["--exchange", "star"]].concat());
    let tensors =
        [&recorded, &replayed].map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    for name in ["output", "topk_index", "topk_weight", "aux.switch_loss"] {
        let [before, after] = [0, 1].map(|at| tensors[at].tensor(name).unwrap().data());
        assert_eq!(before, after, "{name}");
    }
    // Other choices come to another output, and are what the tables say.
    let other = at("other.csv");
    let tokens = tensors[0].tensor("topk_index").unwrap().shape()[0];
    let turn = |token: usize| format!("0,1,,{token},0,{},\n0,1,,{token},1,7,\n", token % 7);
    let lines: String = (0..tokens).map(turn).collect();
    let head = "step,layer,src_rank,token,slot,expert,weight\n";
    std::fs::write(&other, format!("{head}{lines}")).unwrap();
    let replayed = once(&second, &["--trace", text(&other)]);
    let replayed = safetensors::SafeTensors::deserialize(&replayed).unwrap();
    let index = replayed.tensor("topk_index").unwrap().data();
    let index: Vec<u8> = index.chunks_exact(4).map(|word| word[0]).collect();
    let asked: Vec<u8> = (0..tokens as u8).flat_map(|at| [at % 7, 7]).collect();
    assert_eq!(index, asked);

    std::fs::write(&other, format!("{head}{}", turn(0))).unwrap();
    let wrong = [&layer[..], &[text(&second), "--trace", text(&other)]].concat();
    let expected = format!("expected {tokens}, as");
    fails(2, &wrong, &["tokens of its first step is 1", &expected]);
    let wrong = [&layer[..], &[text(&second), "--trace", "nowhere.csv"]].concat();
    fails(2, &wrong, &["nowhere.csv: No such file"]);
}
