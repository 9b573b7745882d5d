//! Lanes as a file and in a trace viewer, matrices for other tools.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail their test")]

mod common;

use std::collections::BTreeMap;

use common::run;
use expertmesh_report::{NcclMatrix, Ranks, ReportError, lanes_json, parse_lanes, perfetto};
use expertmesh_telemetry::{ExchangeKind, Lane, Phase, Trace};
use serde_json::Value;

/// Two workers, `steps` steps from number `first`, each chunk there and back.
fn trace(first: u64, steps: u64, predicted: bool, hostile: &str) -> Trace {
    let names = ["coordinator", "worker-0", hostile].map(str::to_owned);
    let mut trace = Trace::new(&names);
    for step in first..first + steps {
        let start = 5_000_000_000_000_123 + step * 1_000_000;
        let mut push = |endpoint, phase, peer, from: u64, to: u64, bytes| {
            trace.lanes.push(Lane {
                endpoint,
                phase,
                step,
                begin_ns: start + from,
                end_ns: start + to,
                peer,
                bytes,
                predicted,
            });
        };
        push(0, Phase::Gate, None, 0, 1_001, 0);
        push(0, Phase::Plan, None, 1_001, 1_500, 0);
        for host in [1, 2] {
            let late = u64::from(host) * 100;
            push(
                0,
                Phase::Pack,
                Some(host),
                1_500 + late,
                1_600 + late,
                4_096,
            );
            push(
                0,
                Phase::Send,
                Some(host),
                1_600 + late,
                3_000 + late,
                4_096,
            );
            push(host, Phase::Queue, Some(0), 3_000 + late, 3_010 + late, 0);
            push(host, Phase::Experts, Some(0), 3_010 + late, 9_000, 0);
            push(host, Phase::Return, Some(0), 9_000, 9_500 + late, 8_192);
        }
        push(0, Phase::Combine, None, 9_700, 10_000, 0);
    }
    trace
}

fn events(trace: &Trace) -> Vec<Value> {
    let value: Value = serde_json::from_str(&perfetto(trace)).unwrap();
    value["traceEvents"].as_array().unwrap().clone()
}

fn nanoseconds(event: &Value, field: &str) -> u64 {
    let us = event[field].as_f64().unwrap();
    assert!(us >= 0.0);
    format!("{:.0}", us * 1000.0).parse().unwrap()
}

#[test]
fn lanes_read_back_equal_and_wrong_ones_are_named() {
    let traces = vec![trace(0, 2, false, "worker-1"), Trace::default()];
    let text = lanes_json(&traces).unwrap();
    assert_eq!(parse_lanes(&text).unwrap(), traces);
    let other = text.replace("lanes/1", "lanes/2");
    assert!(matches!(
        parse_lanes(&other),
        Err(ReportError::Schema { .. })
    ));
    let beyond = text.replacen("\"endpoint\":2", "\"endpoint\":3", 1);
    let error = parse_lanes(&beyond).unwrap_err().to_string();
    assert!(
        error.contains("endpoint is 3, expected less than 3"),
        "{error}"
    );
    assert!(parse_lanes("[]").is_err());
}

#[test]
fn every_lane_is_an_event_with_all_that_a_viewer_needs() {
    let trace = trace(7, 3, false, "worker-1");
    let events = events(&trace);
    let slices: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(slices.len(), trace.lanes.len());
    let mut took: u64 = 0;
    let mut ends: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for slice in &slices {
        let place = (
            slice["pid"].as_u64().unwrap(),
            slice["tid"].as_u64().unwrap(),
        );
        let (begin, dur) = (nanoseconds(slice, "ts"), nanoseconds(slice, "dur"));
        took += dur;
        // A thread does one thing at a time.
        let end = ends.entry(place).or_default();
        assert!(*end <= begin, "{slice}");
        *end = begin + dur;
    }
    // To the nanosecond, though the clock stands at 5 · 10¹⁵.
    assert_eq!(took, trace.lanes.iter().map(Lane::duration_ns).sum::<u64>());
    for (pid, tid) in ends.keys() {
        for (name, tid) in [("process_name", 0), ("thread_name", *tid)] {
            let named = events
                .iter()
                .any(|event| event["name"] == name && event["pid"] == *pid && event["tid"] == tid);
            assert!(named, "{name} of {pid} {tid}");
        }
    }
}

#[test]
fn arrows_go_from_a_send_over_the_experts_to_the_sum() {
    let events = events(&trace(0, 2, false, "worker-1"));
    let mut flows: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for event in &events {
        if let Some(id) = event.get("id") {
            flows.entry(id.as_u64().unwrap()).or_default().push(event);
        }
    }
    assert_eq!(flows.len(), 4);
    for points in flows.values() {
        let kinds: Vec<_> = points
            .iter()
            .map(|event| event["ph"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["s", "t", "t", "f"]);
        assert!(points.is_sorted_by_key(|event| nanoseconds(event, "ts")));
        let names: Vec<_> = points
            .iter()
            .map(|point| {
                // Each point lies in a slice of its thread.
                let at = nanoseconds(point, "ts");
                let slice = events.iter().find(|event| {
                    event["ph"] == "X"
                        && event["pid"] == point["pid"]
                        && event["tid"] == point["tid"]
                        && nanoseconds(event, "ts") == at
                });
                slice.unwrap()["name"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(names, ["send", "experts", "return", "combine"]);
    }
}

#[test]
fn predictions_stand_beside_what_was_measured() {
    let mut both = trace(50, 2, false, "worker-1");
    let mut predicted = trace(0, 2, true, "worker-1");
    predicted
        .lanes
        .iter_mut()
        .for_each(|lane| lane.begin_ns -= 4_000_000_000_000_000);
    predicted
        .lanes
        .iter_mut()
        .for_each(|lane| lane.end_ns -= 4_000_000_000_000_000);
    both.merge(&predicted).unwrap();
    let events = events(&both);
    let gates = |category: &str| -> Vec<u64> {
        let gates = events
            .iter()
            .filter(|event| event["name"] == "gate" && event["cat"] == category);
        gates.map(|event| nanoseconds(event, "ts")).collect()
    };
    assert_eq!(gates("measured"), [0, 1_000_000]);
    assert_eq!(gates("predicted"), gates("measured"));
    let names: Vec<_> = events
        .iter()
        .filter(|event| event["name"] == "process_name")
        .collect();
    assert_eq!(names.len(), 6);
    assert!(
        names
            .iter()
            .any(|event| event["args"]["name"] == "worker-0 (predicted)")
    );
}

#[test]
fn hostile_names_stay_names() {
    let hostile = "\"}],\u{202e}\n<script>";
    let events = events(&trace(0, 1, false, hostile));
    let name = events.iter().find_map(|event| {
        let name = event["args"]["name"].as_str()?;
        name.contains("script").then_some(name)
    });
    assert_eq!(name, Some("\"}],\u{fffd}\u{fffd}<script>"));
}

#[test]
fn the_nccl_matrix_is_the_mean_step_rounded_up_to_16() {
    let run = run(ExchangeKind::AllToAll, 3, 4, 100);
    let matrix = NcclMatrix::of(&run, Ranks::Endpoints).unwrap();
    let rows: Vec<Vec<u64>> = matrix
        .text()
        .lines()
        .map(|line| {
            line.split_whitespace()
                .map(|cell| cell.parse().unwrap())
                .collect()
        })
        .collect();
    assert_eq!(rows, matrix.cells);
    for (row, totals) in rows.iter().zip(&run.communication.matrix_bytes) {
        for (cell, total) in row.iter().zip(totals) {
            let mean = total.div_ceil(4);
            assert!(cell % 16 == 0 && *cell >= mean && *cell < mean + 16);
        }
    }
    // These cells are multiples of 16 themselves.
    let sum = |matrix: &[Vec<u64>]| matrix.iter().flatten().sum::<u64>();
    assert_eq!(sum(&rows) * 4, sum(&run.communication.matrix_bytes));
    let most = rows.iter().map(|row| row.iter().sum::<u64>()).max();
    assert!(most.is_some_and(|most| matrix.largest() >= most));
    let workers = NcclMatrix::of(&run, Ranks::Workers).unwrap();
    assert_eq!(workers.cells.len(), 3);
    assert_eq!(workers.cells[0], matrix.cells[1][1..]);
}

#[test]
fn workers_of_a_star_have_nothing_to_trade() {
    let run = run(ExchangeKind::Star, 3, 4, 100);
    assert!(NcclMatrix::of(&run, Ranks::Endpoints).is_ok());
    let error = NcclMatrix::of(&run, Ranks::Workers)
        .unwrap_err()
        .to_string();
    assert!(error.contains("take all endpoints"), "{error}");
}
