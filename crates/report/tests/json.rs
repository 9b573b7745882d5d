//! The file: complete, readable again, and never a null in place of a figure.

mod common;

use common::{edge, report, run};
use expertmesh_report::{ReportError, json, parse};
use expertmesh_telemetry::ExchangeKind;

#[test]
fn a_report_parses_back_equal() {
    let runs = vec![
        run(ExchangeKind::Star, 3, 25, 100),
        run(ExchangeKind::AllToAll, 4, 1_000, 100),
        edge(12, u64::MAX, 0.1 + 0.2, "名 \" \\ \n name"),
    ];
    let report = report(runs);
    let text = json(&report).unwrap();
    assert!(text.ends_with("}\n") && text.starts_with("{\n  \"schema\": \"expertmesh.report/1\""));
    assert_eq!(parse(&text).unwrap(), report);
}

#[test]
fn a_figure_that_json_cannot_hold_is_named() {
    let mut report = report(vec![run(ExchangeKind::Star, 2, 1, 100)]);
    report.runs[0].losses.insert("z".to_owned(), f64::NAN);
    let error = json(&report).unwrap_err().to_string();
    assert!(
        error.starts_with("runs[0].losses.z is not a finite number"),
        "{error}"
    );
}

#[test]
fn another_schema_is_refused_by_name() {
    let text = r#"{"schema": "expertmesh.report/2", "figures": []}"#;
    assert!(matches!(parse(text), Err(ReportError::Schema { found, .. }) if found.ends_with("/2")));
    assert!(matches!(parse("{}"), Err(ReportError::Json(_))));
    assert!(matches!(parse("not json"), Err(ReportError::Json(_))));
}

#[test]
fn a_wrong_schema_is_not_hidden_by_a_right_body() {
    let report = report(Vec::new());
    let text = json(&report).unwrap().replace("report/1", "report/9");
    assert!(parse(&text).is_err());
}
