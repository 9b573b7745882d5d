//! Routing traces: which experts the tokens of real or synthetic steps chose.
//!
//! A [`Trace`] holds one [`Record`] for each layer of each step, and is checked when it is made:
//! whoever has one can index with what it says. Reading order: this file (the model), [`mod@format`]
//! (which file is which, reading and writing), then a file for each format: `moetrace` (our own,
//! exact), `csv` and `parquet` (a row for each choice, by way of `cells`), `megatron` and `sglang`
//! (what those systems record). [`load`] holds loads without tokens, [`stats`] what a trace says.
//!
//! Steps and layers keep the numbers that the recorder gave them. Slots keep their order: slot 0
//! is the first choice where the recorder says so (see [`stats::LayerStats::ascending`]).

mod cells;
mod csv;
mod error;
pub mod format;
pub mod load;
mod megatron;
mod moetrace;
mod parquet;
mod sglang;
pub mod stats;
#[cfg(test)]
mod tests;
mod uniform;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use error::TraceError;
pub use expertmesh_routing::NO_CHOICE;
pub use format::{ReadOptions, TraceFormat};
pub use load::LoadMatrix;

/// More experts in a layer than any model has; a header that says more is damaged.
pub const MAX_EXPERTS: u32 = 65_536;

/// What holds for every record of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Experts of a layer, E: 1 to [`MAX_EXPERTS`].
    pub experts: u32,
    /// Slots of a token, k: 1 to `experts`.
    pub top_k: u32,
    /// Every layer number is below this.
    pub layers: u32,
    /// Where the choices are from, for people.
    pub source: String,
    /// The seed of a synthetic trace.
    pub seed: Option<u64>,
}

/// The choices of one layer in one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Number of the step.
    pub step: u64,
    /// Number of the layer in its model.
    pub layer: u32,
    /// Tokens, T: at least 1.
    pub tokens: u32,
    /// `[T]`: the rank that each token came from.
    pub ranks: Option<Vec<u32>>,
    /// `[T]`: each token's id in the vocabulary.
    pub token_ids: Option<Vec<u32>>,
    /// `[T, k]`: distinct experts of each token, [`NO_CHOICE`] in slots that have none.
    pub experts: Vec<u32>,
    /// `[T, k]`: finite gate weights, 0 in slots without an expert.
    pub weights: Option<Vec<f32>>,
}

/// A checked trace: records in ascending (step, layer) order, each pair once.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    header: Header,
    records: Vec<Record>,
    /// The records of each step, in step order.
    steps: Vec<Range<usize>>,
}

// === impl Trace ===

impl Trace {
    /// Checks `records`, which may come in any order.
    ///
    /// # Errors
    /// [`TraceError`] for the first thing that contradicts [`Header`] or [`Record`], or no records.
    pub fn new(header: Header, mut records: Vec<Record>) -> Result<Self, TraceError> {
        if records.is_empty() {
            return Err(TraceError::wrong("", "records", "0", "at least 1"));
        }
        check_header(&header)?;
        records.sort_by_key(Record::key);
        let mut steps: Vec<Range<usize>> = Vec::new();
        for (at, record) in records.iter().enumerate() {
            record.check(&header)?;
            let before = at.checked_sub(1).and_then(|before| records.get(before));
            match (before, steps.last_mut()) {
                (Some(before), _) if before.key() == record.key() => {
                    let expected = "each layer once a step";
                    return Err(TraceError::wrong(
                        record,
                        "record",
                        "a second one",
                        expected,
                    ));
                }
                (Some(before), Some(step)) if before.step == record.step => step.end = at + 1,
                _ => steps.push(at..at + 1),
            }
        }
        Ok(Self {
            header,
            records,
            steps,
        })
    }

    /// What holds for every record.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Every record, by step and layer.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Steps that the trace has, at least 1.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// The records of the `n`-th step, by layer. After the last step the first comes again, so a
    /// run may be longer than its trace: `n` is taken modulo [`Self::steps`].
    pub fn step(&self, n: u64) -> &[Record] {
        // Neither is ever empty, by `new`.
        let at = n % (self.steps.len().max(1)) as u64;
        let range = self.steps.get(at as usize).cloned().unwrap_or_default();
        self.records.get(range).unwrap_or_default()
    }

    /// The record of `layer` in the `n`-th step, cycling as [`Self::step`] does.
    pub fn layer(&self, n: u64, layer: u32) -> Option<&Record> {
        let step = self.step(n);
        let at = step.binary_search_by_key(&layer, |record| record.layer);
        at.ok().and_then(|at| step.get(at))
    }

    /// Replaces the header's text about where the choices are from.
    #[must_use]
    pub fn from_source(mut self, source: impl Into<String>) -> Self {
        self.header.source = source.into();
        self
    }
}

fn check_header(header: &Header) -> Result<(), TraceError> {
    let Header { experts, top_k, .. } = *header;
    let wrong = |field, held: u32, most: u32| {
        let what = if field == "top_k" {
            ", the number of experts"
        } else {
            ""
        };
        let expected = format!("1 to {most}{what}");
        Err(TraceError::wrong("header", field, held, expected))
    };
    match () {
        () if !(1..=MAX_EXPERTS).contains(&experts) => wrong("experts", experts, MAX_EXPERTS),
        () if !(1..=experts).contains(&top_k) => wrong("top_k", top_k, experts),
        () => Ok(()),
    }
}

// === impl Record ===

impl Record {
    fn key(&self) -> (u64, u32) {
        (self.step, self.layer)
    }

    /// The experts of each token, by slot: T slices of k.
    pub fn rows(&self) -> impl Iterator<Item = &[u32]> {
        // `Trace::new` has seen that the tokens divide the choices; a record that no trace holds
        // may have none.
        let top_k = self.experts.len() / (self.tokens as usize).max(1);
        self.experts.chunks_exact(top_k.max(1))
    }

    fn check(&self, header: &Header) -> Result<(), TraceError> {
        let tokens = self.tokens as usize;
        if tokens == 0 {
            return Err(TraceError::wrong(self, "tokens", 0, "at least 1"));
        }
        if self.layer >= header.layers {
            let expected = format!("below {}, the header's layers", header.layers);
            return Err(TraceError::wrong(self, "layer", self.layer, expected));
        }
        let length = |field, held: Option<usize>, expected: usize| match held {
            Some(held) if held != expected => Err(TraceError::wrong(
                self,
                field,
                format!("{held} entries"),
                expected,
            )),
            _ => Ok(()),
        };
        let choices = tokens * header.top_k as usize;
        length("experts", Some(self.experts.len()), choices)?;
        length("weights", self.weights.as_ref().map(Vec::len), choices)?;
        length("ranks", self.ranks.as_ref().map(Vec::len), tokens)?;
        length("token_ids", self.token_ids.as_ref().map(Vec::len), tokens)?;
        for (token, row) in self.experts.chunks_exact(header.top_k as usize).enumerate() {
            self.check_row(token, row, header.experts)?;
        }
        let weights = self.weights.as_deref().unwrap_or_default();
        for (choice, (weight, expert)) in weights.iter().zip(&self.experts).enumerate() {
            let expected = match *expert {
                NO_CHOICE if *weight != 0.0 => "0, as the slot has no expert",
                _ if !weight.is_finite() => "a finite number",
                _ => continue,
            };
            let place = self.place(choice / header.top_k as usize);
            return Err(TraceError::wrong(place, "weight", weight, expected));
        }
        Ok(())
    }

    fn check_row(&self, token: usize, row: &[u32], experts: u32) -> Result<(), TraceError> {
        for (slot, &expert) in row.iter().enumerate() {
            if expert == NO_CHOICE {
                continue;
            }
            let expected = if expert >= experts {
                format!("below {experts}, the number of experts")
            } else if row.iter().take(slot).any(|&before| before == expert) {
                "each expert once a token".to_owned()
            } else {
                continue;
            };
            let place = self.place(token);
            return Err(TraceError::wrong(place, "expert", expert, expected));
        }
        Ok(())
    }

    fn place(&self, token: usize) -> String {
        format!("{}, token {token}", String::from(self))
    }
}

/// `step 3, layer 1`
impl From<&Record> for String {
    fn from(record: &Record) -> Self {
        format!("step {}, layer {}", record.step, record.layer)
    }
}
