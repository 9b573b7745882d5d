//! The gate over a batch: inline when short, over the compute pool when not.

use std::sync::Arc;

use expertmesh_experts::ComputePool;
use expertmesh_experts::pieces::{GATE_FLOPS_PER_NS, GATE_TOKENS, INLINE_NS};
use expertmesh_routing::{
    Choices, Domains, Gate, GateContext, Kind, ReplayStep, Route, RoutingError, SlotMix,
};
use ndarray::{ArcArray2, Array2};
use rayon::prelude::*;
use tokio::sync::oneshot;

use crate::error::CoordinatorError;
use crate::input::StepInput;

/// A batch on its way through the gate.
#[derive(Clone)]
pub(crate) struct GateJob {
    pub(crate) gate: Arc<Gate>,
    pub(crate) x: ArcArray2<f32>,
    pub(crate) input: Arc<StepInput>,
    pub(crate) domains: Arc<Domains>,
    pub(crate) seed: u64,
    pub(crate) step: u64,
    pub(crate) layer: u32,
    pub(crate) training: bool,
}

/// The gate's answer for a batch.
#[derive(Debug)]
pub(crate) struct Routed {
    /// Who computes which of `rows`.
    pub(crate) route: Route,
    /// What experts compute: the batch's own rows, unless the gate changes or mixes them.
    pub(crate) rows: ArcArray2<f32>,
    /// How tokens became `rows`, for a gate that mixes them.
    pub(crate) mix: Option<SlotMix>,
}

// === impl GateJob ===

impl GateJob {
    /// Routes the batch. The answer does not depend on where or in how many parts it is computed:
    /// rows are independent, or else they are looked at together.
    pub(crate) async fn run(self, compute: &ComputePool) -> Result<Routed, CoordinatorError> {
        let columns = self.gate.config().columns();
        let flops = 2 * (self.x.nrows() * self.gate.hidden() * columns) as u64;
        let cost_ns = flops / GATE_FLOPS_PER_NS;
        if cost_ns <= INLINE_NS && self.gate.config().kind.is_row_wise() {
            let rows = self.x.as_slice().unwrap_or_default();
            let context = self.context();
            let route = self.gate.route_in(rows, self.x.nrows(), &context)?;
            return Ok(self.routed(route));
        }
        let (sender, answer) = oneshot::channel();
        compute.run(cost_ns, move || {
            // A caller that went away no longer cares.
            let _ = sender.send(self.in_blocks());
        });
        let routed = answer
            .await
            .map_err(|error| CoordinatorError::Internal(error.to_string()))?;
        Ok(routed?)
    }

    fn context(&self) -> GateContext<'_> {
        let input = &self.input;
        GateContext {
            seed: self.seed,
            step: self.step,
            layer: self.layer,
            first_token: input.first_token,
            sequence: input.sequence,
            token_ids: input.token_ids.as_deref(),
            padding: input.padding.as_deref(),
            training: self.training,
            domains: Some(&self.domains),
            homes: None,
            replay: input.replay.as_ref().map(|replay| ReplayStep {
                experts: &replay.experts,
                weights: replay.weights.as_deref(),
            }),
            previous_logits: None,
        }
    }

    pub(crate) fn in_blocks(self) -> Result<Routed, RoutingError> {
        let rows = self.x.as_slice().unwrap_or_default();
        let (tokens, hidden) = (self.x.nrows(), self.x.ncols());
        let config = self.gate.config();
        let columns = config.columns();
        let kind = config.kind;
        let context = self.context();
        let mut logits = vec![0.0; tokens * columns];
        let blocks = rows
            .par_chunks(GATE_TOKENS * hidden)
            .zip(logits.par_chunks_mut(GATE_TOKENS * columns))
            .enumerate()
            .map(|(block, (rows, logits))| {
                let first = block * GATE_TOKENS;
                let part = context.rows(first..first + rows.len() / hidden, config);
                self.gate.score_rows(rows, &part, logits)?;
                if kind.is_row_wise() {
                    self.gate.choose(logits, &part)
                } else {
                    Ok(Choices::default())
                }
                .map_err(|error| error.offset_token(first))
            })
            .collect::<Result<Vec<Choices>, RoutingError>>()?;
        if let Kind::Soft { .. } = kind {
            let mix = self.gate.mix_logits(&logits, &context)?;
            return self.mixed(mix);
        }
        let blocks = match kind.is_row_wise() {
            true => blocks,
            false => vec![self.gate.choose(&logits, &context)?],
        };
        let route = self.gate.join(logits, blocks, context.padding)?;
        Ok(self.routed(route))
    }

    /// The route of tokens whose scores `logits` `[tokens, E]` are there already.
    pub(crate) fn of_logits(
        self,
        logits: Vec<f32>,
        tokens: usize,
    ) -> Result<Route, CoordinatorError> {
        let config = self.gate.config();
        let (columns, needs) = (config.columns(), config.needs());
        if logits.len() != tokens * columns {
            let expected = format!("{tokens} rows of {columns}");
            return Err(CoordinatorError::field("logits", logits.len(), expected));
        }
        if matches!(config.kind, Kind::Soft { .. }) || needs.token_ids || needs.replay {
            let expected = "one that chooses by its logits alone; give it hidden states";
            return Err(CoordinatorError::field("gate", config.kind, expected));
        }
        let context = self.context();
        if !config.kind.is_row_wise() {
            let choices = vec![self.gate.choose(&logits, &context)?];
            return Ok(self.gate.join(logits, choices, context.padding)?);
        }
        let blocks = logits
            .chunks(GATE_TOKENS * columns)
            .enumerate()
            .map(|(block, logits)| {
                let first = block * GATE_TOKENS;
                let part = context.rows(first..first + logits.len() / columns, config);
                self.gate.choose(logits, &part)
            })
            .collect::<Result<Vec<Choices>, RoutingError>>()?;
        Ok(self.gate.join(logits, blocks, context.padding)?)
    }

    fn routed(&self, route: Route) -> Routed {
        let rows = self.x.as_slice().unwrap_or_default();
        let changed = self.gate.expert_rows(rows, &self.context());
        let changed = changed.and_then(|rows| Array2::from_shape_vec(self.x.dim(), rows).ok());
        Routed {
            route,
            rows: changed.map_or_else(|| self.x.clone(), Array2::into_shared),
            mix: None,
        }
    }

    /// The route of slots: each is one choice of its expert, with all of its weight.
    fn mixed(&self, mix: SlotMix) -> Result<Routed, RoutingError> {
        let config = self.gate.config();
        let (slots, hidden) = (mix.slot_count(), self.x.ncols());
        let x = self.x.as_slice().unwrap_or_default();
        let mut rows = Array2::zeros((slots, hidden));
        let values = rows.as_slice_mut().unwrap_or_default();
        values
            .par_chunks_mut(hidden.max(1))
            .enumerate()
            .try_for_each(|(slot, row)| mix.slot_rows(x, hidden, slot..slot + 1, row))?;
        if config.dtype == expertmesh_kernels::Format::Bf16 {
            expertmesh_kernels::round_bf16(values);
        }
        let per_expert = mix.slots / config.experts;
        let expert = |slot: usize| slot % mix.slots / per_expert;
        let experts = (0..slots).map(expert);
        let route = Route {
            tokens: slots,
            top_k: 1,
            offsets: None,
            experts_total: config.experts,
            logits: Vec::new(),
            experts: experts
                .map(|e| u32::try_from(e).unwrap_or(u32::MAX))
                .collect(),
            weights: vec![1.0; slots],
            padding: None,
        };
        Ok(Routed {
            route,
            rows: rows.into_shared(),
            mix: Some(mix),
        })
    }
}
