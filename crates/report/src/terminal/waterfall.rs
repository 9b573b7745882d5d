//! Where a step goes: its phases as bars, each beginning where the one before ended.

use super::Page;
use crate::{
    human,
    table::{self, Align},
};
use expertmesh_telemetry::{Latency, LatencyUs, Phase};

/// Columns of a whole step.
const BAR: usize = 44;
const ON_PATH: char = '█';
const BESIDE: char = '▒';
const RESIDUAL: char = '░';
const TRACK: char = '·';

pub(super) fn write(page: &mut Page, us: &LatencyUs) {
    page.heading(
        "Where a step goes",
        "bars and shares by mean, on the critical path",
    );
    let whole = us.step.mean;
    let mut rows = Vec::new();
    let mut at = 0.0;
    // `shared` runs at the home from the moment when its rows are on their way.
    let mut sent_at = 0.0;
    for (name, latency) in ordered(us) {
        let phase = Phase::ALL.iter().find(|phase| phase.name() == name);
        let share = (whole > 0.0).then(|| latency.mean / whole);
        let length = share.unwrap_or(0.0);
        let beside = phase.is_some_and(|phase| !phase.on_critical_path());
        if phase == Some(&Phase::Send) {
            sent_at = at;
        }
        let bar = if beside {
            bar(sent_at, length, BESIDE)
        } else {
            bar(at, length, ON_PATH)
        };
        rows.push(row(
            &human::fit(name, 12),
            bar,
            latency.p50,
            Some(latency.mean),
            share,
        ));
        if !beside {
            at += length;
        }
    }
    if let Some(residual) = us.residual_share {
        let bar = bar(at, residual, RESIDUAL);
        rows.push(row(
            "residual",
            bar,
            None,
            Some(residual * whole),
            Some(residual),
        ));
    }
    let header = ["phase", "", "p50", "mean", "of step"];
    let align = |column| {
        if column < 2 {
            Align::Left
        } else {
            Align::Right
        }
    };
    page.table(table::lines(&header, align, rows));
    let mut legend = format!("  {RESIDUAL} residual: what no phase explains");
    if us
        .phases
        .get(Phase::Shared.name())
        .is_some_and(|shared| shared.mean > 0.0)
    {
        legend.push_str(&format!(
            "   {BESIDE} shared experts run beside the exchange"
        ));
    }
    page.line(&legend);
}

/// Known phases in the order of a step, then whatever a later version added.
fn ordered(us: &LatencyUs) -> impl Iterator<Item = (&str, &Latency)> {
    let known = Phase::ALL
        .iter()
        .filter_map(|phase| us.phases.get_key_value(phase.name()));
    let unknown = us
        .phases
        .iter()
        .filter(|(name, _)| name.parse::<Phase>().is_err());
    known
        .chain(unknown)
        .map(|(name, latency)| (name.as_str(), latency))
}

fn row(
    name: &str,
    bar: String,
    p50: Option<f64>,
    mean: Option<f64>,
    share: Option<f64>,
) -> Vec<String> {
    vec![
        name.to_owned(),
        bar,
        human::maybe_duration(p50),
        human::maybe_duration(mean),
        human::maybe_share(share),
    ]
}

/// A bar of `length` from `start`, both as shares of a step, on a track of [`BAR`] columns.
fn bar(start: f64, length: f64, glyph: char) -> String {
    let from = cell(start);
    // Neighbours share the rounded border between them, so bars neither overlap nor leave gaps.
    let to = cell(start + length);
    (0..BAR)
        .map(|column| match column {
            column if from <= column && column < to => glyph,
            // Too short for a column, and yet there.
            column if column == from.min(BAR - 1) && from == to && length > 0.0 => '▏',
            _ => TRACK,
        })
        .collect()
}

/// The column border nearest to a share of a step, kept on the track.
fn cell(share: f64) -> usize {
    let columns = (share * BAR as f64).round().clamp(0.0, BAR as f64);
    // Clamped to the track; the search keeps the conversion free of lossy casts.
    (0..=BAR)
        .find(|column| *column as f64 >= columns)
        .unwrap_or(BAR)
}
