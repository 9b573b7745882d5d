//! What was run, how it was offered, and where its numbers come from.

use super::Page;
use crate::human;
use expertmesh_telemetry::{ExchangeChoice, Identity, Load, LoadMode, Run, Shape, Source};

pub(super) fn write(page: &mut Page, run: &Run) {
    let Identity {
        model,
        seed,
        workload,
        placement_digest,
        numerics,
        shape,
        ..
    } = &run.identity;
    page.field("model", model);
    if let Some(shape) = shape {
        page.field("layer", &layer(shape));
        page.field(
            "batch",
            &format!("{} tokens a step", human::count(shape.tokens)),
        );
    }
    page.field("workload", &format!("{workload}, seed {seed}"));
    page.field("placement", placement_digest);
    page.field("numerics", numerics);
    if let Some(choice) = &run.exchange_choice {
        page.field("chosen from", &chosen(choice));
    }
    page.field("load", &load(&run.load));
    for line in sources(run) {
        page.field("figures", &line);
    }
}

fn layer(shape: &Shape) -> String {
    let Shape {
        hidden,
        ffn,
        experts,
        top_k,
        expert,
        dtype,
        wire_dtype,
        ..
    } = shape;
    let ffn = if *ffn == 0 {
        String::new()
    } else {
        format!(", ffn {}", human::count(*ffn))
    };
    format!(
        "{} {expert} experts, top-{top_k}, hidden {}{ffn}, {dtype}, {wire_dtype} on the wire",
        human::count(*experts),
        human::count(*hidden),
    )
}

/// The exchanges that could be had, by what a cost model said of them.
pub(crate) fn chosen(choice: &ExchangeChoice) -> String {
    let predicted = choice.predicted_us.iter();
    let predicted: Vec<String> = predicted
        .map(|(name, us)| format!("{name} {}", human::duration(*us)))
        .collect();
    format!("{}, predicted", predicted.join(", "))
}

fn load(load: &Load) -> String {
    let steps = match load.steps {
        1 => "1 step".to_owned(),
        steps => format!("{} steps", human::count(steps)),
    };
    let warmup = human::count(load.warmup_steps);
    let mut text = format!("{} loop: {steps} after {warmup} of warm-up", load.mode);
    if let Some(rate) = load.achieved_per_s {
        text.push_str(&format!(", {}/s", human::number(rate)));
    }
    if let (LoadMode::Open, Some(offered)) = (load.mode, load.offered_per_s) {
        text.push_str(&format!(" of {}/s offered", human::number(offered)));
    }
    if let Some(lag) = load.max_lag_us {
        text.push_str(&format!(", at most {} late", human::duration(lag)));
    }
    text
}

/// Every number has a source. Most of a run's share one, so they are told by group, and each
/// figure that differs from its group by name.
fn sources(run: &Run) -> Vec<String> {
    const GROUPS: [(&str, &str, &[&str]); 3] = [
        (
            "times",
            "latency_us.step",
            &[
                "latency_us",
                "load",
                "communication.time_share",
                "communication.algbw_gbps",
                "communication.busbw_gbps",
            ],
        ),
        ("bytes", "communication.payload_bytes", &["communication"]),
        ("choices", "overflow", &["overflow", "balance"]),
    ];
    let below = |path: &str, group: &str| {
        path.strip_prefix(group)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let groups: Vec<(&str, Source)> = GROUPS
        .iter()
        .filter_map(|(name, path, _)| Some((*name, run.source_of(path)?)))
        .collect();
    let told = match groups.as_slice() {
        [] => "of unstated source".to_owned(),
        [(_, first), rest @ ..] if rest.iter().all(|(_, source)| source == first) => {
            format!("all {first}")
        }
        groups => {
            let groups = groups
                .iter()
                .map(|(name, source)| format!("{name} {source}"));
            groups.collect::<Vec<_>>().join(", ")
        }
    };
    let differing = run.source.iter().filter_map(|(path, source)| {
        let group = GROUPS
            .iter()
            .find(|(_, _, paths)| paths.iter().any(|group| below(path, group)))
            .and_then(|(_, representative, _)| run.source_of(representative));
        (group != Some(*source)).then(|| format!("{path} {source}"))
    });
    std::iter::once(told).chain(differing).collect()
}
