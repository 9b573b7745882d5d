//! Who sent whom how much: the byte matrix as a heat map, with sums.

use expertmesh_telemetry::Run;

use super::chart::Chart;
use super::markup::card as framed;
use crate::human;

/// Rows of the largest map; endpoints beyond are taken together.
const MOST: usize = 40;
/// Rows of the largest map whose cells carry their numbers.
const LETTERED: usize = 17;
/// Room on the left for names, and above for names that rise.
const NAMES: (f64, f64) = (118.0, 84.0);
/// Width of a map of few endpoints, which has a neighbour, and of a larger one.
const WIDTHS: (f64, f64) = (560.0, 1160.0);
/// The most endpoints of the former.
const FEW: usize = 9;

/// Endpoints that share a row: their name, and the first and the one after the last.
struct Group {
    name: String,
    from: usize,
    to: usize,
}

/// The heat map of a run.
pub(super) fn card(run: &Run) -> String {
    let matrix = &run.communication.matrix_bytes;
    if matrix.iter().flatten().all(|bytes| *bytes == 0) {
        let note = "No bytes moved between endpoints.";
        return framed("", "Traffic between endpoints", note, "");
    }
    let groups = groups(&run.identity.endpoints, matrix.len());
    let mut note = format!(
        "Encoded bytes from row to column, all {} recorded steps together.",
        run.load.steps
    );
    if groups.iter().any(|group| group.to - group.from > 1) {
        note.push_str(" Neighbours are taken together.");
    }
    let class = if groups.len() <= FEW { "half" } else { "" };
    framed(
        class,
        "Traffic between endpoints",
        &note,
        &map(run, &groups),
    )
}

/// The coordinator by itself, and workers, alone or as many together as it takes.
fn groups(names: &[String], endpoints: usize) -> Vec<Group> {
    let name = |at: usize| human::fit(names.get(at).map_or("?", String::as_str), 16);
    let each = (endpoints.saturating_sub(1)).div_ceil(MOST - 1).max(1);
    let mut groups = Vec::new();
    let mut from = 0;
    while from < endpoints {
        let to = match from {
            0 => 1,
            from => (from + each).min(endpoints),
        };
        groups.push(Group {
            name: match to - from {
                1 => name(from),
                _ => format!(
                    "{} … {}",
                    human::fit(&name(from), 11),
                    number(&name(to - 1))
                ),
            },
            from,
            to,
        });
        from = to;
    }
    groups
}

/// What tells the last of several apart: the digits at the end of its name, or all of it.
fn number(name: &str) -> &str {
    let digits = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    match &name[digits..] {
        "" => name,
        digits => digits,
    }
}

fn between(matrix: &[Vec<u64>], from: &Group, to: &Group) -> u64 {
    let rows = matrix.get(from.from..from.to).unwrap_or_default();
    rows.iter()
        .flat_map(|row| row.iter().skip(to.from).take(to.to - to.from))
        .fold(0, |sum: u64, bytes| sum.saturating_add(*bytes))
}

fn map(run: &Run, groups: &[Group]) -> String {
    let matrix = &run.communication.matrix_bytes;
    let cells: Vec<Vec<u64>> = groups
        .iter()
        .map(|from| groups.iter().map(|to| between(matrix, from, to)).collect())
        .collect();
    let most = cells.iter().flatten().copied().max().unwrap_or(1).max(1);
    let n = groups.len();
    // Sums stand apart by half a cell.
    let width = if n <= FEW { WIDTHS.0 } else { WIDTHS.1 };
    // Names that rise need room at the right.
    let cell = ((width - NAMES.0 - 24.0) / (n as f64 + 1.8)).min(78.0);
    let height = (cell * 0.62).clamp(14.0, 44.0);
    let is_lettered = n <= LETTERED;
    let room = if is_lettered { 0.0 } else { 34.0 };
    let bottom = NAMES.1 + height * (n as f64 + 1.5) + room;
    let mut chart = Chart::new(width, bottom + 8.0, "Heat map of traffic between endpoints");
    let x = |column: f64| NAMES.0 + column * cell;
    let y = |row: f64| NAMES.1 + row * height;
    let small = if cell < 48.0 { "small" } else { "" };
    let steps = run.load.steps.max(1);
    for (row, group) in groups.iter().enumerate() {
        let middle = y(row as f64 + 0.5) + 4.0;
        chart.words((NAMES.0 - 8.0, middle), "end", small, &group.name);
        let at = (x(row as f64 + 0.35), NAMES.1 - 6.0);
        chart.rising(at, small, &group.name);
        for (column, bytes) in cells[row].iter().enumerate() {
            let share = *bytes as f64 / most as f64;
            let at = (x(column as f64) + 1.0, y(row as f64) + 1.0);
            let size = (cell - 2.0, height - 2.0);
            let says = format!(
                "{} to {}: {} bytes, {} a step",
                group.name,
                groups[column].name,
                human::count(*bytes),
                human::bytes(bytes / steps)
            );
            chart.rect(at, size, "empty", "", &says);
            if *bytes == 0 {
                continue;
            }
            let style = format!("fill-opacity:{:.3}", 0.08 + 0.92 * share);
            chart.rect(at, size, "cell", &style, &says);
            if is_lettered {
                let hot = if share > 0.42 { "hot" } else { "" };
                let class = format!("{hot} {small}");
                let at = (x(column as f64 + 0.5), middle);
                chart.words(at, "middle", class.trim(), &human::bytes_dense(*bytes));
            }
        }
    }
    let last = n as f64 + 0.35;
    let sums = |chart: &mut Chart, at: (f64, f64), bytes: u64| {
        let class = format!("strong {small}");
        chart.words(at, "middle", class.trim(), &human::bytes_dense(bytes));
    };
    chart.words(
        (NAMES.0 - 8.0, y(last + 0.5) + 4.0),
        "end",
        "soft",
        "received",
    );
    chart.words((x(last + 0.5), NAMES.1 - 6.0), "middle", "soft", "sent");
    for at in 0..n {
        let sent = cells[at]
            .iter()
            .fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        let received = cells
            .iter()
            .fold(0, |sum: u64, row| sum.saturating_add(row[at]));
        sums(&mut chart, (x(last + 0.5), y(at as f64 + 0.5) + 4.0), sent);
        if is_lettered {
            let at = (x(at as f64 + 0.5), y(last + 0.5) + 4.0);
            sums(&mut chart, at, received);
        } else {
            let at = (x(at as f64 + 0.3), y(last + 0.5) + room);
            chart.rising(at, "strong small", &human::bytes_dense(received));
        }
    }
    let all = cells
        .iter()
        .flatten()
        .fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    sums(&mut chart, (x(last + 0.5), y(last + 0.5) + 4.0), all);
    format!("<div class=\"scroll\">{}</div>\n", chart.finish())
}
