//! What SGLang's expert distribution recorder dumps, by way of `examples/traces/sglang_to_json.py`
//! (the dumps are pickled tensors, which only torch reads).
//!
//! Mode `per_token`: `{"format": "sglang-per-token", "records": [{"forward_pass_id", "rank",
//! "input_ids": [T], "topk_ids_of_layer": [L][T][k]}, ..]}`. A forward pass is a step; records of
//! one pass are joined by rank. A layer whose ids are all -1 in every pass has no experts and gets
//! no records. Mode `stat`: `{"format": "sglang-stat", "logical_count": [steps][layers][experts]}`
//! is a [`LoadMatrix`](crate::trace::LoadMatrix), summed over the steps.

use serde::Deserialize;

use crate::trace::megatron::{expert, experts_of};
use crate::trace::{Header, NO_CHOICE, Record, Trace, TraceError};

/// The `format` of a file in mode `per_token`.
pub(super) const PER_TOKEN: &str = "sglang-per-token";
/// The `format` of a file in mode `stat`.
pub(super) const STAT: &str = "sglang-stat";

#[derive(Deserialize)]
struct PerToken {
    format: String,
    /// Logical experts, where the dump says.
    #[serde(default)]
    experts: Option<u32>,
    /// Absent in other modes, whose name is the better complaint.
    #[serde(default)]
    records: Option<Vec<Pass>>,
}

/// One forward pass on one rank.
#[derive(Deserialize)]
struct Pass {
    forward_pass_id: u64,
    #[serde(default)]
    rank: u32,
    #[serde(default)]
    input_ids: Option<Vec<u32>>,
    topk_ids_of_layer: Vec<Vec<Vec<i64>>>,
}

#[derive(Deserialize)]
struct Stat {
    format: String,
    #[serde(default)]
    logical_count: Option<Vec<Vec<Vec<u64>>>>,
}

fn check_format(held: &str, expected: &str) -> Result<(), TraceError> {
    match held == expected {
        true => Ok(()),
        false => Err(TraceError::wrong(
            "",
            "format",
            format!("{held:?}"),
            expected,
        )),
    }
}

fn damaged(error: serde_json::Error) -> TraceError {
    let expected = "what examples/traces/sglang_to_json.py writes";
    TraceError::wrong("", "JSON", error, expected)
}

/// The trace of a file in mode `per_token`; E is `experts`, then what the file says, then the
/// highest expert + 1.
pub(super) fn read(
    bytes: &[u8],
    experts: Option<u32>,
    source: String,
) -> Result<Trace, TraceError> {
    let file: PerToken = serde_json::from_slice(bytes).map_err(damaged)?;
    if file.format == STAT {
        let expected = "one that knows tokens; `trace sample` makes a trace of a load matrix";
        return Err(TraceError::wrong(
            "",
            "format",
            format!("{STAT:?}"),
            expected,
        ));
    }
    check_format(&file.format, PER_TOKEN)?;
    let missing = || TraceError::wrong("", "records", "missing", "the forward passes");
    let mut passes = file.records.ok_or_else(missing)?;
    passes.sort_by_key(|pass| (pass.forward_pass_id, pass.rank));
    let (mut layers, mut top_k) = (None, None);
    for pass in &passes {
        check_pass(pass, &mut layers, &mut top_k)?;
    }
    let (layers, top_k) = (layers.unwrap_or_default(), top_k.unwrap_or_default());
    let mut records = Vec::new();
    for passes in passes.chunk_by(|a, b| a.forward_pass_id == b.forward_pass_id) {
        for layer in 0..layers {
            records.extend(record(passes, layer)?);
        }
    }
    let dense: Vec<bool> = (0..layers as u32)
        .map(|layer| {
            let mut of_layer = records.iter().filter(|record| record.layer == layer);
            of_layer.all(|record| record.experts.iter().all(|&expert| expert == NO_CHOICE))
        })
        .collect();
    records.retain(|record| !dense[record.layer as usize]);
    let experts = experts.or(file.experts);
    let header = Header {
        experts: experts.unwrap_or_else(|| experts_of(&records)),
        top_k: top_k as u32,
        layers: layers as u32,
        source,
        seed: None,
    };
    Trace::new(header, records)
}

/// Fails for a pass whose layers, tokens or slots differ from the others' or each other's.
fn check_pass(
    pass: &Pass,
    layers: &mut Option<usize>,
    top_k: &mut Option<usize>,
) -> Result<(), TraceError> {
    let pass_name = format!("pass {}, rank {}", pass.forward_pass_id, pass.rank);
    let wrong = |place: String, held: usize, what: &str, expected: usize| {
        let held = format!("{held} {what}");
        Err(TraceError::wrong(
            place,
            "topk_ids_of_layer",
            held,
            expected,
        ))
    };
    let ids = &pass.topk_ids_of_layer;
    let expected = *layers.get_or_insert(ids.len());
    if ids.len() != expected {
        return wrong(pass_name, ids.len(), "layers", expected);
    }
    let tokens = match &pass.input_ids {
        Some(input_ids) => input_ids.len(),
        None => ids.first().map_or(0, Vec::len),
    };
    for (layer, of_layer) in ids.iter().enumerate() {
        let place = format!("{pass_name}, layer {layer}");
        if of_layer.len() != tokens {
            return wrong(place, of_layer.len(), "tokens", tokens);
        }
        for (token, row) in of_layer.iter().enumerate() {
            let expected = *top_k.get_or_insert(row.len());
            if row.len() != expected {
                return wrong(
                    format!("{place}, token {token}"),
                    row.len(),
                    "slots",
                    expected,
                );
            }
        }
    }
    Ok(())
}

/// The record of `layer` from the ranks of one pass; none where no rank had a token.
fn record(passes: &[Pass], layer: usize) -> Result<Option<Record>, TraceError> {
    let (mut experts, mut ranks, mut token_ids) = (Vec::new(), Vec::new(), Some(Vec::new()));
    for pass in passes {
        let of_layer = &pass.topk_ids_of_layer[layer];
        ranks.resize(ranks.len() + of_layer.len(), pass.rank);
        match (&mut token_ids, &pass.input_ids) {
            (Some(all), Some(ids)) => all.extend_from_slice(ids),
            _ => token_ids = None,
        }
        for (token, row) in of_layer.iter().enumerate() {
            for &index in row {
                let pass = pass.forward_pass_id;
                let place = || format!("pass {pass}, layer {layer}, token {token}");
                experts.push(match index {
                    -1 => NO_CHOICE,
                    index => expert(index, &place())?,
                });
            }
        }
    }
    let tokens = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
    let step = passes.first().map_or(0, |pass| pass.forward_pass_id);
    Ok((tokens > 0).then_some(Record {
        step,
        layer: layer as u32,
        tokens,
        ranks: Some(ranks),
        token_ids,
        experts,
        weights: None,
    }))
}

/// The counts `[layers][experts]` of a file in mode `stat`, summed over its steps.
pub(super) fn read_stat(bytes: &[u8]) -> Result<Vec<Vec<u64>>, TraceError> {
    let file: Stat = serde_json::from_slice(bytes).map_err(damaged)?;
    check_format(&file.format, STAT)?;
    let missing = || TraceError::wrong("", "logical_count", "missing", "counts by step and layer");
    let mut steps = file.logical_count.ok_or_else(missing)?.into_iter();
    let mut sum = steps.next().unwrap_or_default();
    for step in steps {
        let sizes = |layers: &[Vec<u64>]| layers.iter().map(Vec::len).collect::<Vec<_>>();
        if sizes(&step) != sizes(&sum) {
            let held = format!("{:?} experts by layer", sizes(&step));
            let expected = format!("{:?}, as in the first step", sizes(&sum));
            return Err(TraceError::wrong("", "logical_count", held, expected));
        }
        for (total, more) in sum.iter_mut().flatten().zip(step.iter().flatten()) {
            *total = total.saturating_add(*more);
        }
    }
    Ok(sum)
}
