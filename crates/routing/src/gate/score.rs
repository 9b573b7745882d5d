//! The first stage of a gate, row by row: input jitter, product, rounding, noise.

use expertmesh_kernels::{Format, math, matmul, round_bf16};

use super::{Cosine, Gate, GateContext};
use crate::{
    config::{Jitter, Kind, LogitNoise, Logits, Product},
    error::RoutingError,
    kinds,
    noise::{Distribution, NoiseKey, Purpose},
};

// === impl Gate ===

impl Gate {
    /// Logits of `n` token rows as the second stage reads them, noise and forced bias included:
    /// `x` `[n, H]` → `out` `[n, columns]`. Rows are independent of each other and of how a batch
    /// is split: for a part of one, hand over [`GateContext::rows`].
    ///
    /// # Errors
    /// A slice whose length does not fit, or a tensor that the configuration asks for and the gate
    /// has not got.
    pub fn score_rows(
        &self,
        x: &[f32],
        context: &GateContext<'_>,
        out: &mut [f32],
    ) -> Result<(), RoutingError> {
        let rows = out.len() / self.config().columns();
        let shape = "tokens x hidden";
        RoutingError::check_length("hidden states", x.len(), [rows, self.hidden()], shape)?;
        let jittered = self
            .jitter(context)
            .map(|jitter| self.jittered(x, jitter, context));
        let x = jittered.as_deref().unwrap_or(x);
        self.clean_logits(x, context.previous_logits, out)?;
        let key = NoiseKey {
            seed: context.seed,
            step: context.step,
            layer: context.layer,
        };
        if context.training {
            self.add_noise(x, key, context.first_token, out)?;
        }
        if let Kind::ForcedSkew { std } = self.config().kind {
            let bias = kinds::forced_bias(std, self.config().experts, key);
            for row in out.chunks_exact_mut(bias.len()) {
                self.add_rounded(row, bias.iter().copied());
            }
        }
        Ok(())
    }

    /// The rows that experts compute, where they are not the batch's own: those with jitter, in
    /// training, if the configuration says so. `x` is `[n, H]`.
    #[must_use]
    pub fn expert_rows(&self, x: &[f32], context: &GateContext<'_>) -> Option<Vec<f32>> {
        self.jitter(context)
            .filter(|jitter| jitter.experts_see)
            .map(|jitter| self.jittered(x, jitter, context))
    }

    fn jitter(&self, context: &GateContext<'_>) -> Option<Jitter> {
        self.config().noise.jitter.filter(|_| context.training)
    }

    /// A row in the model's format stays in it, except where the gate alone sees it and computes
    /// in f32.
    fn jittered(&self, x: &[f32], jitter: Jitter, context: &GateContext<'_>) -> Vec<f32> {
        let config = self.config();
        let key = NoiseKey {
            seed: context.seed,
            step: context.step,
            layer: context.layer,
        };
        let noise = key.stream(Purpose::Jitter);
        let (low, width) = (1.0 - jitter.eps, 2.0 * jitter.eps);
        let mut jittered = x.to_vec();
        let mut factors = vec![0.0; self.hidden()];
        let rows = jittered.chunks_exact_mut(self.hidden().max(1));
        for (token, row) in (context.first_token..).zip(rows) {
            noise.fill(Distribution::Uniform, token, &mut factors);
            for (value, factor) in row.iter_mut().zip(&factors) {
                *value *= low + width * factor;
            }
        }
        if config.dtype == Format::Bf16 && (jitter.experts_see || config.logits != Logits::F32) {
            round_bf16(&mut jittered);
        }
        jittered
    }

    /// Product, gating residual and bias, rounded and capped as the configuration says.
    pub(super) fn clean_logits(
        &self,
        x: &[f32],
        previous: Option<&[f32]>,
        out: &mut [f32],
    ) -> Result<(), RoutingError> {
        let config = self.config();
        let columns = config.columns();
        let rows = out.len() / columns;
        let shape = "tokens x hidden";
        RoutingError::check_length("hidden states", x.len(), [rows, self.hidden()], shape)?;
        let shape = "tokens x experts";
        RoutingError::check_length("logits", out.len(), [rows, columns], shape)?;
        match (config.product, &self.tensors.cosine, config.kind) {
            (Product::Cosine, Some(cosine), _) => self.cosine_logits(x, cosine, out)?,
            (Product::Cosine, None, _) => return Err(self.missing("cosine", "with_cosine")),
            (Product::Linear, _, Kind::Soft { scale: Some(_), .. }) => {
                let mut x = x.to_vec();
                normalise_rows(&mut x, self.hidden(), kinds::soft_divisor);
                matmul(&x, &self.weight, out)?;
            }
            (Product::Linear, ..) => matmul(x, &self.weight, out)?,
        }
        if let (Some(residual), Some(previous)) = (&self.tensors.residual, previous) {
            let shape = "tokens x experts";
            let found = previous.len();
            RoutingError::check_length("previous_logits", found, [rows, columns], shape)?;
            let mut carried = vec![0.0; out.len()];
            matmul(previous, residual, &mut carried)?;
            out.iter_mut()
                .zip(&carried)
                .for_each(|(logit, carried)| *logit += carried);
        }
        if let Some(bias) = &self.bias {
            for row in out.chunks_exact_mut(columns) {
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
            out.iter_mut().for_each(|logit| *logit /= cap);
            math::tanh_slice(out);
            out.iter_mut().for_each(|logit| *logit *= cap);
            if model_is_bf16 && config.logits == Logits::Model {
                round_bf16(out);
            }
        }
        Ok(())
    }

    /// `exp(min(temperature, ln 100)) · cos(P x + b, w_e)`.
    fn cosine_logits(
        &self,
        x: &[f32],
        cosine: &Cosine,
        out: &mut [f32],
    ) -> Result<(), RoutingError> {
        let (width, rows) = (cosine.projection.out(), out.len() / self.config().experts);
        let mut projected = vec![0.0; rows * width];
        matmul(x, &cosine.projection, &mut projected)?;
        if let Some(bias) = &cosine.bias {
            for row in projected.chunks_exact_mut(width) {
                row.iter_mut()
                    .zip(bias)
                    .for_each(|(value, bias)| *value += bias);
            }
        }
        normalise_rows(&mut projected, width, cosine_divisor);
        matmul(&projected, &self.weight, out)?;
        let scale = math::exp(cosine.temperature).min(MOST_COSINE_SCALE);
        out.iter_mut().for_each(|logit| *logit *= scale);
        Ok(())
    }

    fn add_noise(
        &self,
        x: &[f32],
        key: NoiseKey,
        first_token: u64,
        out: &mut [f32],
    ) -> Result<(), RoutingError> {
        let config = self.config();
        let mut deviations = vec![];
        match (config.noise.logits, &self.tensors.noise_weight) {
            (LogitNoise::None, _) => return Ok(()),
            (LogitNoise::Normal { scale }, _) => {
                deviations.resize(out.len(), scale / config.experts as f32);
            }
            (LogitNoise::Learned { eps }, Some(weight)) => {
                deviations.resize(out.len(), 0.0);
                matmul(x, weight, &mut deviations)?;
                math::softplus_slice(&mut deviations);
                deviations.iter_mut().for_each(|value| *value += eps);
            }
            (LogitNoise::Learned { .. }, None) => {
                return Err(self.missing("noise_weight", "with_noise_weight"));
            }
        }
        let noise = key.stream(Purpose::LogitNoise);
        let mut normal = vec![0.0; config.experts];
        let rows = out.chunks_exact_mut(config.experts);
        let deviations = deviations.chunks_exact(config.experts);
        for (token, (row, deviations)) in (first_token..).zip(rows.zip(deviations)) {
            noise.fill(Distribution::Normal, token, &mut normal);
            let scaled = normal.iter().zip(deviations).map(|(n, d)| n * d);
            self.add_rounded(row, scaled);
        }
        Ok(())
    }

    /// Adds to a row of logits, which stay in the format that they have.
    fn add_rounded(&self, row: &mut [f32], added: impl Iterator<Item = f32>) {
        let config = self.config();
        row.iter_mut()
            .zip(added)
            .for_each(|(logit, added)| *logit += added);
        if config.dtype == Format::Bf16 && config.logits == Logits::Model {
            round_bf16(row);
        }
    }
}

/// What PyTorch's `F.normalize` divides a vector by, from the sum of its squares.
pub(super) fn cosine_divisor(squares: f32) -> f32 {
    squares.sqrt().max(1e-12)
}

/// Tutel clamps the temperature at `ln(1 / 0.01)`.
const MOST_COSINE_SCALE: f32 = 100.0;

/// Divides each row by `divisor` of the sum of its squares, added in ascending order.
pub(super) fn normalise_rows(rows: &mut [f32], width: usize, divisor: impl Fn(f32) -> f32) {
    for row in rows.chunks_exact_mut(width.max(1)) {
        let squares = row.iter().fold(0.0_f32, |sum, x| x.mul_add(*x, sum));
        let divisor = divisor(squares);
        row.iter_mut().for_each(|value| *value /= divisor);
    }
}
