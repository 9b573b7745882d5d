//! Single steps: when each endpoint did what.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expertmesh_telemetry::{Lane, Phase, Trace};

use super::chart::{Chart, Scale};
use super::markup::{card as framed, legend};
use crate::human;
use crate::svg::ticks;

/// Steps that a page shows, the last ones of a trace.
const STEPS: usize = 12;
/// Endpoints that a picture shows: the coordinator, and those that were busy longest into the step.
const ENDPOINTS: usize = 24;
/// Lanes of a picture, the longest ones.
const LANES: usize = 3000;

const WIDTH: f64 = 1160.0;
const LEFT: f64 = 178.0;
const RIGHT: f64 = 1146.0;
const TOP: f64 = 26.0;
/// Between endpoints.
const GAP: f64 = 7.0;

/// A measured step, a predicted one, or both.
struct Step {
    number: u64,
    /// Measured ones first; each with the beginning of its step.
    lanes: Vec<(Lane, u64)>,
}

/// The lanes of a run's steps. `at` is the run's place in the report.
pub(super) fn card(trace: &Trace, at: usize) -> String {
    let all = steps(trace);
    let first = all.len().saturating_sub(STEPS);
    let (mut options, mut pictures) = (String::new(), String::new());
    let mut is_cut = false;
    for (place, step) in all[first..].iter().enumerate() {
        let number = step.number;
        let _ = write!(options, "<option value=\"{place}\">step {number}</option>");
        let (picture, cut) = draw(trace, step);
        is_cut |= cut;
        let _ = writeln!(
            pictures,
            "<figure class=\"step-{at}\" style=\"margin:0\"><figcaption class=\"note\">Step {number}\
             </figcaption>{picture}</figure>"
        );
    }
    let has = |predicted| trace.lanes.iter().any(|lane| lane.predicted == predicted);
    let phases = Phase::ALL
        .iter()
        .filter(|phase| trace.lanes.iter().any(|lane| lane.phase == **phase));
    let mut entries: Vec<(&str, &str, &str)> = phases
        .map(|phase| (phase.name(), phase.name(), ""))
        .collect();
    if has(true) {
        entries.push(("predicted", "soft", "hatch"));
    }
    let mut note = format!(
        "The last {} recorded steps with lanes, a row for each endpoint and phase; lanes that overlap \
         lie over each other.",
        all.len() - first
    );
    if is_cut {
        let _ = write!(
            note,
            " Shown are at most {ENDPOINTS} endpoints, those that worked longest into the step, and \
             {LANES} lanes; the trace has all."
        );
    }
    if has(true) && has(false) {
        note.push_str(" Predicted steps begin where the measured ones do.");
    }
    let body = format!(
        "<p><label hidden>Step: <select data-parts=\"figure.step-{at}\">{options}</select></label></p>\n\
         <div class=\"scroll\">{pictures}</div>\n{}",
        legend(entries)
    );
    framed("", "Timeline of a step", &note, &body)
}

/// The steps of a trace; the first predicted one beside the first measured one, and so on.
fn steps(trace: &Trace) -> Vec<Step> {
    let of = |predicted: bool| -> Vec<(u64, Vec<Lane>)> {
        let mut steps: BTreeMap<u64, Vec<Lane>> = BTreeMap::new();
        for lane in trace
            .lanes
            .iter()
            .filter(|lane| lane.predicted == predicted)
        {
            steps.entry(lane.step).or_default().push(*lane);
        }
        steps.into_iter().collect()
    };
    let begun = |(number, lanes): &(u64, Vec<Lane>)| {
        let begin = lanes.iter().map(|lane| lane.begin_ns).min().unwrap_or(0);
        let lanes = lanes.iter().map(|lane| (*lane, begin)).collect();
        Step {
            number: *number,
            lanes,
        }
    };
    let mut all: Vec<Step> = of(false).iter().map(begun).collect();
    for (place, predicted) in of(true).iter().map(begun).enumerate() {
        match all.get_mut(place) {
            Some(measured) => measured.lanes.extend(predicted.lanes),
            None => all.push(predicted),
        }
    }
    all
}

/// Endpoints in the order of their ids: all, or those that were busy last.
fn endpoints(step: &Step) -> (Vec<u32>, bool) {
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    for (lane, begin) in &step.lanes {
        let end = last.entry(lane.endpoint).or_default();
        *end = (*end).max(lane.end_ns.saturating_sub(*begin));
    }
    let mut order: Vec<(u32, u64)> = last.into_iter().collect();
    let is_cut = order.len() > ENDPOINTS;
    order.sort_by_key(|(id, end)| (*id != 0, std::cmp::Reverse(*end), *id));
    order.truncate(ENDPOINTS);
    let mut ids: Vec<u32> = order.into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    (ids, is_cut)
}

/// The picture of a step, and whether it leaves anything out.
fn draw(trace: &Trace, step: &Step) -> (String, bool) {
    let (ids, mut is_cut) = endpoints(step);
    let mut lanes: Vec<(Lane, u64)> = step.lanes.clone();
    lanes.retain(|(lane, _)| ids.binary_search(&lane.endpoint).is_ok());
    if lanes.len() > LANES {
        is_cut = true;
        lanes.sort_by_key(|(lane, _)| std::cmp::Reverse(lane.duration_ns()));
        lanes.truncate(LANES);
    }
    // Endpoint, phase, predicted: where its row stands.
    let mut rows: BTreeMap<(u32, usize, bool), f64> = BTreeMap::new();
    for (lane, _) in &lanes {
        rows.insert((lane.endpoint, lane.phase.index(), lane.predicted), 0.0);
    }
    let height = if rows.len() > 90 { 8.0 } else { 13.0 };
    let (mut y, mut before) = (TOP, None);
    for ((endpoint, _, _), place) in &mut rows {
        if before.is_some_and(|before| before != *endpoint) {
            y += GAP;
        }
        before = Some(*endpoint);
        *place = y;
        y += height;
    }
    let end = lanes
        .iter()
        .map(|(lane, begin)| lane.end_ns.saturating_sub(*begin))
        .max()
        .unwrap_or(1);
    let x = Scale {
        figures: (0.0, end as f64 / 1000.0),
        pixels: (LEFT, RIGHT),
    };
    let mut chart = Chart::new(WIDTH, y + 6.0, &format!("Timeline of step {}", step.number));
    for tick in ticks(0.0, x.figures.1, 8)
        .into_iter()
        .filter(|us| *us <= x.figures.1)
    {
        chart.line((x.at(tick), TOP - 4.0), (x.at(tick), y), "grid-line");
        chart.words(
            (x.at(tick), TOP - 9.0),
            "middle",
            "soft small",
            &human::duration(tick),
        );
    }
    labels(&mut chart, trace, &rows, height);
    for (lane, begin) in &lanes {
        let Some(top) = rows.get(&(lane.endpoint, lane.phase.index(), lane.predicted)) else {
            continue;
        };
        let from = x.at(lane.begin_ns.saturating_sub(*begin) as f64 / 1000.0);
        let to = x.at(lane.end_ns.saturating_sub(*begin) as f64 / 1000.0);
        let class = if lane.predicted {
            "lane predicted"
        } else {
            "lane"
        };
        let style = format!("--fill:var(--{})", lane.phase);
        let size = ((to - from).max(0.8), height - 2.0);
        chart.rect(
            (from, top + 1.0),
            size,
            class,
            &style,
            &says(trace, lane, *begin),
        );
    }
    (chart.finish(), is_cut)
}

/// The name of each endpoint beside its first row, of phases where there is room.
fn labels(chart: &mut Chart, trace: &Trace, rows: &BTreeMap<(u32, usize, bool), f64>, height: f64) {
    let mut before = None;
    for ((endpoint, phase, predicted), top) in rows {
        if before != Some(*endpoint) {
            if before.is_some() {
                chart.line(
                    (8.0, top - GAP / 2.0),
                    (RIGHT, top - GAP / 2.0),
                    "grid-line",
                );
            }
            let name = human::fit(&name(trace, *endpoint), 16);
            chart.words((8.0, top + 10.0), "start", "strong", &name);
        }
        before = Some(*endpoint);
        if height > 10.0 {
            let phase = Phase::ALL.get(*phase).map_or("", |phase| phase.name());
            let mark = if *predicted { "′" } else { "" };
            let at = (LEFT - 8.0, top + 10.0);
            chart.words(at, "end", "soft small", &format!("{phase}{mark}"));
        }
    }
}

fn name(trace: &Trace, id: u32) -> String {
    let name = trace.endpoints.get(id as usize);
    name.map_or_else(|| format!("endpoint {id}"), Clone::clone)
}

fn says(trace: &Trace, lane: &Lane, begin: u64) -> String {
    let us = |ns: u64| human::duration(ns as f64 / 1000.0);
    let mut text = format!("{} {}", name(trace, lane.endpoint), lane.phase);
    if let Some(peer) = lane.peer {
        let word = match lane.phase {
            Phase::Queue | Phase::Experts => "for",
            _ => "to",
        };
        let _ = write!(text, " {word} {}", name(trace, peer));
    }
    let _ = write!(
        text,
        ": {} from {}",
        us(lane.duration_ns()),
        us(lane.begin_ns.saturating_sub(begin))
    );
    if lane.bytes > 0 {
        let _ = write!(text, ", {}", human::bytes(lane.bytes));
    }
    if lane.predicted {
        text.push_str(", predicted");
    }
    text
}
