//! What became of the gate's choices, and how evenly they were spread.

use super::Page;
use crate::{
    human,
    table::{self, Align},
};
use expertmesh_telemetry::{ExpertOverflow, OverflowReport, Run};

/// Experts that are named.
const NAMED: usize = 8;
/// Columns of the busiest expert's bar.
const BAR: usize = 20;

pub(super) fn write(page: &mut Page, run: &Run) {
    let o = &run.overflow;
    page.heading("Overflow", "choices of the gate by fate");
    let fates = [
        ("assigned", o.assigned),
        ("computed", o.computed),
        ("rerouted", o.rerouted),
        ("dropped", o.dropped),
        ("skipped", o.skipped),
        ("lost", o.lost),
    ];
    let header: Vec<&str> = std::iter::once("")
        .chain(fates.map(|(name, _)| name))
        .collect();
    let cells = |cell: &dyn Fn(u64) -> String, label: &str| {
        let cells = fates.iter().map(|(_, choices)| cell(*choices));
        std::iter::once(label.to_owned()).chain(cells).collect()
    };
    // Six exact counts below 10^9 fit a line; larger ones are exact in the JSON.
    let largest = fates.iter().map(|(_, choices)| *choices).max().unwrap_or(0);
    let exact: &dyn Fn(u64) -> String = if largest < 1_000_000_000 {
        &human::count
    } else {
        &human::count_short
    };
    let rows = vec![
        cells(exact, "choices"),
        cells(
            &|choices| human::share_of(choices, o.assigned),
            "of assigned",
        ),
    ];
    page.table(table::lines(&header, table::numbers, rows));
    page.figure(
        "weight lost",
        &human::number(o.lost_gate_weight),
        &weight_note(o),
    );
    let factor = capacity(o);
    let sufficient = match o.smallest_sufficient_capacity_factor {
        // One choice an expert, which the formula rounds up to from anywhere.
        Some(factor) if factor > 0.0 && factor < 1e-9 => "any".to_owned(),
        factor => human::maybe_number(factor),
    };
    let note = format!("smallest factor under which nothing would drop: {sufficient}");
    page.figure("capacity factor", &factor, &note);
    events(page, o);
    experts(page, &o.per_expert);
    balance(page, run);
}

/// The factor in force, or why there is none: a policy without one takes what each step needs.
pub(super) fn capacity(o: &OverflowReport) -> String {
    match (o.capacity_factor, o.policy.as_deref()) {
        (Some(factor), _) => human::number(factor),
        (None, None | Some("dropless")) => "dropless".to_owned(),
        (None, Some(_)) => "automatic".to_owned(),
    }
}

/// Lines for what happened, and none for what did not.
fn events(page: &mut Page, o: &OverflowReport) {
    let e = &o.events;
    let happened = [
        (
            "tokens bare",
            e.tokens_without_expert,
            "tokens of which no choice was computed",
        ),
        ("spilled", e.spilled, "choices that waited for a later wave"),
        (
            "replays",
            e.replays,
            "steps admitted again with more capacity",
        ),
    ];
    for (name, count, note) in happened.into_iter().filter(|(_, count, _)| *count > 0) {
        page.figure(name, &human::count(count), note);
    }
    if e.waves > 1 {
        page.figure("waves", &human::count(e.waves), "of the step that had most");
    }
    if o.dropped > 0 && e.dropped_by_slot.len() > 1 {
        let slots: Vec<String> = e.dropped_by_slot.iter().map(|n| human::count(*n)).collect();
        page.figure(
            "by slot",
            &slots.join(" "),
            "dropped first, second, … choices",
        );
    }
}

fn weight_note(o: &OverflowReport) -> String {
    let of = if o.assigned_gate_weight > 0.0 {
        let share = human::share(o.lost_gate_weight / o.assigned_gate_weight);
        format!(", {share} of {}", human::number(o.assigned_gate_weight))
    } else {
        String::new()
    };
    format!("gate weight of dropped and lost choices{of}")
}

fn experts(page: &mut Page, per_expert: &[ExpertOverflow]) {
    let n = per_expert.len();
    if n == 0 {
        return;
    }
    let shown = NAMED.min(n);
    let note = match n {
        n if n == shown => format!("all {n}, the busiest first"),
        n => format!("the busiest {shown} of {n}"),
    };
    page.heading("Experts", &note);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|e| std::cmp::Reverse((per_expert[*e].demand(), n - e)));
    let demand = per_expert.iter().map(|e| e.demand() as f64).sum::<f64>();
    let busiest = order.first().map_or(0, |e| per_expert[*e].demand());
    let rows = order[..shown].iter().map(|index| {
        let expert = &per_expert[*index];
        let share = (demand > 0.0).then(|| expert.demand() as f64 / demand);
        vec![
            index.to_string(),
            bar(expert.demand(), busiest),
            human::maybe_share(share),
            human::count_short(expert.assigned),
            human::count_short(expert.computed),
            human::count_short(expert.rerouted),
            human::count_short(expert.dropped),
            human::count_short(expert.lost),
        ]
    });
    let header = [
        "expert", "", "of load", "assigned", "computed", "rerouted", "dropped", "lost",
    ];
    let align = |column| {
        if column == 1 {
            Align::Left
        } else {
            Align::Right
        }
    };
    page.table(table::lines(&header, align, rows.collect()));
}

fn bar(load: u64, busiest: u64) -> String {
    let filled = |column: usize| {
        // Exact in 128 bits: load / busiest > column / BAR.
        u128::from(load) * BAR as u128 > column as u128 * u128::from(busiest)
    };
    (0..BAR)
        .map(|column| if filled(column) { '█' } else { '·' })
        .collect()
}

fn balance(page: &mut Page, run: &Run) {
    let b = &run.balance;
    let experts = run.overflow.per_expert.len();
    page.heading("Balance", "of choices over experts");
    let even = human::number((experts.max(1) as f64).ln());
    page.figure("gini", &human::number(b.gini), "0 is even");
    page.figure("max / mean", &human::number(b.max_over_mean), "1 is even");
    page.figure(
        "entropy",
        &human::number(b.entropy),
        &format!("nats; {even} is even"),
    );
    let mut idle = format!("{} of {experts} experts", human::count(b.idle_experts));
    if let Some(idle_workers) = b.idle_workers {
        let workers = human::count(u64::from(run.identity.workers));
        idle.push_str(&format!(
            ", {} of {workers} workers",
            human::count(idle_workers)
        ));
    }
    page.field("idle", &idle);
}
