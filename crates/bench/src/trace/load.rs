//! Loads of experts without tokens: what EPLB balances, and what SGLang counts.

use std::path::Path;

use csv::ReaderBuilder;

use crate::draw::{generator, systematic};
use crate::trace::format::load;
use crate::trace::{Header, MAX_EXPERTS, ReadOptions, Record, Trace, TraceError, sglang};

/// Choices that each expert of each layer got. It says nothing about tokens; [`Self::sample`]
/// makes a trace that has these loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadMatrix {
    /// Layers, L.
    pub layers: usize,
    /// Experts of a layer, E.
    pub experts: usize,
    /// `[L, E]`.
    pub counts: Vec<u64>,
}

/// Counts are at most this, so that sums and products of them stay exact: 2^40.
const MOST: u64 = 1 << 40;

// === impl LoadMatrix ===

impl LoadMatrix {
    /// The matrix of `rows`, one for each layer.
    ///
    /// # Errors
    /// [`TraceError`]: no rows, no experts, rows of different lengths, or a count above 2^40.
    pub fn new(rows: &[Vec<u64>]) -> Result<Self, TraceError> {
        let experts = rows.first().map_or(0, Vec::len);
        if !(1..=MAX_EXPERTS as usize).contains(&experts) {
            let held = format!("{} x {experts}", rows.len());
            let expected = format!("at least 1 layer of 1 to {MAX_EXPERTS} experts");
            return Err(TraceError::wrong("", "loads", held, expected));
        }
        for (layer, row) in rows.iter().enumerate() {
            let place = format!("layer {layer}");
            if row.len() != experts {
                let held = format!("{} experts long", row.len());
                return Err(TraceError::wrong(place, "row", held, experts));
            }
            if let Some(count) = row.iter().find(|count| **count > MOST) {
                return Err(TraceError::wrong(place, "count", count, "at most 2^40"));
            }
        }
        Ok(Self {
            layers: rows.len(),
            experts,
            counts: rows.concat(),
        })
    }

    /// Reads a file: JSON of SGLang's mode `stat` (see `examples/traces/sglang_to_json.py`), or
    /// CSV with a line for each layer and a column for each expert, EPLB's `weight`. A first line
    /// that begins with a letter is taken for names. Counts are whole numbers; `9.0e1` is one.
    ///
    /// # Errors
    /// [`TraceError`] with the file and the line.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let bytes = load(path, ReadOptions::default().max_bytes)?;
        let rows = match bytes.trim_ascii_start().first() {
            Some(b'{') => sglang::read_stat(&bytes),
            _ => csv_rows(&bytes),
        };
        let matrix = rows.and_then(|rows| Self::new(&rows));
        matrix.map_err(|error| error.in_file(path))
    }

    /// The loads of `layer`, `[E]`.
    pub fn layer(&self, layer: usize) -> &[u64] {
        let start = layer.saturating_mul(self.experts);
        let row = self.counts.get(start..start.saturating_add(self.experts));
        row.unwrap_or_default()
    }

    /// A trace of one step in which the experts have these loads: each token of a layer chooses
    /// expert e with probability exactly `k · count[e] / Σ counts`, `top_k` distinct experts, by
    /// Madow's systematic sampling. Tokens are independent of each other and of other layers, and
    /// the slots of a token are in random order: a matrix says nothing of either. A layer without
    /// load gets no record.
    ///
    /// # Errors
    /// [`TraceError`]: no tokens, no load at all, more choices than experts, or an expert whose share
    /// is above 1/k, which no k distinct choices can give.
    pub fn sample(&self, tokens: u32, top_k: u32, seed: u64) -> Result<Trace, TraceError> {
        self.sample_steps(1, tokens, top_k, seed)
    }

    /// [`Self::sample`] for several steps of `tokens` tokens each.
    ///
    /// # Errors
    /// As [`Self::sample`]; also for no steps.
    pub fn sample_steps(
        &self,
        steps: u64,
        tokens: u32,
        top_k: u32,
        seed: u64,
    ) -> Result<Trace, TraceError> {
        if !(1..=self.experts as u64).contains(&u64::from(top_k)) {
            let expected = format!("1 to {}, the number of experts", self.experts);
            return Err(TraceError::wrong("", "top_k", top_k, expected));
        }
        let mut records = Vec::new();
        let mut order: Vec<u32> = (0..self.experts as u32).collect();
        for layer in 0..self.layers {
            let counts = self.layer(layer);
            let sum: u64 = counts.iter().sum();
            if sum == 0 {
                continue;
            }
            let lengths: Vec<u64> = counts
                .iter()
                .map(|count| count.saturating_mul(u64::from(top_k)))
                .collect();
            if let Some(expert) = lengths.iter().position(|length| *length > sum) {
                let place = format!("layer {layer}, expert {expert}");
                let held = format!("{} of {sum}", counts[expert]);
                let expected = format!("at most 1/{top_k} of it, as a token chooses it once");
                return Err(TraceError::wrong(place, "load", held, expected));
            }
            let mut random = generator(seed, layer as u64);
            for step in 0..steps {
                let mut experts = Vec::new();
                for _ in 0..tokens {
                    systematic(&mut random, &mut order, &lengths, sum, &mut experts);
                }
                records.push(Record {
                    step,
                    layer: layer as u32,
                    tokens,
                    ranks: None,
                    token_ids: None,
                    experts,
                    weights: None,
                });
            }
        }
        let header = Header {
            experts: self.experts as u32,
            top_k,
            layers: self.layers as u32,
            source: "sampled from loads".to_owned(),
            seed: Some(seed),
        };
        Trace::new(header, records)
    }
}

fn csv_rows(bytes: &[u8]) -> Result<Vec<Vec<u64>>, TraceError> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(bytes);
    let mut rows = Vec::new();
    for (at, line) in reader.records().enumerate() {
        let place = || format!("line {}", at + 1);
        let line = line.map_err(|error| TraceError::wrong(place(), "text", error, "CSV"))?;
        let names = line.get(0).unwrap_or_default().trim_start();
        if at == 0 && names.starts_with(|first: char| first.is_alphabetic()) {
            continue;
        }
        let count = |text: &str| {
            let whole =
                |number: &f64| number.fract() == 0.0 && (0.0..=MOST as f64).contains(number);
            let number = text.trim().parse::<f64>().ok().filter(whole);
            // Whole and below 2^53, so its digits are those of an integer.
            number
                .and_then(|number| format!("{number}").parse().ok())
                .ok_or_else(|| {
                    let expected = "a whole number from 0 to 2^40";
                    TraceError::wrong(place(), "load", format!("{text:?}"), expected)
                })
        };
        rows.push(line.iter().map(count).collect::<Result<_, _>>()?);
    }
    Ok(rows)
}
