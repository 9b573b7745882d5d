//! The report as one HTML file: pictures, the numbers beside them, and the report itself.
//!
//! Everything is drawn here, as tables and SVG; the script in the file only chooses which run and
//! which step is shown. Nothing is fetched when it is opened, and a policy in its head forbids it.

mod balance;
mod chart;
mod compare;
mod distribution;
mod experts;
mod headline;
mod identity;
mod markup;
mod predicted;
mod sources;
mod timeline;
mod traffic;
mod waterfall;

use std::fmt::Write as _;

use expertmesh_telemetry::{Report, Run, Trace};

use self::markup::escape;
use crate::{ReportError, human, json};

/// The report as a page. `traces` are the lanes of its runs, in their order; there may be fewer.
/// [`side_by_side`](crate::side_by_side) puts predicted lanes beside measured ones.
///
/// # Errors
///
/// [`ReportError::NonFinite`], as [`json`], because the page holds the report's JSON.
pub fn html(report: &Report, traces: &[Trace]) -> Result<String, ReportError> {
    // No closing tag in a name may end the script that holds it.
    let data = json(report)?.replace('<', "\\u003c");
    let mut page = String::new();
    let title = escape(&title(report));
    let about = match report.runs.iter().all(|run| run.environment.is_none()) {
        true => escape(&identity::environment(&report.environment)),
        false => "runs of several places; each says where it took place".to_owned(),
    };
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
         'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{}</style>\n</head>\n\
         <body>\n<header class=\"page\">\n<h1>{title}</h1>\n<p>{about}</p>\n\
         <button id=\"theme\" type=\"button\" hidden>Light or dark</button>\n</header>\n<main>\n",
        include_str!("html/style.css"),
    );
    if report.runs.is_empty() {
        page.push_str("<p>No runs.</p>\n");
    }
    if report.runs.len() > 1 {
        page.push_str(&compare::section(&report.runs));
    }
    for (at, run) in report.runs.iter().enumerate() {
        let trace = traces.get(at).filter(|trace| !trace.is_empty());
        page.push_str(&run_section(report, at, run, trace));
    }
    let _ = write!(
        page,
        "</main>\n<footer>Figures are those of the report that this file holds, schema {}: sums and \
         shares are over all recorded steps, warm-up counts nowhere.</footer>\n\
         <script type=\"application/json\" id=\"report\">\n{data}</script>\n\
         <script>\n{}</script>\n</body>\n</html>\n",
        escape(&report.schema),
        include_str!("html/script.js"),
    );
    Ok(page)
}

fn title(report: &Report) -> String {
    match report.runs.as_slice() {
        [] => "expertmesh report".to_owned(),
        [run] => format!("expertmesh: {}", human::fit(&run.identity.model, 80)),
        runs => format!("expertmesh: {} runs", runs.len()),
    }
}

fn run_section(report: &Report, at: usize, run: &Run, trace: Option<&Trace>) -> String {
    let number = at + 1;
    let heading = escape(&identity::title(run, at, report.runs.len()));
    let mut cards = vec![
        identity::card(run, report.environment_of(run)),
        waterfall::card(run),
        distribution::card(run),
    ];
    cards.extend(predicted::card(&report.runs, at));
    cards.extend(trace.map(|trace| timeline::card(trace, at)));
    cards.push(experts::load(run));
    cards.push(traffic::card(run));
    cards.push(experts::fates(run));
    cards.push(balance::card(run));
    cards.push(sources::card(run));
    format!(
        "<section class=\"run\" id=\"run-{number}\">\n<h2>{heading}</h2>\n{}<div class=\"grid\">\n{}\
         </div>\n</section>\n",
        headline::figures(run),
        cards.concat(),
    )
}
