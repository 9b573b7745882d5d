//! Tokens that go round a layer: those that mixture-of-depths passes over, and those that left the
//! stack before it.
//!
//! The gate sees every token, so that each has its choices in the ledger; those of a token that
//! goes round are skipped. Behind the plan such a token does not exist: no home has it, no row of
//! it travels, and no expert, the shared one included, computes it.

use std::ops::Range;
use std::sync::Arc;

use expertmesh_exchange::KeptChoices;
use expertmesh_experts::{ComputePool, for_each_row_block};
use expertmesh_kernels::{Format, round_bf16};
use expertmesh_routing::{Admission, DepthRoute, Route};
use ndarray::{ArcArray2, Array2};
use tokio::sync::oneshot;

use crate::connect::Coordinator;
use crate::error::CoordinatorError;
use crate::input::StepInput;

/// Elements of rows that one core copies per nanosecond, roughly; for the choice between inline
/// and pool only.
pub(crate) const COPIES_PER_NS: u64 = 2;

/// Multiply-adds of a router of one row per nanosecond, likewise.
const ROUTED_PER_NS: u64 = 4;

/// Who of a step's tokens is in the layer.
#[derive(Debug, Default)]
pub(crate) struct Around {
    /// The answer of mixture-of-depths, where the layer has it.
    depth: Option<DepthRoute>,
    /// The tokens that are in the layer, ascending; `None`: all of them.
    inside: Option<Vec<u32>>,
}

/// Runs `job` here if `cost_ns` is short, else on the compute pool.
pub(crate) async fn computed<T: Send + 'static>(
    compute: &ComputePool,
    cost_ns: u64,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CoordinatorError> {
    let (sender, answer) = oneshot::channel();
    compute.run(cost_ns, move || {
        // A caller that went away no longer cares.
        let _ = sender.send(job());
    });
    let answer = answer.await;
    answer.map_err(|error| CoordinatorError::Internal(error.to_string()))
}

/// Either mask, `[tokens]`.
pub(crate) fn either(one: Option<&[bool]>, other: Option<&[bool]>) -> Option<Vec<bool>> {
    match (one, other) {
        (None, mask) | (mask, None) => mask.map(<[bool]>::to_vec),
        (Some(one), Some(other)) => Some(one.iter().zip(other).map(|(a, b)| *a || *b).collect()),
    }
}

// === impl Around ===

impl Around {
    /// The tokens that `outside` marks go round.
    fn new(depth: Option<DepthRoute>, outside: Option<&[bool]>) -> Self {
        let outside = outside.filter(|outside| outside.contains(&true));
        let inside = outside.map(|outside| {
            (0..)
                .zip(outside)
                .filter_map(|(token, outside)| (!outside).then_some(token))
                .collect()
        });
        Self { depth, inside }
    }

    /// Tokens were mixed into slots, all of which are in the layer; whoever goes round gave nothing
    /// to them and takes nothing from them.
    pub(crate) fn mixed(&mut self) {
        self.inside = None;
    }

    /// The padding of the gate and of admission: `padding`, and whoever goes round.
    pub(crate) fn mask(&self, padding: Option<&[bool]>, tokens: usize) -> Option<Vec<bool>> {
        let outside = self.inside.as_ref().map(|inside| {
            let mut outside = vec![true; tokens];
            inside
                .iter()
                .for_each(|token| outside[*token as usize] = false);
            outside
        });
        either(padding, outside.as_deref())
    }

    /// Number of tokens in the layer, of `tokens` in the step.
    pub(crate) fn present(&self, tokens: usize) -> usize {
        self.inside.as_ref().map_or(tokens, Vec::len)
    }

    /// The kept choices of a range of the tokens in the layer. Who goes round has none, so only
    /// the ends of the tokens' lists are to be thinned out.
    pub(crate) fn kept(
        &self,
        route: &Route,
        admission: &Admission,
        range: Range<usize>,
    ) -> KeptChoices {
        let Some(inside) = &self.inside else {
            return KeptChoices::new(route, admission, range);
        };
        let inside = &inside[range];
        let (Some(first), Some(last)) = (inside.first(), inside.last()) else {
            return KeptChoices::new(route, admission, 0..0);
        };
        let (first, last) = (*first as usize, *last as usize);
        let mut kept = KeptChoices::new(route, admission, first..last + 1);
        let end = kept.offsets.last().copied();
        let begins = inside
            .iter()
            .map(|token| kept.offsets[*token as usize - first]);
        kept.offsets = begins.chain(end).collect();
        kept
    }
}

// === impl Coordinator ===

impl Coordinator {
    /// Who goes round the layer. Padding neither passes nor counts where there is a router.
    pub(crate) async fn go_round(
        &self,
        x: &ArcArray2<f32>,
        input: &StepInput,
    ) -> Result<Around, CoordinatorError> {
        let Some(router) = &self.config.depth else {
            return Ok(Around::new(None, input.absent.as_deref()));
        };
        let out = either(input.padding.as_deref(), input.absent.as_deref());
        let tokens = x.nrows();
        let sequence = match input.sequence {
            0 => tokens,
            sequence => sequence,
        };
        let cost_ns = x.len() as u64 / ROUTED_PER_NS;
        let (router, x) = (Arc::clone(router), x.clone());
        let route = computed(&self.compute, cost_ns, move || {
            let rows = x.as_slice().unwrap_or_default();
            router.route(rows, tokens, sequence, out.as_deref())
        });
        let route = route.await??;
        let outside = route.skip_mask();
        Ok(Around::new(Some(route), Some(&outside)))
    }

    /// The rows `[present, hidden]` of the tokens in the layer.
    pub(crate) async fn gather(
        &self,
        around: &Around,
        x: ArcArray2<f32>,
    ) -> Result<ArcArray2<f32>, CoordinatorError> {
        let Some(inside) = around.inside.clone() else {
            return Ok(x);
        };
        let hidden = x.ncols();
        let cost_ns = (inside.len() * hidden) as u64 / COPIES_PER_NS;
        let shape = (inside.len(), hidden);
        let rows = computed(&self.compute, cost_ns, move || {
            let all = x.as_slice().unwrap_or_default();
            let mut rows = Vec::with_capacity(inside.len() * hidden);
            for token in inside {
                let first = token as usize * hidden;
                rows.extend_from_slice(&all[first..first + hidden]);
            }
            rows
        });
        let rows = ArcArray2::from_shape_vec(shape, rows.await?);
        rows.map_err(|error| CoordinatorError::Internal(error.to_string()))
    }

    /// The outputs `[tokens, hidden]` from those `[present, hidden]` of the tokens in the layer:
    /// each times its score where there is a router (in f32, rounded to the model's format), zero
    /// for whoever went round.
    pub(crate) async fn scatter(
        &self,
        around: Around,
        output: Array2<f32>,
        tokens: usize,
    ) -> Result<(Array2<f32>, Option<DepthRoute>), CoordinatorError> {
        let Around { depth, inside } = around;
        if depth.is_none() && inside.is_none() {
            return Ok((output, None));
        }
        let hidden = output.ncols();
        let rounds = self.rule().dtype != Format::F32;
        let mut all = self.engine.take_output(tokens * hidden);
        let from = output.into_raw_vec_and_offset().0;
        let cost_ns = (tokens * hidden) as u64 / COPIES_PER_NS;
        let scattered = computed(&self.compute, cost_ns, move || {
            for_each_row_block(&mut all, hidden, |first, rows| {
                for (token, row) in (first..).zip(rows.chunks_exact_mut(hidden.max(1))) {
                    let at = match &inside {
                        None => Ok(token),
                        Some(inside) => inside.binary_search(&narrow(token)),
                    };
                    let Ok(at) = at else {
                        row.fill(0.0);
                        continue;
                    };
                    row.copy_from_slice(&from[at * hidden..(at + 1) * hidden]);
                    if let Some(depth) = &depth {
                        let gate = depth.gates[token];
                        row.iter_mut().for_each(|value| *value *= gate);
                        if rounds {
                            round_bf16(row);
                        }
                    }
                }
            });
            (all, from, depth)
        });
        let (all, from, depth) = scattered.await?;
        self.engine.recycle(from);
        let all = Array2::from_shape_vec((tokens, hidden), all);
        let all = all.map_err(|error| CoordinatorError::Internal(error.to_string()))?;
        Ok((all, depth))
    }
}

fn narrow(token: usize) -> u32 {
    u32::try_from(token).unwrap_or(u32::MAX)
}
