//! Documents that state what the code does, held against the code.

use std::collections::{BTreeMap, BTreeSet};

use expertmesh_kernels::Format;
use expertmesh_telemetry::{
    CombineKind, Environment, ExchangeChoice, ExchangeKind, ExpertOverflow, Identity, Load,
    Network, Report, Run, RunRecorder, Shape, Source, StepRecord,
};
use expertmesh_wire::{
    BufferPool, FrameKind, FrameWriter, GRPC_PREFIX, Header, Tag, Times, encoded_len,
};
use serde_json::Value;

use crate::{none, root};

fn document(name: &str) -> String {
    std::fs::read_to_string(root().join("docs").join(name)).unwrap()
}

// === protocol.md: the header of a frame ===

/// First byte of the header in a frame: prefix, key and length stand before it.
const HEADER_AT: usize = GRPC_PREFIX + 2;

/// A row of the table: field, key, offset of its value, width.
fn header_row(line: &str) -> Option<(String, Vec<u8>, usize, usize)> {
    let mut cells = line.trim_matches('|').split('|').map(str::trim);
    let field = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
    let key = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
    let key: Option<Vec<u8>> = key
        .split(' ')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    let offset = cells.next()?.parse().ok()?;
    let width = cells.next()?.parse().ok()?;
    Some((field.to_owned(), key?, offset, width))
}

/// A header whose fields all hold another value, with these values by name.
fn sample_header() -> (Header, Vec<(&'static str, u64)>) {
    let tag = Tag {
        session: 0x1122_3344_5566_7788,
        epoch: 21,
        step: 22,
        layer: 23,
        shard: 24,
        chunk: 25,
        attempt: 26,
    };
    let mut header = Header::new(FrameKind::Results, tag, 3, Format::Bf16);
    header.row_count = 27;
    header.extent = 28;
    header.budget_ns = 29;
    header.times = Times {
        received_ns: 30,
        started_ns: 31,
        computed_ns: 32,
        sent_ns: 33,
    };
    let values = vec![
        ("kind", FrameKind::Results as u64),
        ("session", tag.session),
        ("epoch", 21),
        ("step", 22),
        ("layer", 23),
        ("shard", 24),
        ("chunk", 25),
        ("attempt", 26),
        ("row_count", 27),
        ("hidden", 3),
        ("format", 2),
        ("extent", 28),
        ("budget_ns", 29),
        ("received_ns", 30),
        ("started_ns", 31),
        ("computed_ns", 32),
        ("sent_ns", 33),
    ];
    (header, values)
}

/// What the table says of the frame that is not so.
fn wrong_rows(table: &str, frame: &[u8], values: &[(&str, u64)]) -> Vec<String> {
    let rows: Vec<_> = table.lines().filter_map(header_row).collect();
    let mut complaints = Vec::new();
    for (field, value) in values {
        let Some((_, key, offset, width)) = rows.iter().find(|(name, ..)| name == field) else {
            complaints.push(format!("`{field}` is not in the table"));
            continue;
        };
        let at = HEADER_AT + offset;
        if frame[at - key.len()..at] != key[..] {
            complaints.push(format!("`{field}` has another key at {offset}"));
        }
        if frame[at..at + width] != value.to_le_bytes()[..*width] {
            complaints.push(format!("`{field}` is not at {offset}"));
        }
    }
    complaints
}

#[test]
fn protocol_md_has_the_header_as_it_is() {
    let (header, values) = sample_header();
    let mut writer = FrameWriter::new(&BufferPool::default(), &header, 0, 0);
    writer.set_header(&header);
    let frame = writer.finish();
    let table = document("protocol.md");
    none(wrong_rows(&table, &frame, &values));

    let moved = table.replace("| `0d` | 1 |", "| `0d` | 2 |");
    assert_eq!(wrong_rows(&moved, &frame, &values).len(), 2);
    let renamed = table.replace("| `chunk` |", "| `chunks` |");
    assert_eq!(
        wrong_rows(&renamed, &frame, &values),
        ["`chunk` is not in the table"]
    );
}

#[test]
fn protocol_md_has_the_length_as_it_is() {
    assert!(
        document("protocol.md").contains("length(w, r) = 126 + 1 + v(4w) + 4w + 1 + v(r) + r\n")
    );
    let v = |n: usize| match n {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    };
    for (w, r) in [(0, 0), (1, 127), (31, 128), (32, 16_384), (5000, 3_000_000)] {
        let length = 126 + 1 + v(4 * w) + 4 * w + 1 + v(r) + r;
        assert_eq!(encoded_len(w, r), length, "{w} words, {r} bytes");
    }
}

// === report.md: every key of the report ===

/// A report that has every field.
fn sample_report() -> Report {
    let mut recorder = RunRecorder::new(&["coordinator".to_owned(), "worker-0".to_owned()]);
    let step = StepRecord {
        step_ns: 10,
        exchange_ns: 8,
        clock_error_ns: 1,
        matrix: vec![vec![0, 1], vec![1, 0]],
        choices_per_worker: vec![1],
        ..StepRecord::default()
    };
    recorder.record(&step).unwrap();
    recorder.floor(5);
    let expert = ExpertOverflow {
        assigned: 1,
        computed: 1,
        ..ExpertOverflow::default()
    };
    recorder.overflow(&[expert], None, Some(1.0)).unwrap();
    let identity = Identity {
        seed: 0,
        model: String::new(),
        shape: Some(Shape {
            tokens: 1,
            hidden: 1,
            ffn: 1,
            experts: 1,
            top_k: 1,
            expert: String::new(),
            dtype: String::new(),
            wire_dtype: String::new(),
        }),
        placement_digest: String::new(),
        workload: String::new(),
        exchange: ExchangeKind::AllToAll,
        groups: Vec::new(),
        combine: CombineKind::Exact,
        workers: 1,
        endpoints: Vec::new(),
        numerics: String::new(),
    };
    let run = recorder.finish(identity, Load::closed(1, 0, 1.0), Source::Measured, None);
    let mut report = Report::new(Environment {
        version: String::new(),
        cores: 1,
        kernel: String::new(),
        network: Network::Loopback,
        topology: None,
        os: Some(String::new()),
        cpu: Some(String::new()),
    });
    report.runs.push(Run {
        exchange_choice: Some(ExchangeChoice {
            costs: String::new(),
            predicted_us: BTreeMap::new(),
            passed_over: BTreeMap::from([("star".to_owned(), String::new())]),
            verdict: String::new(),
        }),
        ..run
    });
    report
}

/// Keys of every object in `value`; those of `source` are paths, not names.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                found.insert(key.clone());
                if key != "source" {
                    keys(value, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

fn undocumented(document: &str, report: &Value) -> Vec<String> {
    let mut found = BTreeSet::new();
    keys(report, &mut found);
    let words = |c: char| !(c.is_alphanumeric() || c == '_');
    let said: BTreeSet<&str> = document.split(words).collect();
    found.retain(|key| !said.contains(key.as_str()));
    found
        .into_iter()
        .map(|key| format!("`{key}` is not in report.md"))
        .collect()
}

#[test]
fn report_md_has_every_key() {
    let report = serde_json::to_value(sample_report()).unwrap();
    none(undocumented(&document("report.md"), &report));
    let more = serde_json::json!({"runs": [{"a_new_figure": 1}]});
    let complaints = undocumented(&document("report.md"), &more);
    assert_eq!(complaints, ["`a_new_figure` is not in report.md"]);
}
