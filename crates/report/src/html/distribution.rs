//! How latencies spread: a histogram, and the percentiles.

use expertmesh_telemetry::{Distribution, Latency, Run};

use super::chart::{Chart, Scale};
use super::markup::{card as framed, legend};
use crate::human;
use crate::svg::ticks;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 546.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 160.0;
/// A longest that is so many times the shortest asks for a logarithmic scale.
const WIDE: f64 = 12.0;
/// Samples that must lie beyond the end of a percentile curve, as beyond every stated percentile.
const BEYOND: f64 = 10.0;

/// What is drawn: name in the report, colour.
const SERIES: [(&str, &str); 2] = [("step", "accent"), ("exchange", "send")];

struct Series<'a> {
    name: &'static str,
    colour: &'static str,
    latency: &'a Latency,
    shape: Option<&'a Distribution>,
}

/// Histogram and percentile curve of a run.
pub(super) fn card(run: &Run) -> String {
    let us = &run.latency_us;
    let series: Vec<Series<'_>> = SERIES
        .iter()
        .map(|(name, colour)| Series {
            name,
            colour,
            latency: if *name == "step" {
                &us.step
            } else {
                &us.exchange
            },
            shape: (us.distribution.get(*name))
                .filter(|shape| shape.buckets().any(|(_, _, count)| count > 0)),
        })
        .filter(|series| series.latency.count > 0)
        .collect();
    let mut body = String::new();
    if series.iter().any(|series| series.shape.is_some()) {
        body.push_str(&histogram(&series));
    }
    body.push_str(&percentiles(&series));
    body.push_str(&legend(
        series.iter().map(|series| (series.name, series.colour, "")),
    ));
    let note = "Above: areas are shares of steps. Below: the duration that a share of steps stays under; \
                dots are the report's percentiles, and no curve goes where fewer than ten samples lie \
                beyond.";
    framed("half", "Latency distribution", note, &body)
}

/// A scale of durations: figures are logarithms where they spread widely.
struct Durations {
    scale: Scale,
    is_log: bool,
}

impl Durations {
    fn new(low: f64, high: f64, pixels: (f64, f64)) -> Self {
        // Bounded, so that no ratio, logarithm or tick of them leaves what a float holds.
        let low = low.clamp(1e-3, 1e300);
        let high = high.clamp(low * 1.02, 1e301);
        let is_log = high / low > WIDE;
        let figures = match is_log {
            true => (low.log10(), high.log10()),
            false => (low, high),
        };
        Self {
            scale: Scale { figures, pixels },
            is_log,
        }
    }

    fn at(&self, us: f64) -> f64 {
        match self.is_log {
            true => self.scale.at(us.max(1e-3).log10()),
            false => self.scale.at(us),
        }
    }

    /// Round durations within the scale.
    fn ticks(&self) -> Vec<f64> {
        let (low, high) = self.scale.figures;
        if !self.is_log {
            let all = ticks(low, high, 5);
            return all
                .into_iter()
                .filter(|us| *us >= low && *us <= high)
                .collect();
        }
        let mut all = Vec::new();
        let mut decade = low.floor();
        while decade <= high {
            let steps = [1.0, 2.0, 5.0].map(|times: f64| decade + times.log10());
            all.extend(steps.into_iter().filter(|at| *at >= low && *at <= high));
            decade += 1.0;
        }
        if all.len() > 7 {
            all.retain(|at| (at - at.round()).abs() < 1e-9);
        }
        all.into_iter().map(|at| 10f64.powf(at)).collect()
    }
}

fn extremes(series: &[Series<'_>]) -> (f64, f64) {
    let low = series
        .iter()
        .map(|one| one.latency.min)
        .fold(f64::MAX, f64::min);
    let high = series.iter().map(|one| one.latency.max).fold(0.0, f64::max);
    (low.min(high), high)
}

fn histogram(series: &[Series<'_>]) -> String {
    let mut chart = Chart::new(WIDTH, HEIGHT, "Histogram of latencies");
    let edges = series
        .iter()
        .filter_map(|one| one.shape)
        .flat_map(|shape| &shape.edges);
    let (low, high) = edges.fold((f64::MAX, 0.0_f64), |(low, high), edge| {
        (low.min(*edge), high.max(*edge))
    });
    let x = Durations::new(low, high, (LEFT, RIGHT));
    // Buckets are not of one width: areas tell shares, not heights.
    let density = |(from, to, count): (f64, f64, u64), shape: &Distribution| {
        let width = (x.at(to) - x.at(from)).max(0.1);
        count as f64 / shape.total().max(1) as f64 / width
    };
    let shapes = series.iter().filter_map(|one| one.shape);
    let all = shapes.flat_map(|shape| shape.buckets().map(|bucket| density(bucket, shape)));
    let y = Scale {
        figures: (0.0, all.fold(f64::MIN_POSITIVE, f64::max)),
        pixels: (BOTTOM, TOP),
    };
    across(&mut chart, &x);
    for one in series {
        let Some(shape) = one.shape else {
            continue;
        };
        for bucket in shape.buckets().filter(|(_, _, count)| *count > 0) {
            let (from, to, count) = bucket;
            let (left, right) = (x.at(from), x.at(to));
            let top = y.at(density(bucket, shape));
            let says = format!(
                "{} {} to {}: {count} samples",
                one.name,
                human::duration(from),
                human::duration(to)
            );
            let style = format!("--fill:var(--{})", one.colour);
            chart.rect(
                (left, top),
                (right - left, BOTTOM - top),
                "area",
                &style,
                &says,
            );
        }
    }
    chart.line((LEFT, BOTTOM), (RIGHT, BOTTOM), "axis");
    chart.finish()
}

fn across(chart: &mut Chart, x: &Durations) {
    for us in x.ticks() {
        chart.line((x.at(us), BOTTOM), (x.at(us), BOTTOM + 4.0), "axis");
        let label = human::duration(us);
        chart.words((x.at(us), BOTTOM + 18.0), "middle", "soft", &label);
    }
}

/// A percentile's place: every further nine takes the same room.
fn nines(share: f64) -> f64 {
    -(1.0 - share).max(1e-9).log10()
}

fn percentiles(series: &[Series<'_>]) -> String {
    let mut chart = Chart::new(WIDTH, HEIGHT, "Latency by percentile");
    let (low, high) = extremes(series);
    let samples = series
        .iter()
        .map(|one| one.latency.count)
        .max()
        .unwrap_or(0);
    let end = (1.0 - BEYOND / samples.max(1) as f64).max(0.5);
    let x = Scale {
        figures: (0.0, nines(end.max(0.9))),
        pixels: (LEFT, RIGHT),
    };
    let y = Durations::new(low, high, (BOTTOM, TOP));
    for us in y.ticks() {
        chart.line((LEFT, y.at(us)), (RIGHT, y.at(us)), "grid-line");
        let label = human::duration(us);
        chart.words((LEFT - 6.0, y.at(us) + 4.0), "end", "soft", &label);
    }
    for (share, label) in [
        (0.0, "0"),
        (0.5, "p50"),
        (0.9, "p90"),
        (0.99, "p99"),
        (0.999, "p99.9"),
        (0.9999, "p99.99"),
    ] {
        if nines(share) <= x.figures.1 + 1e-9 {
            let at = x.at(nines(share));
            chart.line((at, BOTTOM), (at, BOTTOM + 4.0), "axis");
            chart.words((at, BOTTOM + 18.0), "middle", "soft", label);
        }
    }
    for one in series {
        if let Some(shape) = one.shape {
            let total = shape.total().max(1) as f64;
            let last = 1.0 - BEYOND / total;
            let mut before = 0u64;
            let mut points = vec![(LEFT, y.at(one.latency.min))];
            for (_, to, count) in shape.buckets() {
                before = count.saturating_add(before);
                let share = before as f64 / total;
                if share <= last {
                    points.push((x.at(nines(share)), y.at(to.min(one.latency.max))));
                }
            }
            if points.len() > 1 {
                chart.curve(&points, one.colour);
            }
        }
        let us = one.latency;
        let stated = [
            (0.5, "p50", us.p50),
            (0.9, "p90", us.p90),
            (0.95, "p95", us.p95),
            (0.99, "p99", us.p99),
            (0.999, "p99.9", us.p999),
        ];
        for (share, name, value) in stated {
            if let Some(value) = value {
                let says = format!("{} {name}: {}", one.name, human::duration(value));
                chart.dot((x.at(nines(share)), y.at(value)), one.colour, &says);
            }
        }
    }
    chart.line((LEFT, BOTTOM), (RIGHT, BOTTOM), "axis");
    chart.finish()
}
