//! A trace as a table of one row for each slot, which CSV and Parquet share.

use crate::trace::{Header, NO_CHOICE, Record, Trace, TraceError};

/// One slot of one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cell {
    pub(super) step: u64,
    pub(super) layer: u32,
    pub(super) rank: Option<u32>,
    /// Row of the token in its step and layer.
    pub(super) token: u32,
    pub(super) slot: u32,
    /// `None` for a slot without an expert.
    pub(super) expert: Option<u32>,
    pub(super) weight: Option<f32>,
    pub(super) token_id: Option<u32>,
    /// Line or row of the file, for errors.
    pub(super) line: u64,
}

/// What the file says of the header; the rest is found from its rows.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) experts: Option<u32>,
    pub(super) layers: Option<u32>,
    pub(super) source: String,
    pub(super) seed: Option<u64>,
}

/// The rows of `record`, by token and slot.
pub(super) fn cells(record: &Record) -> impl Iterator<Item = Cell> {
    let of = |column: &Option<Vec<u32>>, at: usize| column.as_ref().map(|column| column[at]);
    let top_k = record.experts.len() / (record.tokens as usize).max(1);
    record.experts.iter().enumerate().map(move |(at, &expert)| {
        let (token, slot) = (at / top_k, at % top_k);
        Cell {
            step: record.step,
            layer: record.layer,
            rank: of(&record.ranks, token),
            // Both are below the `u32` that counts the tokens, or the experts.
            token: token as u32,
            slot: slot as u32,
            expert: (expert != NO_CHOICE).then_some(expert),
            weight: record.weights.as_ref().map(|weights| weights[at]),
            token_id: of(&record.token_ids, token),
            line: 0,
        }
    })
}

/// The trace of `cells`, which may come in any order: every token has a row for each of the same
/// k slots.
pub(super) fn join(mut cells: Vec<Cell>, known: Known) -> Result<Trace, TraceError> {
    if cells.is_empty() {
        return Err(TraceError::wrong("", "rows", 0, "at least 1"));
    }
    let highest = |of: fn(&Cell) -> Option<u32>| cells.iter().filter_map(of).max();
    let after = |highest: Option<u32>| highest.map_or(0, |highest| highest.saturating_add(1));
    let header = Header {
        experts: match known.experts {
            Some(experts) => experts,
            None => after(highest(|cell| cell.expert)),
        },
        top_k: after(highest(|cell| Some(cell.slot))),
        layers: match known.layers {
            Some(layers) => layers,
            None => after(highest(|cell| Some(cell.layer))),
        },
        source: known.source,
        seed: known.seed,
    };
    cells.sort_by_key(|cell| (cell.step, cell.layer, cell.token, cell.slot));
    let groups = cells.chunk_by(|a, b| (a.step, a.layer) == (b.step, b.layer));
    let records = groups.map(|group| record(group, header.top_k));
    let records = records.collect::<Result<_, _>>()?;
    Trace::new(header, records)
}

/// The record of the rows of one step and layer, in order.
fn record(group: &[Cell], top_k: u32) -> Result<Record, TraceError> {
    for (at, cell) in group.iter().enumerate() {
        let expected = (at as u64 / u64::from(top_k), at as u64 % u64::from(top_k));
        if (u64::from(cell.token), u64::from(cell.slot)) != expected {
            let held = format!("of token {}, slot {}", cell.token, cell.slot);
            let expected = format!(
                "token {}, slot {} of step {}, layer {} before it: every token has {top_k} slots, \
                 each once",
                expected.0, expected.1, cell.step, cell.layer
            );
            return Err(TraceError::wrong(line(cell), "row", held, expected));
        }
    }
    let Some(last) = group.last() else {
        return Err(TraceError::wrong("", "rows", 0, "at least 1"));
    };
    if last.slot + 1 != top_k {
        let (held, expected) = (format!("slot {}", last.slot), format!("slot {}", top_k - 1));
        return Err(TraceError::wrong(
            line(last),
            "last row of its step",
            held,
            expected,
        ));
    }
    let by_token = || group.chunks_exact(top_k as usize);
    for token in by_token() {
        let first = &token[0];
        let alone = |cell: &&Cell| (cell.rank, cell.token_id) != (first.rank, first.token_id);
        if let Some(cell) = token.iter().find(alone) {
            let held = "not that of the token's first slot";
            return Err(TraceError::wrong(
                line(cell),
                "src_rank or token_id",
                held,
                "the same",
            ));
        }
    }
    let first = by_token().map(|token| &token[0]);
    Ok(Record {
        step: last.step,
        layer: last.layer,
        tokens: last.token + 1,
        ranks: all_or_none("src_rank", first.clone(), |cell| cell.rank)?,
        token_ids: all_or_none("token_id", first, |cell| cell.token_id)?,
        experts: group
            .iter()
            .map(|cell| cell.expert.unwrap_or(NO_CHOICE))
            .collect(),
        weights: all_or_none("weight", group.iter(), |cell| cell.weight)?,
    })
}

/// A column that every row has, or none.
fn all_or_none<'a, T>(
    field: &'static str,
    cells: impl Iterator<Item = &'a Cell> + Clone,
    of: impl Fn(&Cell) -> Option<T>,
) -> Result<Option<Vec<T>>, TraceError> {
    if cells.clone().all(|cell| of(cell).is_none()) {
        return Ok(None);
    }
    let value = |cell: &Cell| {
        let expected = "a number, as in other rows of the step";
        of(cell).ok_or_else(|| TraceError::wrong(line(cell), field, "empty", expected))
    };
    cells.map(value).collect::<Result<_, _>>().map(Some)
}

fn line(cell: &Cell) -> String {
    format!("line {}", cell.line)
}
