//! Importance and load: the losses of noisy top-k gating.

use expertmesh_kernels::math;

use super::input::LossInput;
use crate::error::RoutingError;

/// What noisy top-k added to its logits. [`LossInput::logits`] are the noisy ones,
/// `noisy = clean + N(0, 1) · stddev`.
#[derive(Debug, Clone, Copy)]
pub struct NoisyLogits<'a> {
    /// `[T, E]`: logits without noise.
    pub clean: &'a [f32],
    /// `[T, E]`: the standard deviation of the noise of each logit, above 0.
    pub stddev: &'a [f32],
}

/// Importance of each expert, `[E]`: the sum of its gate weights over the tokens that count
/// (Shazeer et al. 2017, arXiv 1701.06538, eq. 6).
///
/// # Errors
/// What [`LossInput::check`] refuses, and missing weights.
pub fn importance(input: &LossInput<'_>) -> Result<Vec<f64>, RoutingError> {
    input.check()?;
    let (t, k) = (input.tokens, input.top_k);
    RoutingError::check_length("weights", input.weights.len(), [t, k], "tokens x top_k")?;
    let mut sums = vec![0.0; input.experts];
    for token in input.rows(0..t) {
        let weights = &input.weights[token * k..(token + 1) * k];
        for (&expert, &weight) in input.chosen_by(token).iter().zip(weights) {
            sums[expert as usize] += f64::from(weight);
        }
    }
    Ok(sums)
}

/// `CV²` of the [`importance`] of experts (eq. 7 of the same paper): 0 when it is even.
///
/// # Errors
/// As [`importance`].
pub fn importance_loss(input: &LossInput<'_>) -> Result<f64, RoutingError> {
    Ok(cv_squared(&importance(input)?))
}

/// The square of the coefficient of variation, `variance / mean²`, of values as a whole population
/// (variance divided by their number). Zero when the mean is zero or there are no values.
#[must_use]
pub fn cv_squared(values: &[f64]) -> f64 {
    let (mean, squares) = mean_and_squares(values);
    if mean == 0.0 {
        return 0.0;
    }
    squares / values.len() as f64 / (mean * mean)
}

// === impl NoisyLogits ===

impl NoisyLogits<'_> {
    /// The smooth load of each expert, `[E]`: the probability that it would be chosen again if its
    /// own noise alone were drawn anew, summed over the tokens that count (Shazeer et al. 2017,
    /// appendix A, eq. 8–10):
    ///
    /// ```text
    /// P(x, i) = Φ((clean_i - kth_excluding(noisy, k, i)) / stddev_i)
    /// ```
    ///
    /// `kth_excluding` is the k-th highest noisy logit of the other experts: the highest that was
    /// not chosen for one that was, the lowest that was chosen for one that was not. With `k = E`
    /// everyone is chosen, and P is 1.
    ///
    /// # Errors
    /// What [`LossInput::check`] refuses, lengths other than that of the logits, a clean logit that
    /// is not finite, a standard deviation that is not a finite number above 0.
    pub fn load(&self, input: &LossInput<'_>) -> Result<Vec<f64>, RoutingError> {
        self.check(input)?;
        let e = input.experts;
        let mut load = vec![0.0; e];
        let mut is_chosen = vec![false; e];
        for token in input.rows(0..input.tokens) {
            let noisy = input.logits_of(token);
            is_chosen.fill(false);
            for &expert in input.chosen_by(token) {
                is_chosen[expert as usize] = true;
            }
            let of = |chosen: bool| {
                let pairs = noisy.iter().zip(&is_chosen);
                pairs
                    .filter(move |pair| *pair.1 == chosen)
                    .map(|pair| *pair.0)
            };
            let highest_out = of(false).fold(f32::NEG_INFINITY, f32::max);
            let lowest_in = of(true).fold(f32::INFINITY, f32::min);
            for (expert, load) in load.iter_mut().enumerate() {
                let at = token * e + expert;
                let threshold = if is_chosen[expert] {
                    highest_out
                } else {
                    lowest_in
                };
                let z = (self.clean[at] - threshold) / self.stddev[at];
                *load += f64::from(normal_cdf(z));
            }
        }
        Ok(load)
    }

    /// `CV²` of the [`load`](Self::load) (eq. 11 of the paper). The objective of the paper is this
    /// plus [`importance_loss`], each with a coefficient of its own.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_loss(&self, input: &LossInput<'_>) -> Result<f64, RoutingError> {
        Ok(cv_squared(&self.load(input)?))
    }

    fn check(&self, input: &LossInput<'_>) -> Result<(), RoutingError> {
        input.check()?;
        let shape = [input.tokens, input.experts];
        RoutingError::check_length("clean", self.clean.len(), shape, "tokens x experts")?;
        RoutingError::check_length("stddev", self.stddev.len(), shape, "tokens x experts")?;
        let not_finite = |logit: &f32| !logit.is_finite();
        if let Some(at) = self.clean.iter().position(not_finite) {
            return Err(RoutingError::Logit {
                token: at / input.experts,
                expert: at % input.experts,
                found: self.clean[at],
            });
        }
        let fits = |stddev: &&f32| stddev.is_finite() && **stddev > 0.0;
        match self.stddev.iter().find(|stddev| !fits(stddev)) {
            Some(found) => Err(RoutingError::config(
                "noise stddev",
                found,
                "a finite number above 0",
            )),
            None => Ok(()),
        }
    }
}

/// Tutel's `load_importance_loss`, half of `CV²(importance) + CV²(load)`:
///
/// ```text
/// importance_e = Σ_t p_te                           p = probabilities of the clean logits
/// load_e       = Σ_t Φ((p_te - noisy_t[last slot]) / (gate_noise / E))
/// CV²(v)       = sample variance of v / (mean(v)² + 1e-10)
/// ```
///
/// Its load sets a probability against a logit, as Tutel does, where the paper sets a logit
/// against a logit ([`NoisyLogits`]). The sample variance is divided by `E - 1`. `clean` is
/// `[T, E]`; [`LossInput::logits`] are the noisy ones. Zero when no token counts.
///
/// # Errors
/// What [`LossInput::check`] refuses, `clean` of another length or not finite, fewer than 2
/// experts, a `gate_noise` that is not a finite number above 0.
pub fn load_importance_loss(
    input: &LossInput<'_>,
    clean: &[f32],
    gate_noise: f32,
) -> Result<f64, RoutingError> {
    input.check()?;
    let e = input.experts;
    if e < 2 {
        let expected = "at least 2, for a sample variance";
        return Err(RoutingError::config("experts", e, expected));
    }
    if !(gate_noise.is_finite() && gate_noise > 0.0) {
        let expected = "a finite number above 0";
        return Err(RoutingError::config("gate noise", gate_noise, expected));
    }
    let clean_input = LossInput {
        logits: clean,
        ..*input
    };
    clean_input.check()?;
    let stddev = gate_noise / e as f32;
    let mut p = Vec::with_capacity(e);
    let (mut importance, mut load) = (vec![0.0; e], vec![0.0; e]);
    for token in input.rows(0..input.tokens) {
        input.probability.of(clean_input.logits_of(token), &mut p);
        let last = input.chosen_by(token)[input.top_k - 1];
        let threshold = input.logits_of(token)[last as usize];
        for (expert, &p) in p.iter().enumerate() {
            importance[expert] += f64::from(p);
            load[expert] += f64::from(normal_cdf((p - threshold) / stddev));
        }
    }
    let cv_squared = |values: &[f64]| {
        let (mean, squares) = mean_and_squares(values);
        squares / (e - 1) as f64 / (mean * mean + 1e-10)
    };
    Ok((cv_squared(&importance) + cv_squared(&load)) / 2.0)
}

// === parts ===

/// The mean of values, zero for none, and the sum of their squared distances from it.
fn mean_and_squares(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, squares)
}

/// `Φ(z)`, the distribution function of the normal distribution, within 3e-7 of it. Infinite
/// arguments give 0 and 1.
pub(crate) fn normal_cdf(z: f32) -> f32 {
    // gelu(z) = z Φ(z). Near zero the quotient would lose digits, and Φ is 1/2 to a part in 10⁸;
    // past 20 nothing is left to tell from 0 or 1.
    if z.abs() < 1e-8 {
        return 0.5;
    }
    let z = z.clamp(-20.0, 20.0);
    math::gelu(z) / z
}
