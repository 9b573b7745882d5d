use std::collections::BTreeMap;

use expertmesh_telemetry::{
    CombineKind, ExchangeKind, ExpertOverflow, Identity, Load, OverflowReport, RunRecorder, Source,
};

use super::*;
use crate::WIDTH;
use crate::svg::ticks;

fn run(policy: &str, factor: Option<f64>, dropped: u64, error: f64) -> Run {
    let identity = Identity {
        seed: 0,
        model: "synthetic".to_owned(),
        shape: None,
        placement_digest: String::new(),
        workload: "hot:0.5".to_owned(),
        exchange: ExchangeKind::Star,
        groups: Vec::new(),
        combine: CombineKind::Exact,
        workers: 2,
        endpoints: Vec::new(),
        numerics: String::new(),
    };
    let digest = Some(format!("{error}"));
    let mut run =
        RunRecorder::new(&[]).finish(identity, Load::closed(1, 0, 1.0), Source::Measured, digest);
    let expert = ExpertOverflow {
        assigned: 100,
        computed: 100 - dropped,
        dropped,
        assigned_gate_weight: 50.0,
        lost_gate_weight: dropped as f64 / 2.0,
        ..ExpertOverflow::default()
    };
    run.overflow = OverflowReport {
        policy: Some(policy.to_owned()),
        ..OverflowReport::of(vec![expert], factor, None)
    };
    run.communication.payload_bytes = 1000 - 2 * dropped;
    run.losses = BTreeMap::from([("output_error".to_owned(), error)]);
    run
}

fn page(runs: &[Run]) -> OverflowPage<'_> {
    let rows = runs.iter().enumerate().map(|(at, run)| OverflowRow {
        run,
        step_p50_us: Some(1500.0),
        ratios: Some([0.9, 1.0 + at as f64 / 100.0, 1.1]),
    });
    OverflowPage {
        title: "overflow: a < b & \"c\"".to_owned(),
        notes: vec!["a note".to_owned()],
        rows: rows.collect(),
    }
}

#[test]
fn the_table_has_a_line_in_each_half_and_fits_the_page() {
    let runs = [
        run("dropless", None, 0, 0.0),
        run("drop-position+renormalise", Some(1.25), 25, 0.5),
        run("spill", Some(1.25), 0, 0.0),
    ];
    let table = page(&runs).table();
    for policy in ["dropless", "drop-position+renormalise", "spill"] {
        let count = table
            .lines()
            .filter(|line| line.trim_start().starts_with(policy))
            .count();
        assert_eq!(count, 2, "{policy} in\n{table}");
    }
    for line in table.lines() {
        assert!(line.chars().count() <= WIDTH, "{line}");
    }
    let dropped = table
        .lines()
        .find(|line| line.contains("+renormalise"))
        .unwrap();
    assert!(
        dropped.contains("1.25") && dropped.contains("25.0 %"),
        "{dropped}"
    );
    let costs = table
        .lines()
        .filter(|line| line.contains("+renormalise"))
        .nth(1)
        .unwrap();
    assert!(
        costs.contains("-5.0 %") && costs.ends_with("other"),
        "{costs}"
    );
    let spill = table
        .lines()
        .filter(|line| line.starts_with("  spill "))
        .nth(1)
        .unwrap();
    assert!(spill.ends_with("same"), "{spill}");
}

/// Tags that open and close in pairs, and no bare `&`.
fn check_xml(text: &str) {
    let mut open = Vec::new();
    for part in text.split('<').skip(1) {
        let (tag, after) = part.split_once('>').unwrap();
        assert!(!after.contains('>'), "{part}");
        let name = |tag: &str| tag.split([' ', '\n']).next().unwrap().to_owned();
        match tag {
            _ if tag.starts_with('?') || tag.ends_with('/') => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name(&tag[1..]))),
            _ => open.push(name(tag)),
        }
        for entity in part.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;"];
            assert!(
                known.iter().any(|known| entity.starts_with(known)),
                "{part}"
            );
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_picture_is_xml_that_names_every_policy_in_both_panels() {
    let runs = [
        run("dropless", None, 0, 0.0),
        run("drop-position", Some(1.0), 25, 0.5),
        run("a<b>&c", Some(1.0), 10, 0.2),
        run("spill", Some(1.0), 0, 0.0),
    ];
    let svg = page(&runs).svg();
    check_xml(&svg);
    for label in [
        "dropless",
        "drop-position ×1",
        "a&lt;b&gt;&amp;c ×1",
        "spill ×1",
    ] {
        let count = svg.matches(&format!(">{label}</text>")).count();
        assert_eq!(count, 2, "{label} in\n{svg}");
    }
    assert!(svg.contains("output error") && svg.contains("ratio to dropless"));
    assert!(svg.contains(">dropped</text>") && !svg.contains(">lost</text>"));
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    // Nothing to show is a picture too.
    check_xml(&page(&[]).svg());
}

#[test]
fn labels_of_marks_that_crowd_do_not_meet() {
    let marks: Vec<((f64, f64), String)> = (0..12)
        .map(|at| ((20.0 + f64::from(at % 2), 200.0), format!("a label {at}")))
        .collect();
    let places = marks::places(&marks, (0.0, 400.0), (0.0, 400.0));
    for (at, one) in places.iter().enumerate() {
        assert!(one.left >= 0.0 && one.right <= 400.0);
        for other in &places[..at] {
            let apart = (one.middle - other.middle).abs() >= 13.0
                || one.right < other.left
                || other.right < one.left;
            assert!(apart, "{one:?} {other:?}");
        }
    }
}

#[test]
fn ticks_are_round_and_hold_the_range() {
    for (low, high, expected) in [
        (0.0, 1.0, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.93, 1.31, vec![0.9, 1.0, 1.1, 1.2, 1.3, 1.4]),
    ] {
        let ticks = ticks(low, high, 5);
        let near = ticks
            .iter()
            .zip(&expected)
            .all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(near && ticks.len() == expected.len(), "{ticks:?}");
    }
}
