//! What Megatron-LM's `router_trace.py` records (`--moe-routing-trace-path`): a JSON object on
//! every line, a file for each rank.
//!
//! ```text
//! {"step": 0, "stage": "pre_dispatch", "block": "decoder", "layer": 3, "rank": 0,
//!  "num_tokens": 2, "topk": 2, "top_indices": [[1, 4], [0, 4]]}
//! ```
//!
//! Lines of one step and layer are joined by rank, and in file order within a rank (a training
//! step has a line for each micro-batch). Layers keep their number; those of multi-token
//! prediction (`"mtp_idx"`) count on after the decoder's highest. From a routing map Megatron
//! writes the experts of a token in ascending order, so that its slots say nothing about rank.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::trace::{Header, NO_CHOICE, Record, Trace, TraceError};

/// A line, as far as it is used.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    step: u64,
    layer: u32,
    rank: u32,
    num_tokens: u64,
    topk: u32,
    #[serde(default)]
    mtp_idx: Option<u32>,
    /// -1 is no expert.
    top_indices: Vec<Vec<i64>>,
}

/// Appends the lines of a file to `lines`; empty ones are skipped.
pub(super) fn parse(bytes: &[u8], lines: &mut Vec<Line>) -> Result<(), TraceError> {
    for (at, text) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let place = || format!("line {}", at + 1);
        let line: Line = serde_json::from_slice(text).map_err(|error| {
            let expected = "an object with step, layer, rank, num_tokens, topk and top_indices";
            TraceError::wrong(place(), "JSON", error, expected)
        })?;
        let (held, expected) = (line.top_indices.len() as u64, line.num_tokens);
        if held != expected {
            let held = format!("{held} tokens");
            let expected = format!("{expected}, its num_tokens");
            return Err(TraceError::wrong(place(), "top_indices", held, expected));
        }
        let top_k = lines.first().map_or(line.topk, |first| first.topk);
        if line.topk != top_k {
            let expected = format!("{top_k}, as in the first line");
            return Err(TraceError::wrong(place(), "topk", line.topk, expected));
        }
        for (token, row) in line.top_indices.iter().enumerate() {
            if row.len() != top_k as usize {
                let place = format!("{}, token {token}", place());
                let held = format!("{} experts", row.len());
                let expected = format!("{top_k}, its topk");
                return Err(TraceError::wrong(place, "top_indices", held, expected));
            }
            row.iter().try_for_each(|&index| {
                expert(index, &format!("{}, token {token}", place())).map(|_| ())
            })?;
        }
        lines.push(line);
    }
    Ok(())
}

/// The expert of an index that may be -1.
pub(super) fn expert(index: i64, place: &str) -> Result<u32, TraceError> {
    match u32::try_from(index) {
        Ok(expert) if expert != NO_CHOICE => Ok(expert),
        _ if index == -1 => Ok(NO_CHOICE),
        _ => Err(TraceError::wrong(
            place,
            "expert",
            index,
            "from 0, or -1 for none",
        )),
    }
}

/// The highest expert + 1, at least 1.
pub(super) fn experts_of<'a>(records: impl IntoIterator<Item = &'a Record>) -> u32 {
    let experts = records.into_iter().flat_map(|record| &record.experts);
    let highest = experts.filter(|&&expert| expert != NO_CHOICE).max();
    highest.map_or(1, |highest| highest + 1)
}

/// The trace of the lines of all ranks.
pub(super) fn join(
    mut lines: Vec<Line>,
    experts: Option<u32>,
    source: String,
) -> Result<Trace, TraceError> {
    let mut predictors = BTreeSet::new();
    let mut after_decoder = 0;
    for line in &lines {
        match line.mtp_idx {
            Some(predictor) => drop(predictors.insert((predictor, line.layer))),
            None => after_decoder = after_decoder.max(line.layer.saturating_add(1)),
        }
    }
    for line in &mut lines {
        if let Some(predictor) = line.mtp_idx {
            let before = predictors.range(..(predictor, line.layer)).count();
            line.layer = after_decoder.saturating_add(before as u32);
        }
    }
    let top_k = lines.first().map_or(0, |line| line.topk);
    let layers = lines.iter().map(|line| line.layer.saturating_add(1)).max();
    // Stable: lines of one rank stay in file order.
    lines.sort_by_key(|line| (line.step, line.layer, line.rank));
    let groups = lines.chunk_by(|a, b| (a.step, a.layer) == (b.step, b.layer));
    let records: Vec<Record> = groups
        .filter_map(record)
        .collect::<Result<_, TraceError>>()?;
    let header = Header {
        experts: experts.unwrap_or_else(|| experts_of(&records)),
        top_k,
        layers: layers.unwrap_or_default(),
        source,
        seed: None,
    };
    Trace::new(header, records)
}

/// The record of the lines of one step and layer; none where no rank had a token.
fn record(lines: &[Line]) -> Option<Result<Record, TraceError>> {
    let first = lines.first()?;
    let (mut experts, mut ranks) = (Vec::new(), Vec::new());
    for line in lines {
        ranks.resize(ranks.len() + line.top_indices.len(), line.rank);
        for index in line.top_indices.iter().flatten() {
            match expert(*index, "") {
                Ok(expert) => experts.push(expert),
                Err(error) => return Some(Err(error)),
            }
        }
    }
    let tokens = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
    (tokens > 0).then_some(Ok(Record {
        step: first.step,
        layer: first.layer,
        tokens,
        ranks: Some(ranks),
        token_ids: None,
        experts,
        weights: None,
    }))
}
