//! Layers whose experts work on latent rows: hidden states are projected into them once, behind the
//! gate, and what homes added up is projected back once, before the shared expert is added.
//!
//! Between the two, plan, exchange, homes and experts see latent rows and nothing else.

use std::sync::Arc;

use expertmesh_checkpoint::LayerSource;
use expertmesh_experts::pieces::GATE_FLOPS_PER_NS;
use expertmesh_experts::{
    ExpertError, HomeExperts, HomeRows, LatentProjections, for_each_row_block,
};
use expertmesh_telemetry::spans;
use ndarray::{ArcArray2, Array2};
use tracing::debug_span;

use crate::connect::Coordinator;
use crate::depth::computed;
use crate::error::CoordinatorError;

// === impl Coordinator ===

impl Coordinator {
    /// The rows `[tokens, row width]` that experts work on, of hidden states `x` `[tokens, hidden]`:
    /// `x` itself in most layers.
    pub(crate) async fn enter_latent(
        &self,
        x: &ArcArray2<f32>,
    ) -> Result<ArcArray2<f32>, CoordinatorError> {
        let Some(projections) = self.projections.clone() else {
            return Ok(x.clone());
        };
        let (tokens, x) = (x.nrows(), x.clone());
        let mut rows = vec![0.0; tokens * projections.latent()];
        let cost_ns = tokens as u64 * projections.flops_per_row() / GATE_FLOPS_PER_NS;
        let shape = (tokens, projections.latent());
        let rows = computed(&self.compute, cost_ns, move || {
            let _entered = debug_span!(spans::GATE).entered();
            let hidden = x.as_slice().unwrap_or_default();
            projections.enter(hidden, &mut rows)?;
            Ok::<_, ExpertError>(rows)
        });
        let rows = ArcArray2::from_shape_vec(shape, rows.await??);
        rows.map_err(|error| CoordinatorError::Internal(error.to_string()))
    }

    /// The outputs `[tokens, hidden]` of combined rows `[tokens, row width]`; `own` is the shared
    /// expert's part where it is not in them yet.
    pub(crate) async fn leave_latent(
        &self,
        combined: Array2<f32>,
        own: HomeRows,
    ) -> Result<Array2<f32>, CoordinatorError> {
        let Some(projections) = self.projections.clone() else {
            return Ok(combined);
        };
        let (tokens, hidden, rule) = (combined.nrows(), self.hidden(), self.rule());
        let rows = combined.into_raw_vec_and_offset().0;
        let mut out = self.engine.take_output(tokens * hidden);
        let cost_ns = tokens as u64 * projections.flops_per_row() / GATE_FLOPS_PER_NS;
        let (out, rows) = computed(&self.compute, cost_ns, move || {
            let _entered = debug_span!(spans::COMBINE).entered();
            projections.leave(&rows, &mut out)?;
            if let Some(shared) = own.shared {
                for_each_row_block(&mut out, hidden, |first, out| {
                    let first = first * hidden;
                    rule.add_shared(out, &shared[first..first + out.len()]);
                });
            }
            Ok::<_, ExpertError>((out, rows))
        })
        .await??;
        self.engine.recycle(rows);
        let out = Array2::from_shape_vec((tokens, hidden), out);
        out.map_err(|error| CoordinatorError::Internal(error.to_string()))
    }
}

/// The projections of a layer that has a latent size, and what its coordinator computes beside the
/// exchange: the shared expert, for homes of latent rows have no hidden states.
pub(crate) type Latent = (Arc<LatentProjections>, HomeExperts);

/// Loads both; `None` for a layer whose experts work on hidden states.
pub(crate) fn load(source: &dyn LayerSource) -> Result<Option<Latent>, CoordinatorError> {
    let spec = source.spec();
    let Some(latent) = spec.latent else {
        return Ok(None);
    };
    let projections = source.projections()?;
    let sizes = |one: &LatentProjections| (one.hidden(), one.latent());
    match projections {
        Some(one) if sizes(&one) == (spec.hidden, latent) => {
            let own = HomeExperts::new(source.shared()?, spec.experts, Vec::new());
            Ok(Some((Arc::new(one), own)))
        }
        other => {
            let held = match other {
                None => "nothing".to_owned(),
                Some(one) => format!("{:?}", sizes(&one)),
            };
            let expected = format!(
                "{:?}, the layer's hidden and latent size",
                (spec.hidden, latent)
            );
            Err(CoordinatorError::field("projections", held, expected))
        }
    }
}
