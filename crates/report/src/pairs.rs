//! Runs of the same thing, one timed and one predicted.

use expertmesh_telemetry::{Report, Run, Source, Trace};

/// Position of the first run of `runs` that run `at` can be held against: the same identity and
/// capacity, its times measured where those of `at` are a cost model's, or the other way round.
pub fn counterpart(runs: &[Run], at: usize) -> Option<usize> {
    let run = runs.get(at)?;
    clock(run)?;
    runs.iter().position(|other| {
        clock(other).is_some() && is_predicted(other) != is_predicted(run) && is_same(run, other)
    })
}

/// The lanes of every run, with those of its [`counterpart`] beside them where both are of the same
/// endpoints. `traces` are in the order of the report's runs; there may be fewer.
pub fn side_by_side(report: &Report, traces: &[Trace]) -> Vec<Trace> {
    let beside = |at: usize| {
        let mut trace = traces.get(at).cloned().unwrap_or_default();
        let other = counterpart(&report.runs, at).and_then(|other| traces.get(other));
        if let Some(other) = other.filter(|other| !trace.is_empty() && !other.is_empty()) {
            // Another cluster's lanes have no place here, and the trace stays as it is.
            let _ = trace.merge(other);
        }
        trace
    };
    (0..report.runs.len()).map(beside).collect()
}

/// Where a run's times come from.
pub(crate) fn clock(run: &Run) -> Option<Source> {
    run.source_of("latency_us.step")
}

pub(crate) fn is_predicted(run: &Run) -> bool {
    matches!(
        clock(run),
        Some(Source::Calibrated | Source::Extrapolated | Source::Preset)
    )
}

/// Whether two runs were of the same thing, whoever timed them.
fn is_same(a: &Run, b: &Run) -> bool {
    let (one, other) = (&a.identity, &b.identity);
    let layer = (one.seed, &one.model, &one.shape, &one.placement_digest)
        == (
            other.seed,
            &other.model,
            &other.shape,
            &other.placement_digest,
        );
    let step = (&one.workload, one.exchange, one.combine, one.workers)
        == (
            &other.workload,
            other.exchange,
            other.combine,
            other.workers,
        );
    let capacity = (a.overflow.capacity_factor, &a.overflow.policy)
        == (b.overflow.capacity_factor, &b.overflow.policy);
    layer && step && capacity
}
