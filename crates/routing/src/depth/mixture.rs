//! Mixture-of-depths: Raposo et al. 2024, arXiv 2404.02258.

use expertmesh_kernels::{PackedMatrix, math, matmul};

use crate::{
    error::RoutingError,
    select::{TopScratch, top_k},
};

/// The router of a layer that only some tokens of each sequence pass through.
///
/// A token's score is `r = w · x`. In a sequence of `S` tokens the `C = ceil(capacity · S)` highest
/// scores pass, ties to the lower token (eq. 1 of the paper, where `β = 1 - C/S`):
///
/// ```text
/// x' = x + r · f(x̃)    if r is among the C highest of its sequence
/// x' = x               otherwise
/// ```
///
/// `f` is the layer (attention and MLP, or a MoE block) without its residual, and sees the tokens
/// that pass alone. Multiplying by the raw score puts the router on the path of the gradient.
///
/// ```
/// use expertmesh_routing::DepthRouter;
///
/// let router = DepthRouter::new(vec![1.0, 0.0], 0.5)?;
/// let x = [0.5, 9.0, -2.0, 9.0, 3.0, 9.0, 1.0, 9.0];
/// let route = router.route(&x, 4, 4, None)?;
/// assert_eq!(route.passes, [false, false, true, true]);
/// assert_eq!(route.gates, [0.0, 0.0, 3.0, 1.0]);
/// // One token at a time, the others of the sequence are not known: a score above 0 passes.
/// assert_eq!(router.route_causal(&x, 4, None)?.passes, [true, false, true, true]);
/// # Ok::<(), expertmesh_routing::RoutingError>(())
/// ```
#[derive(Debug)]
pub struct DepthRouter {
    /// `[1, H]`.
    weight: PackedMatrix,
    capacity: f64,
}

/// Which tokens pass through a layer, and what its output is multiplied by.
#[derive(Debug, Clone, PartialEq)]
pub struct DepthRoute {
    /// `[T]`: true for tokens that pass. Padding does not.
    pub passes: Vec<bool>,
    /// `[T]`: the score `r` of a token that passes, 0 of one that does not.
    pub gates: Vec<f32>,
}

// === impl DepthRouter ===

impl DepthRouter {
    /// `weight` is `[H]`; `capacity` the share of a sequence that passes, above 0 and at most 1
    /// (the paper's best: 0.125, on every second layer).
    ///
    /// # Errors
    /// A capacity out of range; an empty weight or one that is not finite.
    pub fn new(weight: Vec<f32>, capacity: f64) -> Result<Self, RoutingError> {
        if !(capacity > 0.0 && capacity <= 1.0) {
            let expected = "a share above 0 and at most 1, such as 0.125";
            return Err(RoutingError::config("depth capacity", capacity, expected));
        }
        if weight.is_empty() {
            let expected = "an element for each of the hidden state";
            return Err(RoutingError::config("depth weight", "none", expected));
        }
        check_finite("depth weight", "element", &weight)?;
        let weight = PackedMatrix::from_f32(&weight, 1, weight.len())?;
        Ok(Self { weight, capacity })
    }

    /// Elements of a token row, `H`.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.weight.inner()
    }

    /// Tokens of a sequence that pass, of `tokens` that are not padding:
    /// `ceil(capacity · tokens)`, in f64.
    #[must_use]
    pub fn capacity(&self, tokens: usize) -> usize {
        #[expect(clippy::cast_sign_loss, reason = "a share of a count")]
        let capacity = (self.capacity * tokens as f64).ceil() as usize;
        capacity.min(tokens)
    }

    /// Routes a batch of whole sequences of `sequence` tokens each: `x` is `[tokens, H]`, `padding`
    /// `[tokens]` with true for padding, which does not pass and does not count towards `S`.
    ///
    /// A token's answer depends on the later ones of its sequence: this is the rule of training.
    ///
    /// # Errors
    /// Lengths that do not fit, tokens that are not whole sequences, a score that is not finite.
    pub fn route(
        &self,
        x: &[f32],
        tokens: usize,
        sequence: usize,
        padding: Option<&[bool]>,
    ) -> Result<DepthRoute, RoutingError> {
        if tokens > 0 && (sequence == 0 || !tokens.is_multiple_of(sequence)) {
            let expected = format!("a divisor of {tokens}, the number of tokens");
            return Err(RoutingError::config("sequence", sequence, expected));
        }
        let scores = self.scores(x, tokens)?;
        check_padding(padding, tokens)?;
        let mut passes = vec![false; tokens];
        let mut scratch = TopScratch::default();
        for first in (0..tokens).step_by(sequence.max(1)) {
            let real: Vec<usize> = (first..first + sequence)
                .filter(|&token| padding.is_none_or(|padding| !padding[token]))
                .collect();
            let keys: Vec<f32> = real.iter().map(|&token| scores[token]).collect();
            let mut highest = vec![0; self.capacity(real.len())];
            top_k(&keys, &mut highest, &mut scratch);
            for at in highest {
                passes[real[at as usize]] = true;
            }
        }
        Ok(DepthRoute::new(passes, scores))
    }

    /// Routes tokens one by one, as generation must: a token passes when `sigmoid(z) > 0.5`, that
    /// is `z > 0`, whatever the others do (section 3.5 of the paper). How many pass is then not
    /// bounded, only trained.
    ///
    /// `predictor` `[tokens]` are the logits `z` of the paper's second method, a small network
    /// beside the router that learns which tokens are among the highest. Without it the router's
    /// own scores are `z`, the first method. Either is trained with [`predictor_loss`].
    ///
    /// # Errors
    /// Lengths that do not fit, a score or predictor that is not finite.
    pub fn route_causal(
        &self,
        x: &[f32],
        tokens: usize,
        predictor: Option<&[f32]>,
    ) -> Result<DepthRoute, RoutingError> {
        let scores = self.scores(x, tokens)?;
        if let Some(predictor) = predictor {
            RoutingError::check_length("predictor", predictor.len(), [tokens, 1], "tokens x 1")?;
            check_finite("predictor", "token", predictor)?;
        }
        let logits = predictor.unwrap_or(&scores);
        let passes = logits.iter().map(|&logit| logit > 0.0).collect();
        Ok(DepthRoute::new(passes, scores))
    }

    fn scores(&self, x: &[f32], tokens: usize) -> Result<Vec<f32>, RoutingError> {
        let shape = "tokens x hidden";
        RoutingError::check_length("hidden states", x.len(), [tokens, self.hidden()], shape)?;
        let mut scores = vec![0.0; tokens];
        matmul(x, &self.weight, &mut scores)?;
        check_finite("depth score", "token", &scores)?;
        Ok(scores)
    }
}

// === impl DepthRoute ===

impl DepthRoute {
    fn new(passes: Vec<bool>, mut gates: Vec<f32>) -> Self {
        for (gate, &passes) in gates.iter_mut().zip(&passes) {
            if !passes {
                *gate = 0.0;
            }
        }
        Self { passes, gates }
    }

    /// `[T]`, true for tokens that go round the layer.
    #[must_use]
    pub fn skip_mask(&self) -> Vec<bool> {
        self.passes.iter().map(|passes| !passes).collect()
    }
}

/// The loss that teaches causal routing: the binary cross-entropy between `sigmoid(logits)` and
/// who passed in training, the mean over tokens that are not padding (section 3.5 of the paper).
/// `logits`, `passes` and `padding` are `[T]`. Zero when there is no token.
///
/// # Errors
/// Lengths that differ, logits that are not finite.
pub fn predictor_loss(
    logits: &[f32],
    passes: &[bool],
    padding: Option<&[bool]>,
) -> Result<f64, RoutingError> {
    RoutingError::check_length("passes", passes.len(), [logits.len(), 1], "tokens x 1")?;
    check_padding(padding, logits.len())?;
    check_finite("predictor", "token", logits)?;
    let (mut sum, mut tokens) = (0.0, 0_u64);
    for (token, (&logit, &passes)) in logits.iter().zip(passes).enumerate() {
        if padding.is_none_or(|padding| !padding[token]) {
            // -ln sigmoid(z) = softplus(-z), and -ln(1 - sigmoid(z)) = softplus(z).
            sum += f64::from(math::softplus(if passes { -logit } else { logit }));
            tokens += 1;
        }
    }
    Ok(if tokens == 0 {
        0.0
    } else {
        sum / tokens as f64
    })
}

// === parts ===

fn check_padding(padding: Option<&[bool]>, tokens: usize) -> Result<(), RoutingError> {
    padding.map_or(Ok(()), |padding| {
        RoutingError::check_length("padding", padding.len(), [tokens, 1], "tokens x 1")
    })
}

/// Refuses numbers that are not finite; `unit` says what their index counts.
pub(super) fn check_finite(
    field: &'static str,
    unit: &str,
    values: &[f32],
) -> Result<(), RoutingError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => {
            let found = format!("{} at {unit} {at}", values[at]);
            Err(RoutingError::config(field, found, "finite numbers"))
        }
        None => Ok(()),
    }
}
