use expertmesh_telemetry::Phase;

use super::*;
use crate::Simulator;

/// The preset as a file, with `from` replaced by `to`.
fn refused(from: &str, to: &str) -> (String, String) {
    let text = costs().to_toml().expect("figures have a form");
    assert!(text.contains(from), "{from} is not in {text}");
    let text = text.replacen(from, to, 1);
    let reason = Costs::parse(&text).expect_err("a wrong figure").to_string();
    (reason, text)
}

fn costs() -> Costs {
    let table = ExpertTable {
        hidden: 4,
        ffn: 8,
        matrices: 3,
        weight_bytes: 384,
        points: vec![(1, 10.0), (2, 15.0)],
        beside: vec![(1, 20.0), (2, 25.0)],
    };
    let mut costs = Costs::loopback();
    costs.experts.tables = vec![table];
    costs
}

#[test]
fn costs_are_read_as_they_are_written() {
    for costs in [costs(), Costs::preset("h100").expect("a preset")] {
        let text = costs.to_toml().expect("figures have a form");
        assert_eq!(Costs::parse(&text), Ok(costs));
    }
}

#[test]
fn a_wrong_figure_is_one_sentence_with_its_line() {
    let cases = [
        (
            "wake_ns = 6000.0",
            "wake_ns = -1",
            "`wake_ns` holds -1, expected 0 to",
        ),
        (
            "pool_ns = 8000.0",
            "pool_ns = nan",
            "`pool_ns` holds NaN, expected 0 to",
        ),
        (
            "flop_ns = 0.02",
            "flop_ns = 1e300",
            "`gate.flop_ns` holds 1000",
        ),
        (
            "slice_ns = 3000000.0",
            "slice_ns = 5",
            "`slice_ns` holds 5, expected at least 1000",
        ),
        (
            "bandwidth_share = 0.8",
            "bandwidth_share = 2",
            "`experts.bandwidth_share` holds 2, expected above 0",
        ),
        ("wake_ns = 6000.0", "wake = 6000.0", "unknown field `wake`"),
        ("wake_ns = 6000.0", "wake_ns = \"a\"", "expected f64"),
        ("wake_ns = 6000.0", "wake_ns = ", "expected"),
    ];
    for (from, to, words) in cases {
        let (reason, text) = refused(from, to);
        let line = text.lines().position(|line| line == to).expect("the line") + 1;
        assert!(!reason.contains('\n'), "{reason}");
        assert!(
            reason.starts_with(&format!("costs: line {line}: ")),
            "{reason}"
        );
        assert!(reason.contains(words), "{words}: {reason}");
    }
}

#[test]
fn a_wrong_point_of_a_table_is_named() {
    let wrong = |change: fn(&mut ExpertTable)| {
        let mut costs = costs();
        change(&mut costs.experts.tables[0]);
        costs.validate().expect_err("a wrong table").to_string()
    };
    let reason = wrong(|table| table.beside[1].0 = 1);
    assert!(reason.contains("`experts.tables.0.beside`"), "{reason}");
    assert!(reason.contains("holds 1 rows behind 1"), "{reason}");
    let reason = wrong(|table| table.points[0].1 = 0.0);
    assert!(reason.contains("holds 0 ns for 1 rows"), "{reason}");
    assert!(wrong(|table| table.points.clear()).contains("is empty"));
    let (reason, text) = refused("points = [[1, 10.0]", "points = [[1, -10.0]");
    let line = text.lines().position(|line| line.starts_with("points"));
    let line = line.expect("the line") + 1;
    assert!(reason.contains(&format!("line {line}: ")), "{reason}");
}

/// Whoever holds tokens gates and plans them, and all do so at once.
#[test]
fn homes_that_hold_their_tokens_gate_and_plan_their_share() {
    let route = route(4, &[0, 1, 2, 3, 0, 1, 2, 3]);
    for (resident, each) in [(false, 8), (true, 2)] {
        let mut config = config(4, 4, ExchangeKind::AllToAll);
        config.resident = resident;
        let costs = Costs {
            gate: GateCost {
                token_ns: 1000.0,
                ..GateCost::default()
            },
            plan: Line {
                fixed_ns: 0.0,
                unit_ns: 10.0,
            },
            ..free()
        };
        let mut sim = Simulator::new(&lab(4, 4), costs, config).unwrap();
        let step = sim.step(&route, &admitted(&route)).unwrap();
        let phases = &step.record.phases_ns;
        assert_eq!(phases[Phase::Gate.index()], each * 1000);
        assert_eq!(phases[Phase::Plan.index()], each * 10);
    }
}
