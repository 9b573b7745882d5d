//! What a trace says, layer by layer, beside what chance would give.
//!
//! The three measures of locality look at pairs of consecutive tokens: neighbours in a record
//! that came from the same rank (or from unknown ones) and that both have a first choice.
//! Sequences may end anywhere between them, which no format says.
//!
//! * `same_first`: both have the same first choice. Chance: 1/E.
//! * `first_in_next_two`: the first choice of the earlier is among the first two of the later.
//!   Chance: 2/E.
//! * `share_in_first_two`: their first two choices have an expert in common. Chance:
//!   1 - (E-2)(E-3) / (E(E-1)).
//!
//! The first and the last are the columns of Mixtral's Table 5 (Jiang et al. 2024): chance gives
//! 12.5 % and 46 % of them for 8 experts. Measures of two choices need k of at least 2.

use std::collections::BTreeMap;

use expertmesh_routing::balance;
use serde::Serialize;

use crate::trace::uniform::{Uniform, normalised};
use crate::trace::{NO_CHOICE, Record, Trace};

/// Hottest experts that are named.
const HOTTEST: usize = 4;

/// A measured figure and its expectation for tokens that choose k distinct experts at random.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// What the trace has; `None` where it has nothing to measure.
    pub measured: Option<f64>,
    /// What chance would give.
    pub uniform: f64,
}

/// An expert and its load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Load {
    /// Index of the expert.
    pub expert: u32,
    /// Choices that it got.
    pub choices: u64,
    /// Their share of all choices of the layer.
    pub share: f64,
}

/// Figures of one layer, over all its steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerStats {
    /// Number of the layer.
    pub layer: u32,
    /// Steps that have it.
    pub steps: usize,
    /// Tokens of those steps.
    pub tokens: u64,
    /// Their choices: fewer than `tokens · k` where slots are empty.
    pub choices: u64,
    /// Gini coefficient of the experts' loads.
    pub gini: Figure,
    /// Highest load over the mean.
    pub max_over_mean: Figure,
    /// Entropy of the loads over its highest value `ln E`: 1 is even.
    pub entropy: Figure,
    /// Experts that no token chose.
    pub idle: Figure,
    /// The experts with the highest loads, at most 4, ties to the lower index.
    pub hottest: Vec<Load>,
    /// See the module's text.
    pub same_first: Figure,
    /// See the module's text.
    pub first_in_next_two: Figure,
    /// See the module's text.
    pub share_in_first_two: Figure,
    /// Pearson's correlation of the experts' loads in one step and the next, averaged over pairs
    /// of consecutive steps in which both loads are uneven: 1 for a skew that stays, 0 by chance.
    pub load_correlation: Figure,
    /// Every token's experts are in ascending order, as some recorders sort them: then slots are
    /// no ranks, and the first choice is only the lowest index. False for k of 1.
    pub ascending: bool,
}

/// Figures of every layer of a trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TraceStats {
    /// Where the trace is from.
    pub source: String,
    /// Experts of a layer, E.
    pub experts: u32,
    /// Slots of a token, k.
    pub top_k: u32,
    /// Steps of the trace.
    pub steps: usize,
    /// By layer number.
    pub layers: Vec<LayerStats>,
}

// === impl Trace ===

impl Trace {
    /// Figures of every layer.
    pub fn stats(&self) -> TraceStats {
        let header = self.header();
        let mut layers: BTreeMap<u32, Tally> = BTreeMap::new();
        for record in self.records() {
            let tally = layers.entry(record.layer);
            let tally = tally.or_insert_with(|| Tally::new(header.experts as usize));
            tally.add(record);
        }
        let layers = layers.into_iter();
        TraceStats {
            source: header.source.clone(),
            experts: header.experts,
            top_k: header.top_k,
            steps: self.steps(),
            layers: layers
                .map(|(layer, tally)| tally.finish(layer, header.top_k))
                .collect(),
        }
    }
}

/// Counts of one layer.
struct Tally {
    counts: Vec<u64>,
    before: Option<Vec<u64>>,
    steps: usize,
    tokens: u64,
    pairs: u64,
    same_first: u64,
    first_in_next_two: u64,
    share_in_first_two: u64,
    correlations: Vec<f64>,
    ascending: bool,
}

// === impl Tally ===

impl Tally {
    fn new(experts: usize) -> Self {
        Self {
            counts: vec![0; experts],
            before: None,
            steps: 0,
            tokens: 0,
            pairs: 0,
            same_first: 0,
            first_in_next_two: 0,
            share_in_first_two: 0,
            correlations: Vec::new(),
            ascending: true,
        }
    }

    fn add(&mut self, record: &Record) {
        self.steps += 1;
        self.tokens += u64::from(record.tokens);
        let mut counts = vec![0; self.counts.len()];
        for &expert in record.experts.iter().filter(|&&expert| expert != NO_CHOICE) {
            counts[expert as usize] += 1;
            self.counts[expert as usize] += 1;
        }
        let mut before: Option<(&[u32], Option<u32>)> = None;
        for (token, row) in record.rows().enumerate() {
            let rank = record.ranks.as_ref().map(|ranks| ranks[token]);
            self.ascending &= row.is_sorted();
            if let Some((earlier, from)) = before
                && from == rank
            {
                self.pair(earlier, row);
            }
            before = Some((row, rank));
        }
        if let Some(before) = &self.before {
            self.correlations.extend(correlation(before, &counts));
        }
        self.before = Some(counts);
    }

    fn pair(&mut self, earlier: &[u32], later: &[u32]) {
        let two = |row: &[u32]| [row.first(), row.get(1)].map(|choice| choice.copied());
        let ([Some(first), second], [Some(next), next_second]) = (two(earlier), two(later)) else {
            return;
        };
        if first == NO_CHOICE || next == NO_CHOICE {
            return;
        }
        let second = second.filter(|&expert| expert != NO_CHOICE);
        let among = |expert| expert == next || Some(expert) == next_second;
        let has_first = among(first);
        self.pairs += 1;
        self.same_first += u64::from(first == next);
        self.first_in_next_two += u64::from(has_first);
        self.share_in_first_two += u64::from(has_first || second.is_some_and(among));
    }

    fn finish(self, layer: u32, top_k: u32) -> LayerStats {
        let experts = self.counts.len();
        let e = experts as f64;
        let choices: u64 = self.counts.iter().sum();
        let uniform = Uniform::of(self.tokens, choices, experts);
        let loaded = |value: f64| (choices > 0).then_some(value);
        let figure = |measured, uniform| Figure { measured, uniform };
        let share = |count: u64, enough: bool| {
            (self.pairs > 0 && enough).then(|| count as f64 / self.pairs as f64)
        };
        let two = top_k >= 2;
        let apart = (e - 2.0).max(0.0) * (e - 3.0).max(0.0) / (e * (e - 1.0).max(1.0));
        let pairs_of_steps = self.correlations.len() as f64;
        let correlation = self.correlations.iter().sum::<f64>() / pairs_of_steps;
        LayerStats {
            layer,
            steps: self.steps,
            tokens: self.tokens,
            choices,
            gini: figure(loaded(balance::gini(&self.counts)), uniform.gini),
            max_over_mean: figure(
                loaded(balance::max_over_mean(&self.counts)),
                uniform.max_over_mean,
            ),
            entropy: figure(
                loaded(normalised(balance::entropy(&self.counts), experts)),
                uniform.entropy,
            ),
            idle: figure(Some(balance::idle(&self.counts) as f64), uniform.idle),
            hottest: hottest(&self.counts, choices),
            same_first: figure(share(self.same_first, true), 1.0 / e),
            first_in_next_two: figure(share(self.first_in_next_two, two), (2.0 / e).min(1.0)),
            share_in_first_two: figure(share(self.share_in_first_two, two), 1.0 - apart),
            load_correlation: figure((pairs_of_steps > 0.0).then_some(correlation), 0.0),
            ascending: two && self.ascending,
        }
    }
}

fn hottest(counts: &[u64], choices: u64) -> Vec<Load> {
    let mut ranked: Vec<(u32, u64)> = (0..).zip(counts.iter().copied()).collect();
    ranked.sort_by_key(|&(expert, count)| (std::cmp::Reverse(count), expert));
    let loaded = ranked.into_iter().filter(|(_, count)| *count > 0);
    let named = loaded.take(HOTTEST).map(|(expert, count)| Load {
        expert,
        choices: count,
        share: count as f64 / choices as f64,
    });
    named.collect()
}

/// Pearson's; `None` where either load is even.
fn correlation(a: &[u64], b: &[u64]) -> Option<f64> {
    let n = a.len() as f64;
    let mean = |counts: &[u64]| counts.iter().sum::<u64>() as f64 / n;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut both, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (a as f64 - mean_a, b as f64 - mean_b);
        both += a * b;
        of_a += a * a;
        of_b += b * b;
    }
    (of_a > 0.0 && of_b > 0.0).then(|| both / (of_a * of_b).sqrt())
}
