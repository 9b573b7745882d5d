//! The page: whole, escaped, without a network, and with the report's own numbers.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use common::{edge, report, run};
use expertmesh_report::{counterpart, html, side_by_side, terminal};
use expertmesh_telemetry::{ExchangeKind, Lane, Network, Phase, Report, Run, Source, Trace};

const VOID: [&str; 4] = ["!doctype", "meta", "link", "br"];

/// Names of the elements of a page; fails where one is not closed, or closed out of turn.
fn elements(page: &str) -> Vec<String> {
    let mut rest = page;
    let (mut open, mut all): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').unwrap();
        let (tag, after) = (&rest[..end], &rest[end + 1..]);
        assert!(!tag.contains('<'), "a tag in a tag: {tag}");
        assert!(tag.matches('"').count().is_multiple_of(2), "quotes: {tag}");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed out of turn");
            continue;
        }
        let name = tag.split([' ', '\n', '/']).next().unwrap().to_owned();
        all.push(name.clone());
        if tag.ends_with('/') || VOID.contains(&name.as_str()) {
            continue;
        }
        // What these hold is no markup.
        if name == "script" || name == "style" {
            let close = format!("</{name}>");
            let at = rest.find(&close).unwrap();
            rest = &rest[at + close.len()..];
            continue;
        }
        open.push(name);
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    all
}

/// The report that a page holds.
fn held(page: &str) -> Report {
    let from = page.split_once("id=\"report\">").unwrap().1;
    let text = from.split_once("</script>").unwrap().0;
    // Read without a check: what is drawn here need not be fit for a file.
    serde_json::from_str(text).unwrap()
}

fn check(report: &Report, traces: &[Trace]) -> String {
    let page = html(report, traces).unwrap();
    elements(&page);
    assert_eq!(held(&page), *report);
    for attribute in ["src=", "href=", "url(", "@import", "fetch("] {
        for (at, _) in page.match_indices(attribute) {
            let value: String = page[at + attribute.len()..].chars().take(12).collect();
            assert!(
                value.starts_with("\"#") || value.starts_with("\"data:,"),
                "{attribute}{value}"
            );
        }
    }
    assert!(!page.contains("http://") && !page.contains("https://"));
    page
}

fn trace(workers: u32, predicted: bool) -> Trace {
    let mut trace = Trace::new(&common::endpoints(workers as usize));
    for step in 0..3 {
        let mut push = |endpoint, phase, peer, begin_ns, end_ns| {
            trace.lanes.push(Lane {
                endpoint,
                phase,
                step,
                begin_ns,
                end_ns,
                peer,
                bytes: 4096,
                predicted,
            });
        };
        push(0, Phase::Gate, None, 1_000, 5_000);
        for worker in 1..=workers {
            push(0, Phase::Send, Some(worker), 5_000, 9_000);
            push(worker, Phase::Experts, Some(0), 9_000, 40_000);
        }
        push(0, Phase::Combine, None, 40_000, 50_000);
    }
    trace
}

fn predicted(mut run: Run) -> Run {
    for source in run.source.values_mut() {
        *source = Source::Calibrated;
    }
    run.bands
        .insert("latency_us.step".to_owned(), [2_000.0, 4_000.0]);
    run.latency_us.step.mean *= 1.5;
    run.latency_us.step.p50 = run.latency_us.step.p50.map(|us| us * 1.5);
    run
}

#[test]
fn a_run_has_every_picture_and_every_number_has_its_source() {
    let report = report(vec![run(ExchangeKind::AllToAll, 4, 1_000, 100)]);
    let page = check(&report, &[trace(4, false)]);
    for title in [
        "What was run",
        "Where a step goes",
        "Latency distribution",
        "Timeline of a step",
        "Traffic between endpoints",
        "Load per expert",
        "Overflow",
        "Balance",
        "Where figures come from",
    ] {
        assert_eq!(
            page.matches(&format!("<h3>{title}</h3>")).count(),
            1,
            "{title}"
        );
    }
    assert!(!page.contains("Predicted beside measured"));
    let figures = page.matches("<div class=\"figure\">").count();
    let sourced = page.split("<div class=\"figure\">").skip(1);
    let sourced = sourced.filter(|card| card.contains("class=\"source measured\""));
    assert_eq!(sourced.count(), figures);
    // As in the JSON, to the last digit.
    let exact = format!(
        "title=\"{} µs\"",
        report.runs[0].latency_us.step.p50.unwrap()
    );
    assert!(page.contains(&exact), "{exact}");
}

#[test]
fn hostile_names_stay_names() {
    for text in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onload='alert(1)",
        "</script><!--",
        "\u{202e}\u{0}&amp;",
    ] {
        for size in [0, u64::MAX] {
            let run = edge(3, size, 1e-9, text);
            let report = report(vec![run.clone(), run]);
            let mut trace = trace(2, false);
            trace.endpoints = vec![text.to_owned(); 3];
            let page = html(&report, &[trace.clone(), trace]).unwrap();
            let names = elements(&page);
            let scripts = names.iter().filter(|name| *name == "script");
            assert_eq!(scripts.count(), 2);
            assert!(
                !names
                    .iter()
                    .any(|name| name == "img" || name.starts_with('!') && name != "!doctype")
            );
            assert_eq!(held(&page), report);
            assert!(!page.contains("NaN") && !page.contains("inf\""), "{text}");
        }
    }
}

#[test]
fn a_report_at_every_edge_is_drawn() {
    check(&report(Vec::new()), &[]);
    for endpoints in [0, 1, 2, 18, 300] {
        for us in [0.0, 1e-9, 1e12] {
            let page = check(&report(vec![edge(endpoints, 7, us, "name")]), &[]);
            assert!(!page.contains("NaN") && !page.contains("inf\""));
        }
    }
    let mut ragged = edge(4, 7, 1.0, "name");
    ragged.communication.matrix_bytes[2].truncate(1);
    check(&report(vec![ragged]), &[]);
}

#[test]
fn the_traffic_map_has_the_cells_and_their_sums() {
    let report = report(vec![run(ExchangeKind::AllToAll, 2, 10, 100)]);
    let page = check(&report, &[]);
    let matrix = &report.runs[0].communication.matrix_bytes;
    let map = page.split_once("Heat map of traffic").unwrap().1;
    let map = map.split_once("</svg>").unwrap().0;
    let sum = |cells: &mut dyn Iterator<Item = &u64>| cells.copied().sum::<u64>();
    let mut expected: Vec<u64> = matrix
        .iter()
        .flatten()
        .copied()
        .filter(|bytes| *bytes > 0)
        .collect();
    expected.extend(matrix.iter().map(|row| sum(&mut row.iter())));
    expected.extend((0..3).map(|to| sum(&mut matrix.iter().map(|row| &row[to]))));
    expected.push(sum(&mut matrix.iter().flatten()));
    for bytes in expected {
        let text = format!(">{}</text>", expertmesh_report::human::bytes_dense(bytes));
        assert!(map.contains(&text), "no {text}");
    }
}

#[test]
fn many_endpoints_are_taken_together_and_no_byte_is_lost() {
    let report = report(vec![run(ExchangeKind::AllToAll, 200, 1, 100)]);
    let page = check(&report, &[]);
    let matrix = &report.runs[0].communication.matrix_bytes;
    let all: u64 = matrix.iter().flatten().sum();
    let total = format!(">{}</text>", expertmesh_report::human::bytes_dense(all));
    assert!(page.contains(&total) && page.contains("Neighbours are taken together"));
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
}

#[test]
fn a_prediction_stands_beside_what_was_measured() {
    let measured = run(ExchangeKind::AllToAll, 3, 1_000, 100);
    let other = run(ExchangeKind::Star, 3, 1_000, 100);
    let runs = vec![measured.clone(), other, predicted(measured)];
    assert_eq!(counterpart(&runs, 0), Some(2));
    assert_eq!(counterpart(&runs, 1), None);
    assert_eq!(counterpart(&runs, 2), Some(0));
    let report = report(runs);
    let traces = [trace(3, false), Trace::default(), trace(3, true)];
    let traces = side_by_side(&report, &traces);
    assert_eq!(traces[0].lanes.len(), 2 * trace(3, false).lanes.len());
    assert!(traces[1].is_empty());
    let page = check(&report, &traces);
    assert_eq!(
        page.matches("<h3>Predicted beside measured</h3>").count(),
        2
    );
    assert!(page.contains("class=\"error-bad\">+50.0 %</td>"));
    assert!(page.contains("class=\"lane predicted\""));
    assert!(page.contains("2.00 ms – 4.00 ms"));
    assert_eq!(page.matches("<option").count(), 3 + 3 + 3);
}

#[test]
fn what_is_not_closed_is_found() {
    let broken = ["<p>", "<p></b>", "<b><i></b></i>", "<p title=\"></p>"];
    for page in broken {
        assert!(
            std::panic::catch_unwind(|| elements(page)).is_err(),
            "{page}"
        );
    }
}

#[test]
fn runs_of_several_places_each_tell_their_own() {
    let mut both = report(vec![run(ExchangeKind::Star, 2, 20, 100)]);
    let mut simulated = report(vec![run(ExchangeKind::Star, 2, 20, 150)]);
    simulated.environment.network = Network::Simulated;
    simulated.environment.topology = Some("h100, 1 host".to_owned());
    both.extend(simulated.clone());
    let page = check(&both, &[]);
    for place in [
        "loopback network",
        "simulated network, links of h100, 1 host",
    ] {
        assert_eq!(page.matches(place).count(), 1, "{place}");
    }
    let text = terminal(&both);
    assert_eq!(text.matches("loopback network").count(), 1, "{text}");
    let (first, second) = text.split_once("Run 2 of 2").unwrap();
    assert!(first.contains("loopback network") && !first.contains("simulated network"));
    assert!(second.contains("simulated network") && second.contains("links of h100, 1 host"));
    // One of them alone is of its own place again.
    assert_eq!(both.only(1).unwrap(), simulated);
    // Reports of one place stay one.
    let mut twice = simulated.clone();
    twice.extend(simulated.clone());
    assert!(twice.runs.iter().all(|run| run.environment.is_none()));
}
