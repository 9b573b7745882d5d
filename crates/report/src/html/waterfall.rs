//! Where a step goes: its phases, each beginning where the one before ended.

use std::fmt::Write as _;

use expertmesh_telemetry::{Latency, Phase, Run};

use super::markup::{bar, card as framed, escape, phase_colour};
use crate::human;

/// The waterfall of a run.
pub(super) fn card(run: &Run) -> String {
    let us = &run.latency_us;
    let whole = us.step.mean;
    let mut rows = String::new();
    let mut at = 0.0;
    // `shared` runs at the home from the moment when its rows are on their way.
    let mut sent_at = 0.0;
    for (name, latency) in ordered(run) {
        let phase = name.parse::<Phase>().ok();
        let share = if whole > 0.0 {
            latency.mean / whole
        } else {
            0.0
        };
        let is_beside = phase.is_some_and(|phase| !phase.on_critical_path());
        if phase == Some(Phase::Send) {
            sent_at = at;
        }
        let start = if is_beside { sent_at } else { at };
        let mean = human::duration(latency.mean);
        let says = format!("{name}: mean {mean}, {} of a step", human::share(share));
        let class = if is_beside { "predicted" } else { "" };
        let bar = bar(start, share, phase_colour(name), class, &says);
        row(
            &mut rows,
            name,
            &bar,
            latency.p50,
            latency.mean,
            Some(share),
        );
        if !is_beside {
            at += share;
        }
    }
    if let Some(share) = us.residual_share {
        let says = format!("residual: {} of a step", human::share(share));
        let bar = bar(at, share, "residual", "", &says);
        row(
            &mut rows,
            "residual",
            &bar,
            None,
            share * whole,
            Some(share),
        );
    }
    let body = format!(
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">phase</th><th scope=\"col\" \
         class=\"bar left\">on the critical path</th><th scope=\"col\">p50</th>\
         <th scope=\"col\">mean</th><th scope=\"col\">of step</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n"
    );
    let note = "Bars and shares by mean. Residual is what no phase explains; a hatched bar runs beside \
                the others.";
    framed("half", "Where a step goes", note, &body)
}

/// Known phases in the order of a step, then whatever a later version added.
pub(super) fn ordered(run: &Run) -> impl Iterator<Item = (&str, &Latency)> {
    let phases = &run.latency_us.phases;
    let known = Phase::ALL
        .iter()
        .filter_map(|phase| phases.get_key_value(phase.name()));
    let unknown = phases
        .iter()
        .filter(|(name, _)| name.parse::<Phase>().is_err());
    known
        .chain(unknown)
        .map(|(name, latency)| (name.as_str(), latency))
}

fn row(rows: &mut String, name: &str, bar: &str, p50: Option<f64>, mean: f64, share: Option<f64>) {
    let mean = match mean < 0.0 {
        true => format!("−{}", human::duration(-mean)),
        false => human::duration(mean),
    };
    let _ = writeln!(
        rows,
        "<tr><th scope=\"row\">{}</th><td class=\"bar\"><span class=\"track\">{bar}</span></td>\
         <td>{}</td><td>{mean}</td><td>{}</td></tr>",
        escape(&human::fit(name, 16)),
        human::maybe_duration(p50),
        escape(&human::maybe_share(share)),
    );
}
