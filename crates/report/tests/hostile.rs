//! Reports and lanes that nobody should trust: refused in a sentence, or drawn; never a panic, never a
//! page that does not end.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail their test")]

mod common;

use common::{report, run};
use expertmesh_report::{
    NcclMatrix, Ranks, chakra, html, parse, parse_lanes, perfetto, side_by_side, terminal,
};
use expertmesh_telemetry::{ExchangeKind, Report};
use serde_json::{Value, json};

fn sound() -> Value {
    serde_json::to_value(report(vec![run(ExchangeKind::AllToAll, 2, 30, 100)])).unwrap()
}

/// What `change` makes of a sound report, read.
fn read(pointer: &str, value: Value) -> Result<Report, String> {
    let mut whole = sound();
    *whole.pointer_mut(pointer).unwrap() = value;
    parse(&whole.to_string()).map_err(|error| error.to_string())
}

/// Everything that a report can be turned into.
fn draw(report: &Report) {
    terminal(report);
    html(report, &[]).unwrap();
    side_by_side(report, &[]);
    for run in &report.runs {
        let _ =
            NcclMatrix::of(run, Ranks::Endpoints).map(|matrix| (matrix.text(), matrix.largest()));
        let _ = chakra(run, None);
    }
}

#[test]
fn lists_that_do_not_belong_together_are_named() {
    let cases = [
        (
            "/runs/0/latency_us/distribution/step",
            json!({"counts": [1], "edges": []}),
            "runs[0].latency_us.distribution.step.edges has 0 entries, expected 2, one more than counts",
        ),
        (
            "/runs/0/latency_us/distribution/step",
            json!({"counts": [1, 2], "edges": [1.0, 3.0, 2.0]}),
            "runs[0].latency_us.distribution.step.edges[2] is 2, expected more than 3",
        ),
        (
            "/runs/0/latency_us/distribution/step",
            json!({"counts": [1], "edges": [-1.0, 3.0]}),
            "edges[0] is -1, expected at least 0",
        ),
        (
            "/runs/0/latency_us/step/min",
            json!(1e9),
            "runs[0].latency_us.step.min is 1000000000, expected at most max",
        ),
        (
            "/runs/0/latency_us/phases/send/p50",
            json!(-3.5),
            "runs[0].latency_us.phases.send.p50 is -3.5, expected at least 0",
        ),
        (
            "/runs/0/communication/matrix_bytes",
            json!([[0, 1], [1, 0]]),
            "runs[0].communication.matrix_bytes has 2 entries, expected 3, one for each endpoint",
        ),
        (
            "/runs/0/communication/matrix_bytes/1",
            json!([0]),
            "runs[0].communication.matrix_bytes[1] has 1 entries, expected 3",
        ),
        (
            "/runs/0/identity/endpoints",
            json!(["coordinator"]),
            "runs[0].communication.matrix_bytes has 3 entries, expected 1",
        ),
        (
            "/runs/0/identity/endpoints",
            json!([]),
            "runs[0].communication.matrix_bytes has 3 entries, expected 0",
        ),
        (
            "/runs/0/overflow/capacity_factor",
            json!(-1),
            "runs[0].overflow.capacity_factor is -1, expected at least 0",
        ),
        (
            "/runs/0/bands",
            json!({"latency_us.step.p50": [2.0, 1.0]}),
            "runs[0].bands.latency_us.step.p50 is [2, 1], expected the lower end first",
        ),
    ];
    for (pointer, value, sentence) in cases {
        let error = read(pointer, value).unwrap_err();
        assert!(error.contains(sentence), "{error}");
        assert!(
            error.ends_with("give a file that --report wrote"),
            "{error}"
        );
    }
}

/// Paths of all values below `value`.
fn paths(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                paths(field, &format!("{at}/{name}"), all);
            }
        }
        // The first two of a list stand for the others.
        Value::Array(list) => {
            for (place, one) in list.iter().take(2).enumerate() {
                paths(one, &format!("{at}/{place}"), all);
            }
        }
        _ => {}
    }
}

#[test]
fn whatever_one_field_holds_the_pages_end() {
    let whole = sound();
    let mut all = Vec::new();
    paths(&whole["runs"], "/runs", &mut all);
    let mut drawn = 0;
    for path in &all {
        let others = match whole.pointer(path).unwrap() {
            Value::Number(_) => vec![
                json!(0),
                json!(-1),
                json!(u64::MAX),
                json!(1e300),
                json!(1e-300),
            ],
            Value::Array(_) => vec![json!([]), json!([[]]), json!([0])],
            Value::Object(_) => vec![json!({}), json!({"new": {}})],
            Value::String(_) => vec![json!(""), json!("\u{1b}[2J<script>")],
            _ => vec![json!(1e300), json!(0), Value::Null],
        };
        for other in others {
            if let Ok(report) = read(path, other) {
                draw(&report);
                drawn += 1;
            }
        }
    }
    assert!(drawn > 100, "{drawn} of {} fields", all.len());
}

#[test]
fn moments_at_the_end_of_time_are_drawn() {
    let lane = |step: u64, begin: u64, end: u64, predicted: bool| {
        json!({
            "endpoint": 0, "phase": "gate", "step": step, "begin_ns": begin, "end_ns": end,
            "predicted": predicted
        })
    };
    let lanes = [
        lane(0, 0, u64::MAX, false),
        lane(1, u64::MAX, u64::MAX, false),
        lane(7, 5, u64::MAX, true),
        lane(8, 0, u64::MAX, true),
        lane(8, u64::MAX - 1, u64::MAX, true),
    ];
    let file = json!({
        "schema": "expertmesh.lanes/1",
        "runs": [{"endpoints": ["a", "b", "c"], "lanes": lanes}]
    });
    let traces = parse_lanes(&file.to_string()).unwrap();
    let steps: Value = serde_json::from_str(&perfetto(&traces[0])).unwrap();
    assert!(steps["traceEvents"].as_array().unwrap().len() > lanes.len());
    let report = report(vec![run(ExchangeKind::Star, 2, 3, 100)]);
    html(&report, &side_by_side(&report, &traces)).unwrap();
}
