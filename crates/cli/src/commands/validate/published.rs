//! `validate --published`: figures of others beside ours, as tables or JSON.

use std::fmt::Write as _;
use std::path::PathBuf;

use expertmesh_bench::published::{Row, Section, Table, every_section};

use crate::error::Failure;
use crate::output::print;

/// Prints every section, and fails if a row misses its bound.
///
/// # Errors
/// [`Failure::Input`] for a table that cannot be used, [`Failure::Gate`] for a bound that is missed.
pub(super) fn run(tables: &[PathBuf], json: bool) -> Result<(), Failure> {
    let own = Table::deepep_h100().map_err(Failure::run)?;
    let given = tables.iter().map(|file| Table::read(file));
    let given = given
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::input)?;
    let tables: Vec<Table> = std::iter::once(own).chain(given).collect();
    let sections = every_section(&tables).map_err(Failure::input)?;
    if json {
        let text = serde_json::to_string_pretty(&sections).map_err(Failure::run)?;
        print(&format!("{text}\n"))?;
    } else {
        print(&page(&sections))?;
    }
    let missed: Vec<&Row> = sections.iter().flat_map(Section::missed).collect();
    match missed
        .iter()
        .max_by(|a, b| a.error().abs().total_cmp(&b.error().abs()))
    {
        None => Ok(()),
        Some(worst) => Err(Failure::Gate(format!(
            "{} published figures are missed, the furthest {} by {:+.1} %; the notes say what is \
             missing",
            missed.len(),
            worst.name,
            100.0 * worst.error()
        ))),
    }
}

/// The sections, one below the other.
fn page(sections: &[Section]) -> String {
    let mut page = String::new();
    for section in sections {
        let unit = &section.unit;
        let _ = writeln!(page, "{}", section.title);
        for parameter in &section.parameters {
            let _ = writeln!(page, "  {parameter}");
        }
        let width = section
            .rows
            .iter()
            .map(|row| row.name.chars().count())
            .max();
        let width = width.unwrap_or(0).max(4);
        let _ = writeln!(
            page,
            "\n  {:<width$}  {:>12}  {:>12}  {:>7}  bound",
            "",
            format!("published {unit}"),
            format!("ours {unit}"),
            "error"
        );
        for row in &section.rows {
            let bound = match row.bound {
                None => "fitted on".to_owned(),
                Some(bound) if row.holds() => format!("{:.0} % met", 100.0 * bound),
                Some(bound) => format!("{:.0} % MISSED", 100.0 * bound),
            };
            let _ = writeln!(
                page,
                "  {:<width$}  {:>12}  {:>12}  {:>6.1}%  {bound}",
                row.name,
                digits(row.published),
                digits(row.predicted),
                100.0 * row.error()
            );
        }
        if let Some(note) = &section.note {
            let _ = writeln!(page, "\n  {note}");
        }
        page.push('\n');
    }
    page
}

/// Four digits that count.
#[allow(clippy::cast_sign_loss, reason = "what is cast is not below 0")]
fn digits(value: f64) -> String {
    let before = value.abs().max(1e-9).log10().floor();
    let after = (3.0 - before).clamp(0.0, 4.0);
    format!("{value:.*}", after as usize)
}
