//! What other systems record.

use super::*;

/// Two ranks, two steps, a layer without experts in between, and a predicted token's layer.
const RANK_0: &str = r#"{"step": 0, "stage": "pre_dispatch", "block": "decoder", "layer": 1, "rank": 0, "num_tokens": 2, "topk": 2, "top_indices": [[1, 4], [0, 4]]}
{"step": 0, "stage": "pre_dispatch", "block": "decoder", "layer": 3, "rank": 0, "num_tokens": 1, "topk": 2, "top_indices": [[2, 3]]}
{"step": 0, "stage": "pre_dispatch", "block": "mtp", "mtp_idx": 0, "layer": 1, "rank": 0, "num_tokens": 1, "topk": 2, "top_indices": [[0, 1]]}

{"step": 1, "stage": "pre_dispatch", "block": "decoder", "layer": 1, "rank": 0, "num_tokens": 0, "topk": 2, "top_indices": [], "hs_offset": 0}
"#;
const RANK_1: &str = r#"{"step": 0, "block": "decoder", "layer": 1, "rank": 1, "num_tokens": 1, "topk": 2, "top_indices": [[5, -1]]}
{"step": 0, "block": "decoder", "layer": 1, "rank": 1, "num_tokens": 1, "topk": 2, "top_indices": [[2, 0]]}
"#;

#[test]
fn the_ranks_of_megatron_are_joined() {
    let directory = tempfile::tempdir().unwrap();
    // The files come in the order of their names; ranks are joined in their own.
    std::fs::write(directory.path().join("a_rank1.jsonl"), RANK_1).unwrap();
    std::fs::write(directory.path().join("b_rank0.jsonl"), RANK_0).unwrap();
    std::fs::write(directory.path().join("logits_rank0.bin"), [0xff]).unwrap();
    let trace = Trace::read(directory.path()).unwrap();
    let header = trace.header();
    assert_eq!((header.experts, header.top_k, header.layers), (6, 2, 5));
    let layers: Vec<_> = trace.records().iter().map(|r| (r.step, r.layer)).collect();
    assert_eq!(layers, [(0, 1), (0, 3), (0, 4)]);
    let first = &trace.records()[0];
    assert_eq!(first.experts, [1, 4, 0, 4, 5, NO_CHOICE, 2, 0]);
    assert_eq!(first.ranks, Some(vec![0, 0, 1, 1]));

    let one = directory.path().join("b_rank0.jsonl");
    let options = ReadOptions {
        experts: Some(64),
        ..ReadOptions::default()
    };
    let trace = Trace::read_with(&one, &options).unwrap();
    assert_eq!((trace.header().experts, trace.records()[0].tokens), (64, 2));
}

#[test]
fn lines_that_contradict_themselves_are_refused() {
    let line = |topk: u32, tokens: u32, indices: &str| {
        format!(
            r#"{{"step":0,"layer":0,"rank":0,"num_tokens":{tokens},"topk":{topk},"top_indices":{indices}}}"#
        )
    };
    let good = line(2, 1, "[[0,1]]");
    for (second, expected) in [
        (
            line(2, 2, "[[0,1]]"),
            "line 2: top_indices is 1 tokens, expected 2, its num_tokens",
        ),
        (
            line(2, 1, "[[0,1,2]]"),
            "line 2, token 0: top_indices is 3 experts, expected 2",
        ),
        (
            line(1, 1, "[[0]]"),
            "line 2: topk is 1, expected 2, as in the first line",
        ),
        (
            line(2, 1, "[[0,-3]]"),
            "line 2, token 0: expert is -3, expected from 0, or -1",
        ),
        (line(2, 1, "[[0,0]]"), "expected each expert once a token"),
        (line(2, 1, "[[0,1.5]]"), "line 2: JSON is"),
        ("{\"step\":0}".to_owned(), "line 2: JSON is missing field"),
        (good[..good.len() - 4].to_owned(), "line 2: JSON is EOF"),
    ] {
        let error = complaint("a.jsonl", format!("{good}\n{second}\n"));
        assert!(error.contains(expected), "{error}");
    }
    assert!(complaint("a.jsonl", "\n").contains("records is 0, expected at least 1"));
}

#[test]
fn sglang_passes_become_steps() {
    let text = r#"{"format": "sglang-per-token", "records": [
        {"forward_pass_id": 8, "rank": 0, "input_ids": [11], "topk_ids_of_layer": [[[-1,-1]], [[4,0]]]},
        {"forward_pass_id": 5, "rank": 1, "input_ids": [12], "topk_ids_of_layer": [[[-1,-1]], [[1,-1]]]},
        {"forward_pass_id": 5, "rank": 0, "input_ids": [13, 14],
         "topk_ids_of_layer": [[[-1,-1],[-1,-1]], [[3,2],[0,3]]]}]}"#;
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.json", "a.dat"] {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        let trace = Trace::read(&path).unwrap();
        let header = trace.header();
        assert_eq!((header.experts, header.top_k, header.layers), (5, 2, 2));
        assert_eq!(trace.records().len(), 2, "the dense layer has none");
        let first = &trace.records()[0];
        assert_eq!((first.step, first.layer), (5, 1));
        assert_eq!(first.experts, [3, 2, 0, 3, 1, NO_CHOICE]);
        assert_eq!(first.ranks, Some(vec![0, 0, 1]));
        assert_eq!(first.token_ids, Some(vec![13, 14, 12]));
    }
    for (from, to, expected) in [
        (
            "[[4,0]]",
            "[[4,0],[1,2]]",
            "pass 8, rank 0, layer 1: topk_ids_of_layer is 2 tokens",
        ),
        (
            "[[4,0]]",
            "[[4]]",
            "pass 8, rank 0, layer 1, token 0: topk_ids_of_layer is 1 slots",
        ),
        (
            ", [[4,0]]",
            "",
            "pass 8, rank 0: topk_ids_of_layer is 1 layers, expected 2",
        ),
        (
            "[[4,0]]",
            "[[4,-7]]",
            "pass 8, layer 1, token 0: expert is -7",
        ),
        (
            "sglang-per-token",
            "sglang-stat",
            "format is \"sglang-stat\", expected one that knows tokens; `trace sample` makes",
        ),
        ("\"records\"", "\"passes\"", "records is missing"),
        ("]}]}", "", "JSON is EOF"),
    ] {
        let error = complaint("a.json", text.replace(from, to));
        assert!(error.contains(expected), "{error}");
    }
}

fn loads(name: &str, text: &str) -> Result<LoadMatrix, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    LoadMatrix::read(&path).map_err(|error| error.to_string())
}

#[test]
fn loads_are_read_from_csv_and_from_counts() {
    // The example of EPLB's README.
    let eplb =
        "90,132,40,61,104,165,39,4,73,56,183,86\n20,107,104,64,19,197,187,157,172,86,16,27\n";
    let matrix = loads("w.csv", eplb).unwrap();
    assert_eq!((matrix.layers, matrix.experts), (2, 12));
    assert_eq!(matrix.layer(1)[5], 197);
    assert!(matrix.layer(2).is_empty());
    let named = loads("w.csv", "e0, e1\n9.0e1, 3\n").unwrap();
    assert_eq!(named.counts, [90, 3]);
    let stat = r#"{"format": "sglang-stat", "logical_count": [[[1,2],[0,0]], [[3,4],[0,5]]]}"#;
    assert_eq!(loads("s.json", stat).unwrap().counts, [4, 6, 0, 5]);
    for (text, expected) in [
        ("1,2\n3\n", "layer 1: row is 1 experts long, expected 2"),
        ("1,-2\n", "line 1: load is \"-2\""),
        ("1,0.5\n", "expected a whole number"),
        ("1,1e30\n", "load is \"1e30\""),
        ("", "loads is 0 x 0"),
        ("{}", "JSON is missing field"),
        (
            r#"{"format":"sglang-stat","logical_count":[[[1]],[[1,2]]]}"#,
            "logical_count is [2]",
        ),
    ] {
        let error = loads("w.dat", text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_sample_of_steps_is_a_long_one_cut() {
    let matrix = LoadMatrix::new(&[vec![3, 1, 2, 2], vec![1, 1, 1, 1]]).unwrap();
    let one = matrix.sample(12, 2, 7).unwrap();
    let cut = matrix.sample_steps(3, 4, 2, 7).unwrap();
    assert_eq!((cut.steps(), cut.records().len()), (3, 6));
    // Layers share the order in which experts are laid out, so only the first is the same.
    let rows = (0..3).flat_map(|step| cut.layer(step, 0).unwrap().experts.clone());
    assert_eq!(rows.collect::<Vec<_>>(), one.records()[0].experts);
    assert!(matrix.sample_steps(0, 4, 2, 7).is_err());
}

#[test]
fn a_sample_has_the_loads_of_its_matrix() {
    let rows = [
        vec![90, 132, 40, 61, 104, 165, 39, 4],
        vec![0; 8],
        vec![1, 1, 0, 1, 0, 0, 0, 0],
    ];
    let matrix = LoadMatrix::new(&rows).unwrap();
    let (tokens, top_k) = (4000, 3);
    let trace = matrix.sample(tokens, top_k, 5).unwrap();
    assert_eq!(
        trace.records().len(),
        2,
        "a layer without load has no record"
    );
    for record in trace.records() {
        let row = matrix.layer(record.layer as usize);
        let sum = row.iter().sum::<u64>() as f64;
        for (expert, load) in (0..).zip(row) {
            let p = f64::from(top_k) * *load as f64 / sum;
            let held = record
                .experts
                .iter()
                .filter(|&&chosen| chosen == expert)
                .count() as f64;
            let deviation = (f64::from(tokens) * p * (1.0 - p)).sqrt();
            let off = (held - f64::from(tokens) * p).abs();
            assert!(off <= 5.0 * deviation, "expert {expert}: {held} of {p}");
        }
    }
    assert_eq!(trace, matrix.sample(tokens, top_k, 5).unwrap());
    assert_ne!(trace, matrix.sample(tokens, top_k, 6).unwrap());
    let error = matrix.sample(8, 4, 5).unwrap_err().to_string();
    assert!(
        error.contains("layer 0, expert 5: load is 165 of 635, expected at most 1/4"),
        "{error}"
    );
    assert!(matrix.sample(0, 2, 5).is_err());
    assert!(matrix.sample(1, 0, 5).is_err());
}
