//! How long steps took.

use super::Page;
use crate::{human, table};
use expertmesh_telemetry::{Latency, Run};

/// Bands that are told before the rest is only counted.
const BANDS: usize = 8;

pub(super) fn write(page: &mut Page, run: &Run) {
    let us = &run.latency_us;
    page.heading(
        "Latency",
        "exchange is plan to outputs; dispatch rows out; combine results back",
    );
    let header = [
        "", "count", "min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max",
    ];
    let rows = [
        ("step", Some(&us.step)),
        ("exchange", Some(&us.exchange)),
        ("dispatch", Some(&us.dispatch)),
        ("combine", Some(&us.combine)),
        ("floor", us.floor.as_ref()),
    ];
    let rows: Vec<(&str, &Latency)> = rows
        .into_iter()
        .filter_map(|(name, latency)| Some((name, latency?)))
        .collect();
    let unstated = rows.iter().any(|(_, latency)| latency.p999.is_none());
    let rows = rows
        .into_iter()
        .map(|(name, latency)| row(name, latency))
        .collect();
    page.table(table::lines(&header, table::numbers, rows));
    if unstated {
        let none = human::NONE;
        page.line(&format!(
            "  {none} fewer than 10 samples lie beyond this percentile"
        ));
    }
    if us.floor.is_some() {
        page.line("  floor: the same bytes without any work at either end");
    }
    if let Some(error) = us.clock_error_us {
        let error = human::duration(error);
        page.line(&format!(
            "  dispatch and combine compare clocks of several hosts: ±{error}"
        ));
    }
    for (path, [low, high]) in run.bands.iter().take(BANDS) {
        let (low, high) = (human::number(*low), human::number(*high));
        page.line(&format!(
            "  band of {}: {low} to {high}",
            human::fit(path, 50)
        ));
    }
    if run.bands.len() > BANDS {
        page.line(&format!(
            "  bands of {} more figures",
            run.bands.len() - BANDS
        ));
    }
}

fn row(name: &str, latency: &Latency) -> Vec<String> {
    let mut row = vec![name.to_owned(), human::count_short(latency.count)];
    // With nothing counted, a minimum of zero would be a claim.
    let always = |us: f64| human::maybe_duration((latency.count > 0).then_some(us));
    row.extend([always(latency.min), always(latency.mean)]);
    let percentiles = [
        latency.p50,
        latency.p90,
        latency.p95,
        latency.p99,
        latency.p999,
    ];
    row.extend(percentiles.map(human::maybe_duration));
    row.push(always(latency.max));
    row
}
