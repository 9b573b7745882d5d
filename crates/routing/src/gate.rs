//! The gating network: a product, then selection.

use expertmesh_kernels::{Format, PackedMatrix, math, matmul, round_bf16};

use crate::{
    config::{Logits, RouterConfig},
    error::RoutingError,
    route::Route,
    select::{SelectScratch, Selector, check_bias},
};

/// A router with its tensors. Rows are independent in everything it does, to the last bit.
#[derive(Debug)]
pub struct Gate {
    /// `[E, H]`.
    weight: PackedMatrix,
    /// `[E]`, added to the product before it is rounded.
    bias: Option<Vec<f32>>,
    selector: Selector,
}

// === impl Gate ===

impl Gate {
    /// `weight` is `[E, H]`; `bias` `[E]` belongs to the product; `selection_bias` `[E]` shifts
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
        let experts = selector.config().experts;
        if weight.out() != experts {
            let expected = format!("{experts}, one row for each expert");
            return Err(RoutingError::config(
                "gate weight rows",
                weight.out(),
                expected,
            ));
        }
        if let Some(bias) = &bias {
            check_bias("gate bias", bias, experts)?;
        }
        Ok(Self {
            weight,
            bias,
            selector,
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
        self.weight.inner()
    }

    /// Bytes of the gate's weight as it is held.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.weight.bytes()
    }

    /// The part of the gate that comes after the product.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Logits of `n` token rows: `x` `[n, H]` → `out` `[n, E]`, as every later step reads them.
    ///
    /// # Errors
    /// A slice whose length does not fit.
    pub fn logits(&self, x: &[f32], out: &mut [f32]) -> Result<(), RoutingError> {
        let config = self.config();
        let rows = out.len() / config.experts;
        let shape = "tokens x hidden";
        RoutingError::check_length("hidden states", x.len(), [rows, self.hidden()], shape)?;
        let shape = "tokens x experts";
        RoutingError::check_length("logits", out.len(), [rows, config.experts], shape)?;
        matmul(x, &self.weight, out)?;
        if let Some(bias) = &self.bias {
            for row in out.chunks_exact_mut(config.experts) {
                row.iter_mut()
                    .zip(bias)
                    .for_each(|(logit, bias)| *logit += bias);
            }
        }
        let model_is_bf16 = config.dtype == Format::Bf16;
        if model_is_bf16 && config.logits != Logits::F32 {
            round_bf16(out);
        }
        if let Some(cap) = config.softcap {
            out.iter_mut()
                .for_each(|logit| *logit = cap * math::tanh(*logit / cap));
            if model_is_bf16 && config.logits == Logits::Model {
                round_bf16(out);
            }
        }
        Ok(())
    }

    /// Chooses for `n` rows of logits: [`Selector::select`] with buffers made for this call.
    ///
    /// # Errors
    /// As [`Selector::select`].
    pub fn select(
        &self,
        logits: &[f32],
        n: usize,
        experts: &mut [u32],
        weights: &mut [f32],
    ) -> Result<(), RoutingError> {
        self.selector
            .select(logits, n, experts, weights, &mut SelectScratch::default())
    }

    /// Routes a batch on the calling thread: `x` is `[tokens, H]`, `padding` `[tokens]` with
    /// true for padding. Padding is routed like any token; [`admit`](crate::admit()) skips it.
    ///
    /// # Errors
    /// A slice whose length does not fit, and what [`Selector::select`] refuses.
    pub fn route(
        &self,
        x: &[f32],
        tokens: usize,
        padding: Option<&[bool]>,
    ) -> Result<Route, RoutingError> {
        let shape = "tokens x hidden";
        RoutingError::check_length("hidden states", x.len(), [tokens, self.hidden()], shape)?;
        if let Some(padding) = padding {
            RoutingError::check_length("padding", padding.len(), [tokens, 1], "tokens x 1")?;
        }
        let (experts_total, top_k) = (self.config().experts, self.config().top_k);
        let mut logits = vec![0.0; tokens * experts_total];
        let mut experts = vec![0; tokens * top_k];
        let mut weights = vec![0.0; tokens * top_k];
        self.logits(x, &mut logits)?;
        self.select(&logits, tokens, &mut experts, &mut weights)?;
        let padding = padding.map(<[bool]>::to_vec);
        Ok(Route {
            tokens,
            top_k,
            offsets: None,
            experts_total,
            logits,
            experts,
            weights,
            padding,
        })
    }
}
