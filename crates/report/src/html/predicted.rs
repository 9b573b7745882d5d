//! What a cost model said, beside what was measured.

use std::fmt::Write as _;

use expertmesh_telemetry::{Latency, Run};

use super::headline::{band, source};
use super::markup::{bar, card as framed, escape, phase_colour};
use super::waterfall::ordered;
use crate::human;
use crate::pairs::{clock, counterpart, is_predicted};

/// Errors up to here are drawn as good: the budget of the project's own validation, p90.
const GOOD: f64 = 0.3;

/// One figure of both runs.
struct Row<'a> {
    name: &'a str,
    path: String,
    colour: &'a str,
    measured: &'a Latency,
    predicted: &'a Latency,
}

/// Paired bars; `None` for a run that has no counterpart.
pub(super) fn card(runs: &[Run], at: usize) -> Option<String> {
    let (run, other) = (runs.get(at)?, runs.get(counterpart(runs, at)?)?);
    let (measured, predicted) = match is_predicted(run) {
        true => (other, run),
        false => (run, other),
    };
    let (m, p) = (&measured.latency_us, &predicted.latency_us);
    let mut rows: Vec<Row<'_>> = [
        ("step", &m.step, &p.step),
        ("exchange", &m.exchange, &p.exchange),
        ("dispatch", &m.dispatch, &p.dispatch),
        ("combine (span)", &m.combine, &p.combine),
    ]
    .into_iter()
    .map(|(name, measured, predicted)| Row {
        name,
        path: format!("latency_us.{}", name.trim_end_matches(" (span)")),
        colour: "accent",
        measured,
        predicted,
    })
    .collect();
    rows.extend(ordered(measured).filter_map(|(name, latency)| {
        Some(Row {
            name,
            path: format!("latency_us.phases.{name}"),
            colour: phase_colour(name),
            measured: latency,
            predicted: p.phases.get(name)?,
        })
    }));
    let longest = rows.iter().flat_map(|row| {
        let (_, measured, predicted) = both(row);
        [measured, predicted]
    });
    let longest = longest.fold(f64::MIN_POSITIVE, f64::max);
    let mut body = String::new();
    for row in &rows {
        let _ = write!(body, "{}", line(row, longest, predicted));
    }
    let same_bytes = measured.communication.matrix_bytes == predicted.communication.matrix_bytes;
    let bytes = match (same_bytes, measured.load.steps == predicted.load.steps) {
        (true, _) => "Both moved the same bytes between the same endpoints.",
        (false, true) => "They moved different bytes, so they are not of one exchange.",
        (false, false) => "They have different numbers of steps.",
    };
    let head = format!(
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">figure</th>\
         <th scope=\"col\" class=\"bar left\">measured above, predicted below</th>\
         <th scope=\"col\">by</th><th scope=\"col\">{}</th><th scope=\"col\">{}</th>\
         <th scope=\"col\">band</th><th scope=\"col\">error</th></tr></thead>\n<tbody>\n",
        source(clock(measured)),
        source(clock(predicted)),
    );
    let note = format!("Error: predicted over measured, less one. {bytes}");
    let body = format!("{head}{body}</tbody>\n</table></div>\n");
    Some(framed("", "Predicted beside measured", &note, &body))
}

/// By which statistic both are held, and their values: medians where both have one.
fn both(row: &Row<'_>) -> (&'static str, f64, f64) {
    match (row.measured.p50, row.predicted.p50) {
        (Some(measured), Some(predicted)) => ("p50", measured, predicted),
        _ => ("mean", row.measured.mean, row.predicted.mean),
    }
}

fn line(row: &Row<'_>, longest: f64, predicted_run: &Run) -> String {
    let (by, measured, predicted) = both(row);
    let says = |what: &str, us: f64| format!("{}: {what} {}", row.name, human::duration(us));
    let bars = format!(
        "<span class=\"track thin\">{}</span><span class=\"track thin\">{}</span>",
        bar(
            0.0,
            measured / longest,
            row.colour,
            "",
            &says("measured", measured)
        ),
        bar(
            0.0,
            predicted / longest,
            row.colour,
            "predicted",
            &says("predicted", predicted)
        ),
    );
    let error = (measured > 0.0).then(|| predicted / measured - 1.0);
    let class = match error {
        Some(error) if error.abs() > GOOD => "error-bad",
        Some(_) => "error-good",
        None => "",
    };
    let sign = if error.is_some_and(|error| error > 0.0) {
        "+"
    } else {
        ""
    };
    let band = match band(predicted_run, &format!("{}.{by}", row.path)) {
        Some([low, high]) => format!("{} – {}", human::duration(low), human::duration(high)),
        None => human::NONE.to_owned(),
    };
    format!(
        "<tr><th scope=\"row\">{}</th><td class=\"bar\">{bars}</td><td>{by}</td><td>{}</td><td>{}</td>\
         <td>{}</td><td class=\"{class}\">{sign}{}</td></tr>\n",
        escape(&human::fit(row.name, 20)),
        human::duration(measured),
        human::duration(predicted),
        escape(&band),
        escape(&human::maybe_share(error)),
    )
}
