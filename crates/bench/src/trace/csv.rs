//! `step,layer,src_rank,token,slot,expert,weight`, a line for every slot.
//!
//! `token` is the token's row in its step and layer. `src_rank`, `weight` and the additional
//! column `token_id` may be empty or absent; an empty `expert` (or -1) is a slot without one.

use std::str::FromStr;

use csv::{ReaderBuilder, StringRecord, WriterBuilder};

use crate::trace::cells::{self, Cell, Known, cells};
use crate::trace::{Trace, TraceError};

const COLUMNS: [&str; 7] = [
    "step", "layer", "src_rank", "token", "slot", "expert", "weight",
];
const TOKEN_ID: &str = "token_id";

/// The file that holds `trace`, its header apart.
pub(super) fn write(trace: &Trace) -> Result<Vec<u8>, TraceError> {
    let with_ids = trace
        .records()
        .iter()
        .any(|record| record.token_ids.is_some());
    let mut writer = WriterBuilder::new().from_writer(Vec::new());
    let failed = |error| TraceError::wrong("", "line", error, "one to write");
    let columns = COLUMNS.into_iter().chain(with_ids.then_some(TOKEN_ID));
    writer.write_record(columns).map_err(failed)?;
    for cell in trace.records().iter().flat_map(cells) {
        let text = |value: Option<u32>| value.map_or(String::new(), |value| value.to_string());
        let fields = [
            cell.step.to_string(),
            cell.layer.to_string(),
            text(cell.rank),
            cell.token.to_string(),
            cell.slot.to_string(),
            text(cell.expert),
            cell.weight
                .map_or(String::new(), |weight| weight.to_string()),
        ];
        let fields = fields
            .into_iter()
            .chain(with_ids.then(|| text(cell.token_id)));
        writer.write_record(fields).map_err(failed)?;
    }
    let bytes = writer.into_inner();
    bytes.map_err(|error| TraceError::wrong("", "file", error, "one to write"))
}

/// The trace of a file; E is the highest expert + 1 unless `experts` says.
pub(super) fn read(
    bytes: &[u8],
    experts: Option<u32>,
    source: String,
) -> Result<Trace, TraceError> {
    let mut reader = ReaderBuilder::new().from_reader(bytes);
    let names = reader.headers().map_err(damaged)?;
    let columns = Columns::new(names)?;
    let mut found = Vec::new();
    let mut line = StringRecord::new();
    while reader.read_record(&mut line).map_err(damaged)? {
        found.push(columns.cell(&line)?);
    }
    let known = Known {
        experts,
        source,
        ..Known::default()
    };
    cells::join(found, known)
}

#[expect(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn damaged(error: csv::Error) -> TraceError {
    let line = error.position().map(|at| format!("line {}", at.line()));
    TraceError::wrong(
        line.unwrap_or_default(),
        "text",
        &error,
        "comma-separated values",
    )
}

/// Where each column is.
struct Columns {
    of: [Option<usize>; 7],
    token_id: Option<usize>,
}

// === impl Columns ===

impl Columns {
    fn new(names: &StringRecord) -> Result<Self, TraceError> {
        let find = |name: &str| names.iter().position(|found| found.trim() == name);
        let of = COLUMNS.map(find);
        for (name, found) in COLUMNS.into_iter().zip(of) {
            if found.is_none() && !matches!(name, "src_rank" | "weight") {
                let held: Vec<&str> = names.iter().collect();
                let held = if held.is_empty() {
                    "nothing".to_owned()
                } else {
                    held.join(",")
                };
                let expected = format!("{} (src_rank and weight optional)", COLUMNS.join(","));
                return Err(TraceError::wrong("line 1", "columns", held, expected));
            }
        }
        let token_id = find(TOKEN_ID);
        Ok(Self { of, token_id })
    }

    fn cell(&self, line: &StringRecord) -> Result<Cell, TraceError> {
        let number = line.position().map_or(0, csv::Position::line);
        let [step, layer, rank, token, slot, expert, weight] = self.of;
        let row = Row { line, number };
        Ok(Cell {
            step: row.needed("step", step)?,
            layer: row.needed("layer", layer)?,
            rank: row.optional("src_rank", rank)?,
            token: row.needed("token", token)?,
            slot: row.needed("slot", slot)?,
            expert: match row.text(expert) {
                "-1" => None,
                _ => row.optional("expert", expert)?,
            },
            weight: row.optional("weight", weight)?,
            token_id: row.optional(TOKEN_ID, self.token_id)?,
            line: number,
        })
    }
}

struct Row<'a> {
    line: &'a StringRecord,
    number: u64,
}

// === impl Row ===

impl Row<'_> {
    fn text(&self, column: Option<usize>) -> &str {
        column
            .and_then(|at| self.line.get(at))
            .unwrap_or_default()
            .trim()
    }

    fn optional<T: FromStr>(
        &self,
        field: &'static str,
        column: Option<usize>,
    ) -> Result<Option<T>, TraceError> {
        match self.text(column) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                let place = format!("line {}", self.number);
                TraceError::wrong(place, field, format!("{text:?}"), "a number from 0")
            }),
        }
    }

    fn needed<T: FromStr>(
        &self,
        field: &'static str,
        column: Option<usize>,
    ) -> Result<T, TraceError> {
        self.optional(field, column)?.ok_or_else(|| {
            let place = format!("line {}", self.number);
            TraceError::wrong(place, field, "empty", "a number from 0")
        })
    }
}
