//! The gate's choices in the answers of a coordinator, as a trace.

use expertmesh_routing::{Kind, Route};
use expertmesh_wire::v1;
use v1::model_source::Source;

use crate::drive::DriveError;
use crate::trace::{Header, NO_CHOICE, Record, Trace, TraceError};
use crate::workload::Batch;

/// Choices of the steps of a run: what the gate chose, whatever became of it, and the weights that
/// it gave. Padding has no choices in a trace.
#[derive(Debug, Clone)]
pub struct RouteLog {
    experts: u32,
    /// Slots of a token, or more where a gate without a fixed number made more.
    top_k: usize,
    layer: u32,
    steps: Vec<Step>,
}

/// The tables of one step.
#[derive(Debug, Clone)]
struct Step {
    experts: Vec<u32>,
    weights: Vec<f32>,
    /// `[T + 1]`: where each token's choices begin.
    offsets: Vec<usize>,
    padding: Option<Vec<bool>>,
    ranks: Option<Vec<u32>>,
    token_ids: Option<Vec<u32>>,
}

// === impl RouteLog ===

impl RouteLog {
    /// A log for answers of `cluster` to requests with `want_routing`.
    ///
    /// # Errors
    /// [`DriveError::Trace`] for a gate that makes no choices.
    pub fn new(cluster: &v1::ClusterReply) -> Result<Self, DriveError> {
        let soft = Kind::Soft {
            slots_per_expert: 1,
            scale: None,
        };
        if cluster.gate == soft.name() {
            let expected = "one that makes choices, which a trace holds; soft MoE mixes tokens";
            return Err(TraceError::wrong("", "gate", &cluster.gate, expected).into());
        }
        let model = cluster.model.as_ref();
        Ok(Self {
            experts: cluster.experts,
            top_k: cluster.top_k as usize,
            layer: match model.and_then(|model| model.source.as_ref()) {
                Some(Source::Checkpoint(from)) => from.layer,
                Some(Source::Synthetic(spec)) => spec.layer,
                Some(Source::Custom(_)) | None => 0,
            },
            steps: Vec::new(),
        })
    }

    /// Steps that it holds.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Keeps the choices of one answer to a request for `batch`.
    ///
    /// # Errors
    /// [`DriveError::Answer`]: no tables, or tables whose lengths contradict each other, named.
    pub fn record(
        &mut self,
        reply: &v1::ForwardReply,
        batch: &Batch<'_>,
    ) -> Result<(), DriveError> {
        let routing = reply.routing.as_ref();
        let routing =
            routing.ok_or_else(|| DriveError::Answer("`routing` is missing".to_owned()))?;
        let tokens = batch.tokens;
        let offsets: Vec<usize> = match routing.offsets.is_empty() {
            true => (0..=tokens).map(|token| token * self.top_k).collect(),
            false => words("routing.offsets", &routing.offsets, tokens + 1)?
                .map(|offset| offset as usize)
                .collect(),
        };
        if offsets.first() != Some(&0) || !offsets.is_sorted() {
            let error = "`routing.offsets` holds others, expected rising ones from 0";
            return Err(DriveError::Answer(error.to_owned()));
        }
        let choices = offsets.last().copied().unwrap_or(0);
        let experts = words("routing.chosen_expert", &routing.chosen_expert, choices)?;
        let weights = words("routing.gate_weight", &routing.gate_weight, choices)?;
        let longest = offsets.windows(2).map(|pair| pair[1] - pair[0]).max();
        self.top_k = self.top_k.max(longest.unwrap_or(0));
        self.steps.push(Step {
            experts: experts.collect(),
            weights: weights.map(f32::from_bits).collect(),
            offsets,
            padding: batch.padding.map(<[bool]>::to_vec),
            ranks: batch.replay.and_then(|replay| replay.ranks.clone()),
            token_ids: batch.replay.and_then(|replay| replay.token_ids.clone()),
        });
        Ok(())
    }

    /// Keeps the choices of a step of this process.
    pub fn keep(&mut self, route: &Route) {
        let offsets: Vec<usize> = match &route.offsets {
            None => (0..=route.tokens)
                .map(|token| token * route.top_k)
                .collect(),
            Some(offsets) => offsets.iter().map(|offset| *offset as usize).collect(),
        };
        let longest = offsets.windows(2).map(|pair| pair[1] - pair[0]).max();
        self.top_k = self.top_k.max(longest.unwrap_or(0));
        self.steps.push(Step {
            experts: route.experts.clone(),
            weights: route.weights.clone(),
            offsets,
            padding: route.padding.clone(),
            ranks: None,
            token_ids: None,
        });
    }

    /// The trace of the steps, numbered from 0; `source` says where their choices are from.
    ///
    /// # Errors
    /// [`DriveError::Trace`] for no steps, or choices that no trace can hold.
    pub fn finish(self, source: impl Into<String>, seed: Option<u64>) -> Result<Trace, DriveError> {
        let Self {
            top_k,
            layer,
            experts,
            steps,
        } = self;
        let header = Header {
            experts,
            top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
            layers: layer.saturating_add(1),
            source: source.into(),
            seed,
        };
        let records = (0..).zip(steps);
        let records = records.map(|(number, step)| step.record(number, layer, top_k));
        Ok(Trace::new(header, records.collect())?)
    }
}

// === impl Step ===

impl Step {
    /// The record of this step, tokens with fewer choices than `top_k` filled up.
    fn record(self, step: u64, layer: u32, top_k: usize) -> Record {
        let tokens = self.offsets.len().saturating_sub(1);
        let mut experts = vec![NO_CHOICE; tokens * top_k];
        let mut weights = vec![0.0; tokens * top_k];
        for (token, pair) in self.offsets.windows(2).enumerate() {
            let is_padding = |padding: &Vec<bool>| padding.get(token) == Some(&true);
            if self.padding.as_ref().is_some_and(is_padding) {
                continue;
            }
            let (from, to) = (
                pair[0]..pair[1],
                token * top_k..token * top_k + pair[1] - pair[0],
            );
            experts[to.clone()].copy_from_slice(&self.experts[from.clone()]);
            weights[to].copy_from_slice(&self.weights[from]);
        }
        Record {
            step,
            layer,
            tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
            ranks: self.ranks,
            token_ids: self.token_ids,
            experts,
            weights: Some(weights),
        }
    }
}

/// `bytes`, if they are `count` little-endian words.
fn words<'a>(
    name: &str,
    bytes: &'a [u8],
    count: usize,
) -> Result<impl Iterator<Item = u32> + use<'a>, DriveError> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() || words.len() != count {
        let held = bytes.len();
        let expected = count.saturating_mul(4);
        let error = format!("`{name}` holds {held} bytes, expected {expected}");
        return Err(DriveError::Answer(error));
    }
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)))
}
