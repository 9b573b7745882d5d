//! Tables without frames: a header, a thin rule, and columns two spaces apart.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

/// Spaces before every line of a section.
pub(crate) const INDENT: &str = "  ";

/// How cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Names and pictures.
    Left,
    /// Numbers.
    Right,
}

/// The table as lines, indented, without trailing spaces.
///
/// Cells are printed as they are: whoever fills them keeps their width within bounds.
pub(crate) fn lines(
    header: &[&str],
    align: impl Fn(usize) -> Align,
    rows: Vec<Vec<String>>,
) -> Vec<String> {
    let mut table = Table::new();
    let rule = LineStyle::none().fill('─');
    table
        .load_style(TableStyle::new().header_separator(rule))
        .set_header(header.to_vec());
    table.add_rows(rows);
    let last = header.len().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding(if index == last { (0, 0) } else { (0, 2) });
        column.set_cell_alignment(match align(index) {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        });
    }
    table
        .lines()
        .map(|line| format!("{INDENT}{line}").trim_end().to_owned())
        .collect()
}

/// Names on the left, numbers on the right.
pub(crate) fn numbers(column: usize) -> Align {
    if column == 0 {
        Align::Left
    } else {
        Align::Right
    }
}
