//! Several runs side by side: what differs, and what it did.

use super::{Page, overflow};
use crate::{
    human,
    pairs::clock,
    table::{self, Align},
};
use expertmesh_telemetry::{Run, Shape};

/// Columns for what differs between runs.
const CONFIGURATION: usize = 26;
/// Digits of a digest that are enough to tell runs apart by eye.
const DIGEST: usize = 8;

pub(super) fn write(page: &mut Page, runs: &[Run]) {
    page.title("Comparison");
    let first = runs.first().map_or(0.0, |run| run.latency_us.step.mean);
    let rows = runs
        .iter()
        .zip(differences(runs))
        .enumerate()
        .map(|(index, (run, differing))| {
            let step = &run.latency_us.step;
            let gone = run.overflow.dropped.saturating_add(run.overflow.lost);
            let ratio = (first > 0.0 && step.count > 0).then(|| step.mean / first);
            vec![
                (index + 1).to_string(),
                human::fit(&differing, CONFIGURATION),
                human::maybe_duration((step.count > 0).then_some(step.mean)),
                human::maybe_duration(step.p50),
                human::maybe_duration(step.p99),
                ratio.map_or_else(|| human::NONE.to_owned(), human::ratio),
                human::bytes(run.communication.payload_bytes / run.load.steps.max(1)),
                human::maybe_share(run.communication.time_share),
                human::share_of(gone, run.overflow.assigned),
            ]
        });
    let header = [
        "run",
        "differs in",
        "step",
        "p50",
        "p99",
        "vs 1",
        "bytes",
        "exchange",
        "dropped",
    ];
    let align = |column| {
        if column == 1 {
            Align::Left
        } else {
            Align::Right
        }
    };
    page.table(table::lines(&header, align, rows.collect()));
    page.line(
        "  step: mean; vs 1: its ratio to run 1; bytes: payload a step; exchange: time share;",
    );
    page.line("  dropped: choices dropped or lost");
    outputs(page, runs);
}

/// In what each run differs from others, in words.
pub(crate) fn differences(runs: &[Run]) -> Vec<String> {
    let configurations: Vec<Vec<String>> = runs.iter().map(configuration).collect();
    let differs: Vec<bool> = (0..configurations.first().map_or(0, Vec::len))
        .map(|field| {
            configurations
                .iter()
                .any(|c| c[field] != configurations[0][field])
        })
        .collect();
    let words = configurations.iter().map(|fields| {
        let differing = fields.iter().zip(&differs).filter(|(_, differs)| **differs);
        let differing: Vec<&str> = differing.map(|(field, _)| field.as_str()).collect();
        differing.join(", ")
    });
    words.collect()
}

/// Whether runs made the same bits.
fn outputs(page: &mut Page, runs: &[Run]) {
    let digests: Vec<&str> = runs
        .iter()
        .filter_map(|run| run.digest.as_deref())
        .collect();
    let short = |digest: &str| {
        let head: String = digest.chars().take(DIGEST).collect();
        human::fit(&head, DIGEST)
    };
    match digests.first() {
        None => {}
        Some(first) if digests.iter().all(|digest| digest == first) => {
            let runs = if digests.len() == runs.len() {
                "every run"
            } else {
                "every run with outputs"
            };
            page.field(
                "outputs",
                &format!("the same bits in {runs} ({})", short(first)),
            );
        }
        Some(_) => {
            let of = runs.iter().enumerate().map(|(index, run)| {
                let digest = run
                    .digest
                    .as_deref()
                    .map_or_else(|| human::NONE.to_owned(), short);
                format!("{} {digest}", index + 1)
            });
            page.field(
                "outputs",
                &format!("differ: {}", of.collect::<Vec<_>>().join(", ")),
            );
        }
    }
}

/// What a sweep may vary, the likeliest first; the same fields for every run.
fn configuration(run: &Run) -> Vec<String> {
    let identity = &run.identity;
    let shape = |field: fn(&Shape) -> String| {
        identity
            .shape
            .as_ref()
            .map_or_else(|| human::NONE.to_owned(), field)
    };
    let placement: String = identity.placement_digest.chars().take(DIGEST).collect();
    let clock = clock(run).map_or_else(|| human::NONE.to_owned(), |source| source.to_string());
    vec![
        format!("{clock} times"),
        identity.exchange.to_string(),
        format!("{} workers", identity.workers),
        shape(|s| format!("{} tokens", s.tokens)),
        match run.overflow.capacity_factor {
            Some(factor) => format!("capacity {}", human::number(factor)),
            None => overflow::capacity(&run.overflow),
        },
        match run.load.offered_per_s {
            Some(rate) => format!("{}/s", human::number(rate)),
            None => "closed loop".to_owned(),
        },
        shape(|s| format!("{} experts", s.experts)),
        shape(|s| format!("top-{}", s.top_k)),
        shape(|s| format!("hidden {}", s.hidden)),
        shape(|s| format!("ffn {}", s.ffn)),
        identity.workload.clone(),
        format!("{} combine", identity.combine),
        shape(|s| format!("{} wire", s.wire_dtype)),
        shape(|s| s.dtype.clone()),
        shape(|s| s.expert.clone()),
        identity.model.clone(),
        format!("seed {}", identity.seed),
        format!("placement {placement}"),
        identity.numerics.clone(),
    ]
}
