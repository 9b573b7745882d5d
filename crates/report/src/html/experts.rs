//! Who computed what: load by expert, and the fates of all choices.

use std::fmt::Write as _;

use expertmesh_telemetry::{ExpertOverflow, OverflowReport, Run};

use super::chart::{Chart, Scale};
use super::markup::{card as framed, escape, legend};
use crate::human;
use crate::svg::ticks;

const WIDTH: f64 = 1160.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 214.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 1146.0;

/// A fate of an expert's choices with its colour.
type Fate = (&'static str, fn(&ExpertOverflow) -> u64);

const FATES: [Fate; 5] = [
    ("computed", |one| one.computed),
    ("rerouted", |one| one.rerouted),
    ("dropped", |one| one.dropped),
    ("lost", |one| one.lost),
    ("skipped", |one| one.skipped),
];

/// Bars of every expert, and the capacity.
pub(super) fn load(run: &Run) -> String {
    let experts = &run.overflow.per_expert;
    if experts.is_empty() {
        return framed(
            "",
            "Load per expert",
            "No choices were counted by expert.",
            "",
        );
    }
    let demand = experts.iter().map(ExpertOverflow::demand);
    let demand = demand.fold(0, u64::saturating_add);
    let even = demand as f64 / experts.len() as f64;
    let capacity = run.overflow.capacity_factor.map(|factor| factor * even);
    let capacity = capacity.filter(|capacity| capacity.is_finite());
    let most = experts
        .iter()
        .map(|one| one.assigned.max(one.computed.saturating_add(one.received)));
    let high = (most.max().unwrap_or(0) as f64)
        .max(capacity.unwrap_or(0.0))
        .max(1.0);
    let up = ticks(0.0, high, 4);
    let y = Scale {
        figures: (0.0, up.last().copied().unwrap_or(high)),
        pixels: (BOTTOM, TOP),
    };
    let mut chart = Chart::new(WIDTH, BOTTOM + 30.0, "Choices of every expert by fate");
    for tick in &up {
        chart.line((LEFT, y.at(*tick)), (RIGHT, y.at(*tick)), "grid-line");
        chart.words(
            (LEFT - 6.0, y.at(*tick) + 4.0),
            "end",
            "soft",
            &human::number(*tick),
        );
    }
    let pitch = (RIGHT - LEFT) / experts.len() as f64;
    let gap = if pitch > 6.0 { pitch * 0.16 } else { 0.0 };
    let label_each = (46.0 / pitch).ceil().max(1.0);
    for (at, expert) in experts.iter().enumerate() {
        let x = LEFT + at as f64 * pitch;
        bars(&mut chart, (x + gap / 2.0, pitch - gap), &y, at, expert);
        if (at as f64 % label_each).abs() < 0.5 || experts.len() <= 24 {
            chart.words(
                (x + pitch / 2.0, BOTTOM + 16.0),
                "middle",
                "soft",
                &at.to_string(),
            );
        }
    }
    chart.line((LEFT, y.at(even)), (RIGHT, y.at(even)), "even");
    if let Some(capacity) = capacity {
        chart.line((LEFT, y.at(capacity)), (RIGHT, y.at(capacity)), "limit");
    }
    chart.line((LEFT, BOTTOM), (RIGHT, BOTTOM), "axis");
    let mut entries: Vec<(String, &str, &str)> = FATES
        .iter()
        .filter(|(_, count)| experts.iter().any(|one| count(one) > 0))
        .map(|(name, _)| ((*name).to_owned(), *name, ""))
        .collect();
    if experts.iter().any(|one| one.received > 0) {
        entries.push(("received from other experts".to_owned(), "later", ""));
    }
    entries.push(("even share".to_owned(), "soft", "line"));
    if let Some(factor) = run.overflow.capacity_factor {
        let name = format!("capacity: {} times the even share", human::number(factor));
        entries.push((name, "bad", "line"));
    }
    let legend = legend(
        entries
            .iter()
            .map(|(name, colour, class)| (name.as_str(), *colour, *class)),
    );
    let body = format!("<div class=\"scroll\">{}</div>\n{legend}", chart.finish());
    framed("", "Load per expert", &hottest(experts, even), &body)
}

/// The fates of an expert's choices upon each other, and what came from others on top.
fn bars(chart: &mut Chart, (x, width): (f64, f64), y: &Scale, at: usize, expert: &ExpertOverflow) {
    let mut below = 0u64;
    let parts = FATES
        .iter()
        .map(|(name, count)| (*name, *name, count(expert)));
    for (name, colour, count) in parts.chain([("received", "later", expert.received)]) {
        if count == 0 {
            continue;
        }
        let top = y.at(below.saturating_add(count) as f64);
        let says = format!("expert {at}: {} {name}", human::count(count));
        let style = format!("--fill:var(--{colour})");
        let height = y.at(below as f64) - top;
        chart.rect((x, top), (width, height), "fill", &style, &says);
        below = below.saturating_add(count);
    }
}

fn hottest(experts: &[ExpertOverflow], even: f64) -> String {
    let mut order: Vec<usize> = (0..experts.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(experts[*at].demand()));
    let hot = order.iter().take(3).map(|at| {
        let ratio = experts[*at].demand() as f64 / even.max(f64::MIN_POSITIVE);
        format!("expert {at} ({} the mean)", human::ratio(ratio))
    });
    format!(
        "Choices over all recorded steps. Asked for most: {}.",
        hot.collect::<Vec<_>>().join(", ")
    )
}

/// A fate of all choices with its colour.
type Total = (&'static str, &'static str, fn(&OverflowReport) -> u64);

const TOTALS: [Total; 6] = [
    ("computed", "computed", |o| {
        o.computed.saturating_sub(o.events.spilled)
    }),
    ("computed in a later wave", "later", |o| {
        o.events.spilled.min(o.computed)
    }),
    ("rerouted", "rerouted", |o| o.rerouted),
    ("dropped", "dropped", |o| o.dropped),
    ("lost", "lost", |o| o.lost),
    ("skipped", "skipped", |o| o.skipped),
];

/// What became of the gate's choices.
pub(super) fn fates(run: &Run) -> String {
    let overflow = &run.overflow;
    let mut stack = String::new();
    let mut rows = String::new();
    for (name, colour, count) in TOTALS {
        let count = count(overflow);
        let share = human::share_of(count, overflow.assigned);
        if count > 0 && overflow.assigned > 0 {
            let width = count as f64 / overflow.assigned as f64 * 100.0;
            let says = escape(&format!("{name}: {share}"));
            let _ = write!(
                stack,
                "<i style=\"width:{width:.3}%;--fill:var(--{colour})\" title=\"{says}\"></i>"
            );
        }
        if count > 0 || ["computed", "dropped", "lost"].contains(&name) {
            row(&mut rows, name, &human::count(count), &share);
        }
    }
    row(&mut rows, "assigned", &human::count(overflow.assigned), "");
    let weight = overflow.lost_gate_weight;
    let all = overflow.assigned_gate_weight;
    let share = human::maybe_share((all > 0.0).then(|| weight / all));
    row(
        &mut rows,
        "gate weight dropped or lost",
        &human::number(weight),
        &share,
    );
    let factor = |factor: Option<f64>| human::maybe_number(factor);
    row(
        &mut rows,
        "capacity factor",
        &factor(overflow.capacity_factor),
        "",
    );
    let sufficient = overflow.smallest_sufficient_capacity_factor;
    row(
        &mut rows,
        "smallest factor that drops nothing",
        &factor(sufficient),
        "",
    );
    let events = &overflow.events;
    for (name, count) in [
        ("tokens without an expert", events.tokens_without_expert),
        ("replays", events.replays),
    ] {
        row(&mut rows, name, &human::count(count), "");
    }
    if events.dropped_by_slot.iter().any(|dropped| *dropped > 0) {
        let slots: Vec<String> = events.dropped_by_slot.iter().map(u64::to_string).collect();
        row(
            &mut rows,
            "dropped by slot",
            &human::fit(&slots.join(", "), 40),
            "",
        );
    }
    let body = format!(
        "<div class=\"stack\">{stack}</div>\n<table>\n<thead><tr><th scope=\"col\">choices</th>\
         <th scope=\"col\">count</th><th scope=\"col\">share</th></tr></thead>\n<tbody>\n{rows}\
         </tbody>\n</table>\n"
    );
    let note = match overflow.policy.as_deref() {
        Some(policy) => format!("Policy {policy}."),
        None => String::new(),
    };
    framed("half", "Overflow", &note, &body)
}

/// A row of three cells.
pub(super) fn row(rows: &mut String, name: &str, value: &str, share: &str) {
    let _ = writeln!(
        rows,
        "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>",
        escape(name),
        escape(value),
        escape(share)
    );
}
