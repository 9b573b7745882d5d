//! The gate over a batch: inline when short, over the compute pool when not.

use std::sync::Arc;

use expertmesh_experts::{ComputePool, INLINE_NS};
use expertmesh_routing::{Gate, Route, RoutingError};
use ndarray::ArcArray2;
use rayon::prelude::*;
use tokio::sync::oneshot;

use crate::error::CoordinatorError;

/// Rough speed of one core on a product of this shape, flops per nanosecond.
const FLOPS_PER_NS: u64 = 20;

/// Tokens that one task routes.
const BLOCK_TOKENS: usize = 64;

/// Routes `x` `[tokens, hidden]`. The answer does not depend on where or in how many parts it is
/// computed: rows are independent.
pub(crate) async fn route(
    gate: &Arc<Gate>,
    compute: &ComputePool,
    x: &ArcArray2<f32>,
    padding: Option<Vec<bool>>,
) -> Result<Route, CoordinatorError> {
    let tokens = x.nrows();
    let flops = 2 * (tokens * gate.hidden() * gate.config().experts) as u64;
    let cost_ns = flops / FLOPS_PER_NS;
    if cost_ns <= INLINE_NS {
        let rows = x.as_slice().unwrap_or_default();
        return Ok(gate.route(rows, tokens, padding.as_deref())?);
    }
    let (sender, answer) = oneshot::channel();
    let (gate, x) = (Arc::clone(gate), x.clone());
    compute.run(cost_ns, move || {
        // A caller that went away no longer cares.
        let _ = sender.send(route_in_blocks(&gate, &x, padding));
    });
    let route = answer
        .await
        .map_err(|error| CoordinatorError::Internal(error.to_string()))?;
    Ok(route?)
}

fn route_in_blocks(
    gate: &Gate,
    x: &ArcArray2<f32>,
    padding: Option<Vec<bool>>,
) -> Result<Route, RoutingError> {
    let rows = x.as_slice().unwrap_or_default();
    let (tokens, hidden) = (x.nrows(), x.ncols());
    let (e, k) = (gate.config().experts, gate.config().top_k);
    let mut route = Route {
        tokens,
        top_k: k,
        offsets: None,
        experts_total: e,
        logits: vec![0.0; tokens * e],
        experts: vec![0; tokens * k],
        weights: vec![0.0; tokens * k],
        padding,
    };
    rows.par_chunks(BLOCK_TOKENS * hidden)
        .zip(route.logits.par_chunks_mut(BLOCK_TOKENS * e))
        .zip(route.experts.par_chunks_mut(BLOCK_TOKENS * k))
        .zip(route.weights.par_chunks_mut(BLOCK_TOKENS * k))
        .enumerate()
        .try_for_each(|(block, (((rows, logits), experts), weights))| {
            let place = |error: RoutingError| error.offset_token(block * BLOCK_TOKENS);
            gate.logits(rows, logits).map_err(place)?;
            gate.select(logits, rows.len() / hidden, experts, weights)
                .map_err(place)
        })?;
    Ok(route)
}
