//! How evenly the gate and the placement spread the work, and what was lost by it.

use expertmesh_telemetry::Run;

use super::experts::row;
use super::markup::card as framed;
use crate::human;

/// Balance, and losses by name.
pub(super) fn card(run: &Run) -> String {
    let balance = &run.balance;
    let experts = run.overflow.per_expert.len();
    let even = (experts > 0).then(|| (experts as f64).ln());
    let mut rows = String::new();
    for (name, value, even) in [
        ("gini", balance.gini, "0".to_owned()),
        ("busiest over mean", balance.max_over_mean, "1".to_owned()),
        ("entropy, nats", balance.entropy, human::maybe_number(even)),
    ] {
        row(&mut rows, name, &human::number(value), &even);
    }
    row(
        &mut rows,
        "idle experts",
        &human::count(balance.idle_experts),
        "0",
    );
    if let Some(idle) = balance.idle_workers {
        row(&mut rows, "idle workers", &human::count(idle), "0");
    }
    for (name, value) in &run.losses {
        row(&mut rows, &human::fit(name, 40), &human::number(*value), "");
    }
    let body = format!(
        "<table>\n<thead><tr><th scope=\"col\">of choices over experts</th><th scope=\"col\">here</th>\
         <th scope=\"col\">even</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"
    );
    let note = match run.losses.is_empty() {
        true => "",
        false => "Losses are means over steps.",
    };
    framed("half", "Balance", note, &body)
}
