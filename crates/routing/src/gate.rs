//! The gating network: a product, then selection.
//!
//! Two stages, so that a caller may spread a batch over threads. The first,
//! [`Gate::score_rows`], makes logits and treats every row by itself. The second,
//! [`Gate::choose`], makes choices; where [`Kind::is_row_wise`] says so, it too may be asked block
//! by block, and [`Gate::join`] puts the blocks together.

mod choose;
mod context;
mod force;
mod score;
mod tensors;

use std::sync::Arc;

use expertmesh_kernels::PackedMatrix;

use crate::{
    bias::BiasUpdate,
    config::{Kind, RouterConfig},
    error::RoutingError,
    route::Route,
    select::{SelectScratch, Selector, check_bias},
};
pub use choose::Choices;
pub(crate) use context::GateTensors;
pub use context::{Cosine, GateContext, NO_CHOICE, ReplayStep};
pub use tensors::Needs;

/// A router with its tensors. Rows are independent, to the last bit, in everything that a row-wise
/// [`Kind`] does.
#[derive(Debug)]
pub struct Gate {
    /// `[E, H]`.
    weight: Arc<PackedMatrix>,
    /// `[E]`, added to the product before it is rounded.
    bias: Option<Vec<f32>>,
    selector: Selector,
    tensors: GateTensors,
}

// === impl Gate ===

impl Gate {
    /// `weight` is `[E, H]` (soft MoE: `[E · p, H]`; cosine: `[E, P]`); `bias` `[E]` belongs to the product; `selection_bias` `[E]` shifts
    /// the selection key alone, and is given exactly when the configuration selects by it.
    ///
    /// # Errors
    /// What [`Selector::new`] refuses, a weight of another number of rows than experts, a bias
    /// of another length or with a number that is not finite.
    pub fn new(
        config: RouterConfig,
        weight: PackedMatrix,
        bias: Option<Vec<f32>>,
        selection_bias: Option<Vec<f32>>,
    ) -> Result<Self, RoutingError> {
        let selector = Selector::new(config, selection_bias)?;
        let columns = selector.config().columns();
        if weight.out() != columns {
            let of = match selector.config().kind {
                Kind::Soft { .. } => "slot of an expert",
                _ => "expert",
            };
            let expected = format!("{columns}, one row for each {of}");
            return Err(RoutingError::config(
                "gate weight rows",
                weight.out(),
                expected,
            ));
        }
        if let Some(bias) = &bias {
            check_bias("gate bias", bias, columns)?;
        }
        let weight = tensors::prepare(selector.config(), weight)?;
        Ok(Self {
            weight: Arc::new(weight),
            bias,
            selector,
            tensors: GateTensors::default(),
        })
    }

    /// The shape of the router.
    #[must_use]
    pub fn config(&self) -> &RouterConfig {
        self.selector.config()
    }

    /// Elements of a token row, `H`.
    #[must_use]
    pub fn hidden(&self) -> usize {
        let cosine = self.tensors.cosine.as_ref();
        cosine.map_or(self.weight.inner(), |cosine| cosine.projection.inner())
    }

    /// Bytes of the gate's weight as it is held.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.weight.bytes()
    }

    /// The same gate after `update` has moved its selection bias by the `loads` `[E]` of a step.
    /// Its tensors are shared, not copied.
    ///
    /// # Errors
    /// A gate that does not select by a bias, and what [`BiasUpdate::apply`] refuses.
    pub fn with_moved_bias(
        &self,
        update: &BiasUpdate,
        loads: &[u64],
    ) -> Result<Self, RoutingError> {
        Ok(Self {
            weight: Arc::clone(&self.weight),
            bias: self.bias.clone(),
            selector: self.selector.with_moved_bias(update, loads)?,
            tensors: self.tensors.clone(),
        })
    }

    /// The selection bias `[E]`, of a gate that selects by one.
    #[must_use]
    pub fn selection_bias(&self) -> Option<&[f32]> {
        self.selector.bias()
    }

    /// The part of the gate that comes after the product.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Logits of `n` token rows without noise or forced bias: `x` `[n, H]` → `out` `[n, E]`.
    ///
    /// # Errors
    /// A slice whose length does not fit, or a tensor that the configuration asks for and the gate
    /// has not got.
    pub fn logits(&self, x: &[f32], out: &mut [f32]) -> Result<(), RoutingError> {
        self.clean_logits(x, None, out)
    }

    /// Chooses for `n` rows of logits: [`Selector::select`] with buffers made for this call.
    ///
    /// # Errors
    /// As [`Selector::select`], and a [`Kind`] that chooses otherwise: see [`Gate::choose`].
    pub fn select(
        &self,
        logits: &[f32],
        n: usize,
        experts: &mut [u32],
        weights: &mut [f32],
    ) -> Result<(), RoutingError> {
        let kind = self.config().kind;
        if !kind.is_plain() {
            let expected = "topk or forced-skew, which need nothing but logits";
            return Err(RoutingError::config("kind", kind, expected));
        }
        self.selector
            .select(logits, n, experts, weights, &mut SelectScratch::default())
    }

    /// Routes a batch by itself, as in evaluation: [`Gate::route_in`] the default context.
    /// `x` is `[tokens, H]`, `padding` `[tokens]` with true for padding.
    ///
    /// # Errors
    /// As [`Gate::route_in`].
    pub fn route(
        &self,
        x: &[f32],
        tokens: usize,
        padding: Option<&[bool]>,
    ) -> Result<Route, RoutingError> {
        let context = GateContext {
            padding,
            ..GateContext::default()
        };
        self.route_in(x, tokens, &context)
    }

    /// Routes a batch on the calling thread: `x` is `[tokens, H]`. Both stages, one after the
    /// other.
    ///
    /// # Errors
    /// A slice whose length does not fit, what [`Gate::score_rows`] and [`Gate::choose`] refuse.
    pub fn route_in(
        &self,
        x: &[f32],
        tokens: usize,
        context: &GateContext<'_>,
    ) -> Result<Route, RoutingError> {
        let shape = "tokens x hidden";
        RoutingError::check_length("hidden states", x.len(), [tokens, self.hidden()], shape)?;
        context.check(tokens)?;
        let mut logits = vec![0.0; tokens * self.config().columns()];
        self.score_rows(x, context, &mut logits)?;
        let choices = self.choose(&logits, context)?;
        self.join(logits, vec![choices], context.padding)
    }
}
