//! The gate's choices in the answers of a coordinator, as a trace.

use expertmesh_coordinator::RoutingTables;
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
    /// Choices of a token that the gate is asked for.
    top_k: usize,
    layer: u32,
    steps: Vec<Step>,
}

/// The choices of one step, and whose they are.
#[derive(Debug, Clone)]
struct Step {
    route: Route,
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
        let experts = self.experts as usize;
        let route = RoutingTables::choices(routing, batch.tokens, self.top_k, experts);
        let route = route.map_err(|error| DriveError::Answer(format!("routing: {error}")))?;
        let replay = batch.replay;
        self.steps.push(Step {
            route: Route {
                padding: batch.padding.map(<[bool]>::to_vec),
                ..route
            },
            ranks: replay.and_then(|replay| replay.ranks.clone()),
            token_ids: replay.and_then(|replay| replay.token_ids.clone()),
        });
        Ok(())
    }

    /// Keeps the choices of a step of this process.
    pub fn keep(&mut self, route: &Route) {
        self.steps.push(Step {
            route: Route {
                logits: Vec::new(),
                ..route.clone()
            },
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
        // A gate without a fixed number may have made more.
        let widest = steps.iter().map(|step| step.route.top_k);
        let top_k = widest.fold(top_k, usize::max);
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
        let route = self.route;
        let mut experts = vec![NO_CHOICE; route.tokens * top_k];
        let mut weights = vec![0.0; route.tokens * top_k];
        let padding = route.padding.as_deref().unwrap_or_default();
        for token in 0..route.tokens {
            if padding.get(token) == Some(&true) {
                continue;
            }
            let from = route.choices_of(token);
            let to = token * top_k..token * top_k + from.len();
            experts[to.clone()].copy_from_slice(&route.experts[from.clone()]);
            weights[to].copy_from_slice(&route.weights[from]);
        }
        Record {
            step,
            layer,
            tokens: u32::try_from(route.tokens).unwrap_or(u32::MAX),
            ranks: self.ranks,
            token_ids: self.token_ids,
            experts,
            weights: Some(weights),
        }
    }
}
