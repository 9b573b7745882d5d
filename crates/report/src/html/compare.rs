//! Several runs side by side, and the choice of the one that is shown.

use std::fmt::Write as _;

use expertmesh_telemetry::Run;

use super::headline::{source, typical};
use super::markup::{bar, escape};
use crate::human;
use crate::terminal::differences;

/// The table of all runs with a chooser.
pub(super) fn section(runs: &[Run]) -> String {
    let longest = runs.iter().map(|run| typical(&run.latency_us.step).1);
    let longest = longest.fold(f64::MIN_POSITIVE, f64::max);
    let names = differences(runs);
    let (mut rows, mut options) = (String::new(), String::new());
    for (at, (run, name)) in runs.iter().zip(&names).enumerate() {
        let number = at + 1;
        let name = escape(&human::fit(name, 110));
        let step = &run.latency_us.step;
        let (by, us) = typical(step);
        let says = format!("run {number}: {by} {}", human::duration(us));
        let overflow = &run.overflow;
        let gone = overflow.dropped.saturating_add(overflow.lost);
        let _ = writeln!(
            rows,
            "<tr data-run=\"{at}\"{}><td><a href=\"#run-{number}\">{number}</a></td>\
             <td class=\"left words\">{name}</td><td class=\"bar\"><span class=\"track\">{}</span></td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            if at == 0 { " class=\"chosen\"" } else { "" },
            bar(0.0, us / longest, "accent", "", &says),
            human::maybe_duration((step.count > 0).then_some(us)),
            human::maybe_duration(step.p99),
            human::bytes(run.communication.payload_bytes / run.load.steps.max(1)),
            escape(&human::maybe_share(run.communication.time_share)),
            escape(&human::share_of(gone, overflow.assigned)),
            source(run.source_of("latency_us.step")),
        );
        let _ = write!(
            options,
            "<option value=\"{at}\">Run {number}: {name}</option>"
        );
    }
    format!(
        "<h2>All runs</h2>\n<div class=\"card\"><div class=\"scroll\"><table>\n<thead><tr>\
         <th scope=\"col\">run</th><th scope=\"col\" class=\"left\">differs in</th>\
         <th scope=\"col\" class=\"bar left\">step</th><th scope=\"col\">step</th>\
         <th scope=\"col\">p99</th><th scope=\"col\">bytes a step</th><th scope=\"col\">in exchange</th>\
         <th scope=\"col\">dropped</th><th scope=\"col\">source</th></tr></thead>\n<tbody>\n{rows}\
         </tbody>\n</table></div></div>\n\
         <p><label hidden>Shown below: <select id=\"run-choice\" data-parts=\"section.run\">{options}\
         </select></label></p>\n"
    )
}
