//! Seeded hidden states that make the real gate choose with a wanted skew.
//!
//! The rows of a synthetic layer's gate are orthonormal, so a token row that is a sum of gate rows
//! makes the gate choose exactly those experts: `x = Σ a_i · gate[e_i] + noise`, with `a_i`
//! falling by slot. Who is chosen is drawn first (`choose`), the rows follow from it (`rows`).
//! With more experts than hidden values gate rows overlap and the gate may choose otherwise, so
//! the measured skew ([`Skew`]) always comes from the routes, and stands beside the claim.
//!
//! A step's rows are a function of (workload, seed, step): every step has a ChaCha8 stream.

mod choose;
mod claims;
mod claims_of_heat;
mod claims_of_slots;
mod draws;
mod heat;
mod locality;
mod pattern;
mod ranks;
mod replay;
mod rows;
mod scores;
mod selftest;
mod skew;
#[cfg(test)]
mod tests;

use std::fmt;

pub use draws::Draws;
pub use pattern::Pattern;
pub use replay::{Replay, ReplayShape, ReplayedStep};
pub use scores::ScoredWorkload;
pub use selftest::{Claim, SelfTest};
pub use skew::Skew;

use rand_chacha::rand_core::Rng as _;

use crate::draw::generator;
use crate::trace::NO_CHOICE;
use crate::workload::rows::{add_gate_rows, fill_normal};

/// Dimensions of a layer, and of the batches that are made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadShape {
    /// Token rows of a step, T.
    pub tokens: usize,
    /// Elements of a row, H.
    pub hidden: usize,
    /// Experts of the layer, E.
    pub experts: usize,
    /// Choices of a token, k.
    pub top_k: usize,
}

/// A workload that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("workload {workload}: {field} is {held}, expected {expected}")]
pub struct WorkloadError {
    workload: String,
    field: String,
    held: String,
    expected: String,
}

/// Rows `[T, H]` that steer a gate whose orthonormal rows are `gate` `[E, H]` to `chosen` `[T, k]`
/// in step `step`; [`NO_CHOICE`] in slots that have none.
///
/// # Errors
/// [`WorkloadError`]: tables that do not fit `shape`, or an expert that is not there.
pub fn steered_rows(
    chosen: &[u32],
    shape: WorkloadShape,
    gate: &[f32],
    seed: u64,
    step: u64,
) -> Result<Vec<f32>, WorkloadError> {
    let wrong = |field: &str, held: String, expected: String| {
        Err(WorkloadError::new(
            "of given choices",
            field,
            held,
            expected,
        ))
    };
    let (choices, values) = (shape.tokens * shape.top_k, shape.experts * shape.hidden);
    if chosen.len() != choices {
        return wrong("choices", chosen.len().to_string(), choices.to_string());
    }
    if gate.len() != values {
        return wrong("gate", format!("{} values", gate.len()), values.to_string());
    }
    let outside = |expert: &&u32| **expert != NO_CHOICE && **expert as usize >= shape.experts;
    if let Some(expert) = chosen.iter().find(outside) {
        let expected = format!("below {}, the number of experts", shape.experts);
        return wrong("expert", expert.to_string(), expected);
    }
    let mut rows = Vec::with_capacity(shape.tokens * shape.hidden);
    add_gate_rows(&mut generator(seed, step), chosen, shape, gate, &mut rows);
    Ok(rows)
}

/// Where the token rows of every step come from.
#[derive(Debug, Clone)]
pub struct Workload {
    name: String,
    shape: WorkloadShape,
    seed: u64,
    source: Source,
    /// Tokens of a sequence; 0 for batches of one.
    sequence: usize,
    /// `[T]` of every step, where the tokens have ids of their own.
    ids: Option<Vec<u32>>,
}

#[derive(Debug, Clone)]
enum Source {
    /// Sums of gate rows `[E, H]`.
    Steered { draws: Box<Draws>, gate: Vec<f32> },
    /// Independent values, whatever the gate makes of them.
    Normal,
    /// The same rows `[T, H]` in every step.
    Fixed {
        rows: Vec<f32>,
        padding: Option<Vec<bool>>,
    },
    /// Independent values, for a gate that is told what to choose.
    Replay(Box<Replay>),
}

/// What a step is made of besides its rows.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Token rows, T.
    pub tokens: usize,
    /// `[T]`, true for padding.
    pub padding: Option<&'a [bool]>,
    /// What the gate is told to choose.
    pub replay: Option<&'a ReplayedStep>,
}

// === impl WorkloadError ===

impl WorkloadError {
    fn new(
        workload: impl fmt::Display,
        field: impl Into<String>,
        held: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            workload: workload.to_string(),
            field: field.into(),
            held: held.into(),
            expected: expected.into(),
        }
    }
}

// === impl WorkloadShape ===

impl WorkloadShape {
    fn check(&self, pattern: &Pattern) -> Result<(), WorkloadError> {
        let experts = self.experts;
        if self.tokens == 0 {
            return Err(WorkloadError::new(pattern, "tokens", "0", "at least 1"));
        }
        if !(1..=experts).contains(&self.top_k) {
            let held = self.top_k.to_string();
            let expected = format!("1 to {experts}, the number of experts");
            return Err(WorkloadError::new(pattern, "top_k", held, expected));
        }
        Ok(())
    }
}

// === impl Workload ===

impl Workload {
    /// Rows that follow `pattern`; all but [`Pattern::Normal`] need the `gate` `[E, H]` of the
    /// layer, with orthonormal rows.
    ///
    /// # Errors
    /// [`WorkloadError`]: no tokens, more choices than experts, a gate of another shape, or a
    /// pattern that needs a gate without one.
    pub fn new(
        pattern: Pattern,
        shape: WorkloadShape,
        seed: u64,
        gate: Option<Vec<f32>>,
    ) -> Result<Self, WorkloadError> {
        let WorkloadShape {
            hidden, experts, ..
        } = shape;
        let wrong = |held: String, expected: String| {
            Err(WorkloadError::new(pattern, "gate", held, expected))
        };
        shape.check(&pattern)?;
        let source = match (pattern, gate) {
            (Pattern::Normal, _) => Source::Normal,
            (_, Some(gate)) if gate.len() == experts * hidden => Source::Steered {
                draws: Box::new(Draws::new(pattern, shape, None, seed)?),
                gate,
            },
            (_, Some(gate)) => {
                let expected = format!("{experts} rows of {hidden}");
                return wrong(format!("{} values", gate.len()), expected);
            }
            (_, None) => {
                let held = "that of a checkpoint".to_owned();
                let expected = "that of a synthetic layer, whose rows are orthonormal; use \
                                workload normal, or a file of hidden states";
                return wrong(held, expected.to_owned());
            }
        };
        Ok(Self {
            name: pattern.to_string(),
            shape,
            seed,
            source,
            sequence: 0,
            ids: None,
        })
    }

    /// The same workload over another number of ranks than [`Draws::new`] takes by itself: what
    /// [`Pattern::HotRank`], [`Pattern::SourceRagged`] and [`Pattern::ZeroExpertRank`] call a
    /// rank is a worker where `ranks` is the number of workers and placement is contiguous.
    ///
    /// # Errors
    /// [`WorkloadError`] as for [`Draws::new`].
    pub fn over_ranks(mut self, ranks: usize) -> Result<Self, WorkloadError> {
        if let Source::Steered { draws, .. } = &mut self.source {
            **draws = Draws::new(draws.pattern, self.shape, Some(ranks), self.seed)?;
        }
        Ok(self)
    }

    /// The same `rows` `[T, H]` in every step, `padding` `[T]` marking rows that are skipped.
    ///
    /// `name` says where they are from.
    ///
    /// # Errors
    /// [`WorkloadError`] if `rows` or `padding` do not fit `shape`.
    pub fn fixed(
        name: impl Into<String>,
        shape: WorkloadShape,
        rows: Vec<f32>,
        padding: Option<Vec<bool>>,
    ) -> Result<Self, WorkloadError> {
        let name = name.into();
        let wrong = |field: &str, held: usize, expected: usize| {
            WorkloadError::new(&name, field, format!("{held} values"), expected.to_string())
        };
        let expected = shape.tokens * shape.hidden;
        if rows.len() != expected {
            return Err(wrong("rows", rows.len(), expected));
        }
        if let Some(padding) = &padding
            && padding.len() != shape.tokens
        {
            return Err(wrong("padding", padding.len(), shape.tokens));
        }
        Ok(Self {
            name,
            shape,
            seed: 0,
            source: Source::Fixed { rows, padding },
            sequence: 0,
            ids: None,
        })
    }

    /// The same tokens in sequences of `sequence` (0: one), with their `ids` `[T]`.
    #[must_use]
    pub fn of_sequences(mut self, sequence: usize, ids: Option<Vec<u32>>) -> Self {
        self.sequence = sequence;
        self.ids = ids;
        self
    }

    /// Tokens of a sequence; 0 for batches of one.
    pub fn sequence(&self) -> usize {
        self.sequence
    }

    /// Normal rows of `hidden` values for a gate of [`Kind::Replay`], which is told the choices of
    /// `replay`. Steps have as many tokens as those of the trace, [`Self::shape`] the most.
    ///
    /// [`Kind::Replay`]: expertmesh_routing::Kind::Replay
    pub fn replayed(replay: Replay, shape: ReplayShape, hidden: usize, seed: u64) -> Self {
        Self {
            name: replay.name().to_owned(),
            shape: WorkloadShape {
                tokens: replay.most_tokens(),
                hidden,
                experts: shape.experts,
                top_k: shape.top_k,
            },
            seed,
            source: Source::Replay(Box::new(replay)),
            sequence: 0,
            ids: None,
        }
    }

    /// What `step` is made of besides its rows.
    pub fn batch(&self, step: u64) -> Batch<'_> {
        match &self.source {
            Source::Replay(replay) => {
                let step = replay.step(step);
                Batch {
                    tokens: step.tokens,
                    padding: step.padding.as_deref(),
                    replay: Some(step),
                }
            }
            _ => Batch {
                tokens: self.shape.tokens,
                padding: self.padding(),
                replay: None,
            },
        }
    }

    /// Where the choices of a recorded run are from, and their seed: those of a replayed trace are
    /// from where that is from.
    pub fn origin(&self) -> (&str, Option<u64>) {
        match &self.source {
            Source::Replay(replay) => replay.origin(),
            _ => (&self.name, Some(self.seed)),
        }
    }

    /// What it is, for reports: a pattern or a file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dimensions of a step, of those of a trace the longest.
    pub fn shape(&self) -> WorkloadShape {
        self.shape
    }

    /// Puts the rows `[T, H]` of `step`, T being that of [`Self::batch`], into `rows`, whose memory is reused.
    pub fn fill(&self, step: u64, rows: &mut Vec<f32>) {
        let (tokens, hidden) = (self.batch(step).tokens, self.shape.hidden);
        rows.clear();
        let mut random = generator(self.seed, step);
        match &self.source {
            Source::Fixed { rows: fixed, .. } => rows.extend_from_slice(fixed),
            Source::Normal | Source::Replay(_) => fill_normal(&mut random, tokens * hidden, rows),
            Source::Steered { draws, gate } => {
                let chosen = draws.draw(&mut random, step);
                add_gate_rows(&mut random, &chosen, self.shape, gate, rows);
            }
        }
    }

    /// Ids of the `tokens` tokens of `step`, for gates that hash them: their own, or even over a
    /// vocabulary of 2¹⁵.
    pub fn token_ids(&self, step: u64, tokens: usize) -> Vec<u32> {
        if let Some(ids) = &self.ids {
            return ids.clone();
        }
        // A stream apart from that of the rows.
        let mut random = generator(!self.seed, step);
        (0..tokens).map(|_| random.next_u32() >> 17).collect()
    }

    /// The rows `[T, H]` of `step` in memory of their own.
    pub fn rows(&self, step: u64) -> Vec<f32> {
        let mut rows = Vec::new();
        self.fill(step, &mut rows);
        rows
    }

    /// `[T]`, true for padding that is the same in every step; see [`Self::batch`].
    pub fn padding(&self) -> Option<&[bool]> {
        match &self.source {
            Source::Fixed { padding, .. } => padding.as_deref(),
            Source::Steered { draws, .. } => draws.padding(),
            Source::Normal | Source::Replay(_) => None,
        }
    }

    /// The choices that the rows are made from, where they are made from choices.
    pub fn draws(&self) -> Option<&Draws> {
        match &self.source {
            Source::Steered { draws, .. } => Some(draws),
            Source::Normal | Source::Fixed { .. } | Source::Replay(_) => None,
        }
    }

    /// The share of all choices that the hottest expert is expected to get, where the pattern
    /// says so.
    pub fn claimed_share(&self) -> Option<f64> {
        self.draws().and_then(Draws::claimed_share)
    }

    /// Holds the routes that the gate made of the rows against what the workload claims: of each
    /// step its number and its experts `[T, k]`. See [`Draws::self_test`]; rows that no draws
    /// stand behind claim nothing.
    ///
    /// # Errors
    /// [`WorkloadError`] as for [`Draws::self_test`]; for a claim that does not hold, ask
    /// [`SelfTest::verdict`].
    pub fn self_test<E: AsRef<[u32]>>(
        &self,
        steps: impl IntoIterator<Item = (u64, E)>,
    ) -> Result<SelfTest, WorkloadError> {
        match self.draws() {
            Some(draws) => draws.self_test(steps),
            None => Ok(SelfTest {
                workload: self.name.clone(),
                steps: steps.into_iter().count() as u64,
                claims: Vec::new(),
            }),
        }
    }
}
