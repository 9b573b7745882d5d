//! The picture: error against latency, and the fates of choices.

use expertmesh_telemetry::OverflowReport;

use super::marks::places;
use super::{OverflowPage, OverflowRow};
use crate::human;
use crate::svg::{Anchor, Picture, ticks};

const WIDTH: f64 = 1320.0;
/// Both panels begin here.
const TOP: f64 = 76.0;
/// The left panel, from its axis to its end.
const LEFT: (f64, f64) = (76.0, 690.0);
/// The bars of the right panel.
const RIGHT: (f64, f64) = (960.0, 1290.0);
/// Room of a bar; the bar takes most of it.
const ROW: f64 = 24.0;
/// Least height of a panel.
const LEAST: f64 = 430.0;

const INK: &str = "fill=\"#222222\"";
const PALE: &str = "fill=\"#555555\"";
/// Ink with a white rim, for words over lines.
const OVER: &str = "fill=\"#222222\" stroke=\"#ffffff\" stroke-width=\"3\" paint-order=\"stroke\"";
const GRID: &str = "#e3e3e3";
const AXIS: &str = "#666666";

/// Colours of policies, told apart by people who see fewer colours too (after Okabe and Ito).
const COLOURS: [&str; 9] = [
    "#000000", "#d55e00", "#e69f00", "#9c6b30", "#cc79a7", "#0072b2", "#56b4e9", "#009e73",
    "#7b5ea7",
];

/// A fate with its colour and its share of a policy's choices.
type Part = (&'static str, &'static str, fn(&OverflowReport) -> u64);

const FATES: [Part; 6] = [
    ("computed", "#4c9f70", |o| {
        o.computed.saturating_sub(o.events.spilled)
    }),
    ("computed in a later wave", "#a8d5b5", |o| {
        o.events.spilled.min(o.computed)
    }),
    ("rerouted", "#56b4e9", |o| o.rerouted),
    ("dropped", "#d55e00", |o| o.dropped),
    ("skipped", "#bbbbbb", |o| o.skipped),
    ("lost", "#000000", |o| o.lost),
];

pub(super) fn draw(page: &OverflowPage<'_>) -> String {
    let panel = (page.rows.len() as f64 * ROW).max(LEAST);
    let bottom = TOP + panel;
    let mut picture = Picture::new(WIDTH, bottom + 84.0, &page.title);
    let heading = format!("{INK} font-size=\"14\" font-weight=\"bold\"");
    let title = human::fit(&page.title, 150);
    picture.words((16.0, 26.0), Anchor::Start, &heading, &title);
    let policies = policies(page);
    scatter(&mut picture, page, &policies, bottom);
    bars(&mut picture, page, &policies, bottom);
    picture.finish()
}

/// The policies in the order of their first row.
fn policies(page: &OverflowPage<'_>) -> Vec<String> {
    let mut policies: Vec<String> = Vec::new();
    for policy in page.rows.iter().map(base_policy) {
        if !policies.contains(&policy) {
            policies.push(policy);
        }
    }
    policies
}

/// The policy without its rule for weights.
fn base_policy(row: &OverflowRow<'_>) -> String {
    let policy = row.policy();
    policy.split('+').next().unwrap_or_default().to_owned()
}

fn colour(policies: &[String], row: &OverflowRow<'_>) -> &'static str {
    let policy = base_policy(row);
    let at = policies.iter().position(|one| *one == policy);
    COLOURS[at.unwrap_or_default() % COLOURS.len()]
}

/// A scale from figures to pixels.
#[derive(Debug, Clone, Copy)]
struct Scale {
    figures: (f64, f64),
    pixels: (f64, f64),
}

impl Scale {
    fn at(self, figure: f64) -> f64 {
        let (low, high) = self.figures;
        let part = (figure - low) / (high - low).max(f64::MIN_POSITIVE);
        self.pixels.0 + part * (self.pixels.1 - self.pixels.0)
    }
}

/// First and last of some ticks.
fn ends(ticks: &[f64]) -> (f64, f64) {
    let first = ticks.first().copied().unwrap_or_default();
    (first, ticks.last().copied().unwrap_or(first + 1.0))
}

fn scatter(picture: &mut Picture, page: &OverflowPage<'_>, policies: &[String], bottom: f64) {
    let points: Vec<(&OverflowRow<'_>, f64, [f64; 3])> = page
        .rows
        .iter()
        .filter_map(|row| Some((row, row.output_error()?, row.ratios?)))
        .filter(|(_, error, ratios)| error.is_finite() && ratios.iter().all(|r| r.is_finite()))
        .collect();
    let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let low = points.iter().map(|point| point.2[0]).fold(1.0, f64::min);
    let high = points.iter().map(|point| point.2[2]).fold(1.0, f64::max);
    let across = ticks(0.0, most.max(0.01), 6);
    let up = ticks(low, high.max(low + 0.02), 7);
    // A mark at zero stands clear of the axis.
    let x = Scale {
        figures: ends(&across),
        pixels: (LEFT.0 + 14.0, LEFT.1 - 20.0),
    };
    let y = Scale {
        figures: ends(&up),
        pixels: (bottom - 8.0, TOP + 8.0),
    };
    let heading = format!("{INK} font-size=\"12\" font-weight=\"bold\"");
    let title = "What outputs miss, and what a step takes (bars: quartiles)";
    picture.words((LEFT.0, TOP - 14.0), Anchor::Start, &heading, title);
    for tick in &across {
        let at = x.at(*tick);
        picture.line((at, TOP), (at, bottom), GRID, 1.0);
        let label = human::share(*tick);
        picture.words((at, bottom + 16.0), Anchor::Middle, PALE, &label);
    }
    for tick in &up {
        let at = y.at(*tick);
        picture.line((LEFT.0, at), (LEFT.1, at), GRID, 1.0);
        let label = format!("{tick:.2}×");
        picture.words((LEFT.0 - 6.0, at + 4.0), Anchor::End, PALE, &label);
    }
    picture.line((LEFT.0, TOP), (LEFT.0, bottom), AXIS, 1.0);
    picture.line((LEFT.0, bottom), (LEFT.1, bottom), AXIS, 1.0);
    let middle = (LEFT.0 + LEFT.1) / 2.0;
    let label = "output error: ‖y − dropless‖ / ‖dropless‖";
    picture.words((middle, bottom + 36.0), Anchor::Middle, INK, label);
    let label = "latency of a step, median ratio to dropless";
    picture.upwards((20.0, (TOP + bottom) / 2.0), label);

    let marks: Vec<((f64, f64), String)> = points
        .iter()
        .map(|(row, error, ratios)| ((x.at(*error), y.at(ratios[1])), row.label()))
        .collect();
    let places = places(&marks, (LEFT.0 + 2.0, LEFT.1), (TOP, bottom));
    for ((row, _, ratios), (mark, _)) in points.iter().zip(&marks) {
        let colour = colour(policies, row);
        let ends = ((mark.0, y.at(ratios[0])), (mark.0, y.at(ratios[2])));
        picture.faint(ends.0, ends.1, colour);
    }
    for (((row, error, ratios), (mark, label)), place) in points.iter().zip(&marks).zip(&places) {
        let colour = colour(policies, row);
        let is_right = place.left > mark.0;
        let near = if is_right {
            place.left - 2.0
        } else {
            place.right + 2.0
        };
        if (place.middle - mark.1).abs() > 1.0 {
            picture.line(*mark, (near, place.middle), "#b0b0b0", 0.7);
        }
        let says = format!(
            "{label}: output error {}, ratio {}",
            human::share(*error),
            human::ratio(ratios[1])
        );
        picture.disc(*mark, 5.0, colour, &says);
        let (edge, anchor) = match is_right {
            true => (place.left, Anchor::Start),
            false => (place.right, Anchor::End),
        };
        picture.words((edge, place.middle + 4.0), anchor, OVER, label);
    }
}

fn bars(picture: &mut Picture, page: &OverflowPage<'_>, policies: &[String], bottom: f64) {
    let x = Scale {
        figures: (0.0, 1.0),
        pixels: RIGHT,
    };
    let heading = format!("{INK} font-size=\"12\" font-weight=\"bold\"");
    let title = "What became of the gate's choices";
    picture.words((RIGHT.0, TOP - 14.0), Anchor::Start, &heading, title);
    for tick in ticks(0.0, 1.0, 5) {
        let at = x.at(tick);
        picture.line((at, TOP), (at, bottom), GRID, 1.0);
        let label = human::share(tick);
        picture.words((at, bottom + 16.0), Anchor::Middle, PALE, &label);
    }
    for (at, row) in page.rows.iter().enumerate() {
        let top = TOP + at as f64 * ROW + 3.0;
        let height = ROW - 6.0;
        let middle = top + height / 2.0;
        picture.disc(
            (RIGHT.0 - 14.0, middle),
            4.0,
            colour(policies, row),
            &row.label(),
        );
        let label = row.label();
        picture.words((RIGHT.0 - 24.0, middle + 4.0), Anchor::End, INK, &label);
        let overflow = &row.run.overflow;
        let mut before = 0;
        for (fate, colour, count) in FATES {
            let count = count(overflow);
            if count == 0 || overflow.assigned == 0 {
                continue;
            }
            let whole = overflow.assigned as f64;
            let (from, to) = (before as f64 / whole, (before + count) as f64 / whole);
            let share = human::share_of(count, overflow.assigned);
            let says = format!("{label}: {fate} {share}");
            let width = x.at(to) - x.at(from);
            picture.bar((x.at(from), top), (width, height), colour, &says);
            before += count;
        }
    }
    picture.line((RIGHT.0, TOP), (RIGHT.0, bottom), AXIS, 1.0);
    picture.line((RIGHT.0, bottom), (RIGHT.1, bottom), AXIS, 1.0);
    let middle = (RIGHT.0 + RIGHT.1) / 2.0;
    let label = "share of the choices that the gate made";
    picture.words((middle, bottom + 36.0), Anchor::Middle, INK, label);
    picture.upwards((734.0, (TOP + bottom) / 2.0), "policy ×capacity factor");
    legend(picture, page, bottom + 62.0);
}

/// The fates that occur.
fn legend(picture: &mut Picture, page: &OverflowPage<'_>, y: f64) {
    let mut at = 830.0;
    for (fate, colour, count) in FATES {
        if page.rows.iter().all(|row| count(&row.run.overflow) == 0) {
            continue;
        }
        picture.bar((at, y - 9.0), (11.0, 11.0), colour, fate);
        picture.words((at + 16.0, y), Anchor::Start, INK, fate);
        at += 34.0 + fate.len() as f64 * crate::svg::LETTER;
    }
}
