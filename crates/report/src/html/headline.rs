//! The figures that people look for first, each with where it comes from.

use expertmesh_telemetry::{Latency, Run, Source};

use super::markup::escape;
use crate::human;

/// A figure of the report.
struct Figure<'a> {
    name: &'a str,
    /// Its path in the report, for its source and its band.
    path: String,
    value: String,
    /// As the report has it.
    exact: String,
    more: String,
}

/// Cards with the headline figures.
pub(super) fn figures(run: &Run) -> String {
    let us = &run.latency_us;
    let mut figures = vec![
        timed("step", "latency_us.step", &us.step),
        timed("exchange", "latency_us.exchange", &us.exchange),
        timed("dispatch", "latency_us.dispatch", &us.dispatch),
        timed("combine", "latency_us.combine", &us.combine),
    ];
    if let Some(floor) = &us.floor {
        figures.push(timed("floor", "latency_us.floor", floor));
    }
    let c = &run.communication;
    let steps = run.load.steps.max(1);
    figures.push(Figure {
        name: "steps a second",
        path: "load.achieved_per_s".to_owned(),
        value: human::maybe_number(run.load.achieved_per_s),
        exact: exact(run.load.achieved_per_s),
        more: match run.load.offered_per_s {
            Some(offered) => format!("of {} offered", human::number(offered)),
            None => "closed loop".to_owned(),
        },
    });
    figures.push(Figure {
        name: "bytes a step",
        path: "communication.payload_bytes".to_owned(),
        value: human::bytes(c.payload_bytes / steps),
        exact: format!("{} bytes in {steps} steps", c.payload_bytes),
        more: format!("in {} messages", human::count_short(c.messages / steps)),
    });
    figures.push(Figure {
        name: "time in exchange",
        path: "communication.time_share".to_owned(),
        value: human::maybe_share(c.time_share),
        exact: exact(c.time_share),
        more: "of a step, experts left out".to_owned(),
    });
    figures.push(Figure {
        name: "algbw",
        path: "communication.algbw_gbps".to_owned(),
        value: human::maybe_bandwidth(c.algbw_gbps),
        exact: exact(c.algbw_gbps),
        more: match c.busbw_gbps {
            Some(busbw) => format!("busbw {}", human::bandwidth(busbw)),
            None => "as nccl-tests define it".to_owned(),
        },
    });
    let overflow = &run.overflow;
    let gone = overflow.dropped.saturating_add(overflow.lost);
    figures.push(Figure {
        name: "dropped or lost",
        path: "overflow.dropped".to_owned(),
        value: human::share_of(gone, overflow.assigned),
        exact: format!("{gone} of {} choices", overflow.assigned),
        more: match overflow.capacity_factor {
            Some(factor) => format!("capacity factor {}", human::number(factor)),
            None => "dropless".to_owned(),
        },
    });
    figures.push(Figure {
        name: "busiest expert",
        path: "balance.max_over_mean".to_owned(),
        value: human::ratio(run.balance.max_over_mean),
        exact: run.balance.max_over_mean.to_string(),
        more: "the mean of all experts".to_owned(),
    });
    let cards = figures.iter().map(|figure| one(run, figure));
    format!(
        "<div class=\"figures\">\n{}</div>\n",
        cards.collect::<String>()
    )
}

/// A duration by its median, or by its mean where the samples do not support one.
fn timed<'a>(name: &'a str, path: &str, latency: &Latency) -> Figure<'a> {
    let (kind, us) = typical(latency);
    let mut more = format!("{kind} of {}", human::count_short(latency.count));
    if let Some(p99) = latency.p99 {
        more = format!("{kind}; p99 {}", human::duration(p99));
    }
    Figure {
        name,
        path: format!("{path}.{kind}"),
        value: human::maybe_duration((latency.count > 0).then_some(us)),
        exact: format!("{us} µs"),
        more,
    }
}

/// The median with its name, or the mean where there is none.
pub(super) fn typical(latency: &Latency) -> (&'static str, f64) {
    match latency.p50 {
        Some(p50) => ("p50", p50),
        None => ("mean", latency.mean),
    }
}

fn exact(value: Option<f64>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

fn one(run: &Run, figure: &Figure<'_>) -> String {
    let path = figure.path.as_str();
    let more = match band(run, path) {
        None => escape(&figure.more),
        Some([low, high]) => {
            let show = |value: f64| match path.starts_with("latency_us.") {
                true => human::duration(value),
                false => human::number(value),
            };
            escape(&format!("{} – {}", show(low), show(high)))
        }
    };
    format!(
        "<div class=\"figure\">\n<div class=\"name\">{}</div>\n\
         <div class=\"value\" title=\"{}\">{}</div>\n<div class=\"more\">{more}</div>\n{}</div>\n",
        escape(figure.name),
        escape(&figure.exact),
        escape(&figure.value),
        source(run.source_of(path)),
    )
}

/// The band of a figure: its own, or that of the closest path above it.
pub(super) fn band(run: &Run, path: &str) -> Option<[f64; 2]> {
    let mut path = path;
    loop {
        if let Some(band) = run.bands.get(path) {
            return Some(*band);
        }
        path = path.rsplit_once('.')?.0;
    }
}

/// A mark with the name of the source.
pub(super) fn source(source: Option<Source>) -> String {
    match source {
        None => String::new(),
        Some(source) => format!("<span class=\"source {source}\">{source}</span>\n"),
    }
}
