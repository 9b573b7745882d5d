//! The choices of a trace, step by step, for a gate that replays them.

use std::path::Path;

use crate::trace::{NO_CHOICE, ReadOptions, Record, Trace, TraceError};

/// The layer that a trace is replayed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayShape {
    /// Experts of the layer, E.
    pub experts: usize,
    /// Choices of a token, k.
    pub top_k: usize,
    /// The layer's number in its model, whose records are taken where the trace has them.
    pub layer: u32,
    /// Takes the records of this layer instead.
    pub from: Option<u32>,
}

/// The choices of one layer of a trace, for the steps of a run. Where every other token has k,
/// tokens without any choice are padding; where tokens differ in their choices, they have none.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    name: String,
    source: String,
    seed: Option<u64>,
    steps: Vec<ReplayedStep>,
}

/// What one step replays, of T tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayedStep {
    /// Tokens, T.
    pub tokens: usize,
    /// `[T, k]`, [`NO_CHOICE`] behind the choices of a token with fewer; padding has the first k
    /// experts, which its fate keeps from computing.
    pub experts: Vec<u32>,
    /// `[T, k]`, where the trace has weights; without them the gate weighs the experts.
    pub weights: Option<Vec<f32>>,
    /// `[T]`, true for padding, where there is any.
    pub padding: Option<Vec<bool>>,
    /// `[T]`: each token's id, where the trace has them.
    pub token_ids: Option<Vec<u32>>,
    /// `[T]`: the rank that each token came from, where the trace says.
    pub ranks: Option<Vec<u32>>,
}

// === impl Replay ===

impl Replay {
    /// Reads `path` for a layer of `shape`. Formats that do not say how many experts there are
    /// are read as saying what the layer has.
    ///
    /// # Errors
    /// [`TraceError`], naming the file: what [`Trace::read`] says, another number of experts or
    /// choices than the layer has, several layers and no word which.
    pub fn read(path: impl AsRef<Path>, shape: &ReplayShape) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let options = ReadOptions {
            experts: u32::try_from(shape.experts).ok(),
            ..ReadOptions::default()
        };
        let trace = Trace::read_with(path, &options)?;
        let name = format!("replay of {}", path.display());
        Self::new(&trace, name, shape).map_err(|error| error.in_file(path))
    }

    /// The choices that `trace` has for a layer of `shape`; `name` is for reports.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn new(
        trace: &Trace,
        name: impl Into<String>,
        shape: &ReplayShape,
    ) -> Result<Self, TraceError> {
        let header = trace.header();
        for (field, held, expected) in [
            ("experts", header.experts, shape.experts),
            ("top_k", header.top_k, shape.top_k),
        ] {
            if held as usize != expected {
                let expected = format!("{expected}, as the layer has");
                return Err(TraceError::wrong("header", field, held, expected));
            }
        }
        let layer = choose_layer(trace, shape)?;
        let records = trace.records().iter();
        let of_layer = records.filter(|record| record.layer == layer);
        let is_ragged = of_layer
            .clone()
            .any(|record| has_fewer(record, shape.top_k));
        let steps = of_layer.map(|record| ReplayedStep::new(record, shape.top_k, is_ragged));
        Ok(Self {
            name: name.into(),
            source: header.source.clone(),
            seed: header.seed,
            steps: steps.collect(),
        })
    }

    /// What it is, for reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the choices are from and their seed, as the trace says.
    pub fn origin(&self) -> (&str, Option<u64>) {
        (&self.source, self.seed)
    }

    /// Steps before the first comes again, at least 1.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Tokens of the longest step.
    pub fn most_tokens(&self) -> usize {
        self.steps.iter().map(|step| step.tokens).max().unwrap_or(0)
    }

    /// What step `n` replays; after the last step the first comes again.
    pub fn step(&self, n: u64) -> &ReplayedStep {
        // There is a record of every layer that was chosen, so the length is no zero.
        let at = n % (self.steps.len().max(1)) as u64;
        &self.steps[at as usize]
    }
}

/// The layer whose records are replayed: the one that is asked for, else the layer's own number,
/// else the only one.
fn choose_layer(trace: &Trace, shape: &ReplayShape) -> Result<u32, TraceError> {
    let mut there: Vec<u32> = trace.records().iter().map(|record| record.layer).collect();
    there.sort_unstable();
    there.dedup();
    let wanted = shape.from.unwrap_or(shape.layer);
    match (shape.from, there.as_slice()) {
        (_, there) if there.contains(&wanted) => Ok(wanted),
        (None, [only]) => Ok(*only),
        (from, there) => {
            let names: Vec<String> = there.iter().map(u32::to_string).collect();
            let held = format!("of layer {}", names.join(", "));
            let expected = match from {
                Some(from) => format!("layer {from} among them, which is asked for"),
                None => format!("{wanted} among them, the layer's number, or one that is named"),
            };
            Err(TraceError::wrong(
                "header",
                "what is recorded",
                held,
                expected,
            ))
        }
    }
}

/// Whether a token has fewer choices than k, and more than none.
fn has_fewer(record: &Record, top_k: usize) -> bool {
    record.experts.chunks_exact(top_k).any(|row| {
        let choices = row.iter().filter(|&&expert| expert != NO_CHOICE).count();
        (1..top_k).contains(&choices)
    })
}

// === impl ReplayedStep ===

impl ReplayedStep {
    fn new(record: &Record, top_k: usize, is_ragged: bool) -> Self {
        let (mut experts, mut weights) = (record.experts.clone(), record.weights.clone());
        let mut padding = vec![false; record.tokens as usize];
        for (token, padding) in padding.iter_mut().enumerate() {
            let first = token * top_k;
            // Empty slots go behind the others, which keep their order.
            let mut end = first;
            for slot in first..first + top_k {
                if experts[slot] != NO_CHOICE {
                    experts.swap(end, slot);
                    if let Some(weights) = &mut weights {
                        weights.swap(end, slot);
                    }
                    end += 1;
                }
            }
            if end == first && !is_ragged {
                *padding = true;
                let slots = experts[first..first + top_k].iter_mut();
                slots.zip(0..).for_each(|(slot, at)| *slot = at);
            }
        }
        Self {
            tokens: record.tokens as usize,
            experts,
            weights,
            padding: padding.contains(&true).then_some(padding),
            token_ids: record.token_ids.clone(),
            ranks: record.ranks.clone(),
        }
    }
}
