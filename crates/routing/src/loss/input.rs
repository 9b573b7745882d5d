//! What the losses read.

use std::ops::Range;

use expertmesh_kernels::math;

use crate::error::RoutingError;

/// The batch of one layer as its losses see it: `T` tokens, `E` experts, `k` choices a token.
#[derive(Debug, Clone, Copy)]
pub struct LossInput<'a> {
    /// `[T, E]`: the logits that the gate selected by, noise included. All finite.
    pub logits: &'a [f32],
    /// Number of tokens `T`; may be zero.
    pub tokens: usize,
    /// Experts of the layer, `E`.
    pub experts: usize,
    /// Choices for each token, `k`.
    pub top_k: usize,
    /// `[T, k]`: the chosen experts in slot order, before capacity.
    pub chosen: &'a [u32],
    /// `[T, k]`: gate weights in slot order. Only [`importance_loss`](super::importance_loss) reads
    /// them; empty where there are none.
    pub weights: &'a [f32],
    /// `[T]`, true for the tokens that count; `None` means that all do.
    pub attention_mask: Option<&'a [bool]>,
    /// Tokens of each sequence, `S`: token `t` belongs to sequence `t / S`. `T` when the batch is
    /// one sequence.
    pub sequence: usize,
    /// How logits become probabilities.
    pub probability: Probability,
}

/// How the losses turn a token's logits into probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Probability {
    /// The softmax of the logits.
    #[default]
    Softmax,
    /// Their sigmoids, divided by their sum plus 1e-20: DeepSeek-V3, and Megatron-LM with
    /// `moe_router_score_function=sigmoid`.
    Sigmoid,
}

// === impl LossInput ===

impl LossInput<'_> {
    /// Checks that lengths fit the shape, that chosen experts exist and that logits and weights are
    /// finite. Every loss does it first.
    ///
    /// # Errors
    /// [`RoutingError::Config`], [`RoutingError::Length`], [`RoutingError::Logit`],
    /// [`RoutingError::Weight`] or [`RoutingError::NoSuchExpert`].
    pub fn check(&self) -> Result<(), RoutingError> {
        let (t, e, k, s) = (self.tokens, self.experts, self.top_k, self.sequence);
        if e == 0 {
            return Err(RoutingError::config("experts", e, "at least 1"));
        }
        if !(1..=e).contains(&k) {
            let expected = format!("1 to {e}, the number of experts");
            return Err(RoutingError::config("top_k", k, expected));
        }
        if t > 0 && (s == 0 || !t.is_multiple_of(s)) {
            let expected = format!("a divisor of {t}, the number of tokens");
            return Err(RoutingError::config("sequence", s, expected));
        }
        let check = RoutingError::check_length;
        check("logits", self.logits.len(), [t, e], "tokens x experts")?;
        check("chosen", self.chosen.len(), [t, k], "tokens x top_k")?;
        if !self.weights.is_empty() {
            check("weights", self.weights.len(), [t, k], "tokens x top_k")?;
        }
        if let Some(mask) = self.attention_mask {
            check("attention_mask", mask.len(), [t, 1], "tokens x 1")?;
        }
        let not_finite = |values: &[f32]| values.iter().position(|value| !value.is_finite());
        if let Some(at) = not_finite(self.logits) {
            let (token, expert, found) = (at / e, at % e, self.logits[at]);
            return Err(RoutingError::Logit {
                token,
                expert,
                found,
            });
        }
        if let Some(at) = not_finite(self.weights) {
            let (token, slot, found) = (at / k, at % k, self.weights[at]);
            return Err(RoutingError::Weight { token, slot, found });
        }
        match self.chosen.iter().position(|&expert| expert as usize >= e) {
            Some(at) => Err(RoutingError::NoSuchExpert {
                token: at / k,
                slot: at % k,
                expert: self.chosen[at],
                experts: e,
            }),
            None => Ok(()),
        }
    }

    /// Token ranges of the sequences.
    pub(super) fn sequences(&self) -> impl Iterator<Item = Range<usize>> {
        let s = self.sequence.max(1);
        (0..self.tokens / s).map(move |sequence| sequence * s..(sequence + 1) * s)
    }

    /// The tokens of a range that count.
    pub(super) fn rows(&self, tokens: Range<usize>) -> impl Iterator<Item = usize> {
        let mask = self.attention_mask;
        tokens.filter(move |&token| mask.is_none_or(|mask| mask[token]))
    }

    pub(super) fn logits_of(&self, token: usize) -> &[f32] {
        &self.logits[token * self.experts..(token + 1) * self.experts]
    }

    pub(super) fn chosen_by(&self, token: usize) -> &[u32] {
        &self.chosen[token * self.top_k..(token + 1) * self.top_k]
    }

    /// Counts the tokens of a range that count. `choices` gives the experts of a token that are
    /// counted as its load.
    pub(super) fn tally<'a>(
        &'a self,
        tokens: Range<usize>,
        choices: impl Fn(usize) -> &'a [u32],
    ) -> Tally {
        let mut tally = Tally::new(self.experts);
        let mut p = Vec::with_capacity(self.experts);
        for token in self.rows(tokens) {
            tally.tokens += 1;
            self.probability.of(self.logits_of(token), &mut p);
            for (sum, &p) in tally.probability.iter_mut().zip(&p) {
                *sum += f64::from(p);
            }
            for &expert in choices(token) {
                tally.load[expert as usize] += 1;
            }
        }
        tally
    }
}

// === impl Probability ===

impl Probability {
    /// Fills `p` with the probabilities of one token.
    pub(super) fn of(self, logits: &[f32], p: &mut Vec<f32>) {
        p.clear();
        p.extend_from_slice(logits);
        match self {
            Self::Softmax => math::softmax(p),
            Self::Sigmoid => {
                math::sigmoid_slice(p);
                let sum: f32 = p.iter().sum::<f32>() + 1e-20;
                p.iter_mut().for_each(|p| *p /= sum);
            }
        }
    }
}

/// What a balance loss needs of a set of tokens.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// Tokens that count.
    pub(super) tokens: u64,
    /// `[E]`: choices of each expert.
    pub(super) load: Vec<u64>,
    /// `[E]`: sums of probability.
    pub(super) probability: Vec<f64>,
}

// === impl Tally ===

impl Tally {
    fn new(experts: usize) -> Self {
        Self {
            tokens: 0,
            load: vec![0; experts],
            probability: vec![0.0; experts],
        }
    }

    /// `E · Σ_e f_e · P_e`, with `f` the share of `choices` a token that an expert got, and `P` its
    /// mean probability. Zero without tokens.
    pub(super) fn loss(&self, choices: usize) -> f64 {
        if self.tokens == 0 {
            return 0.0;
        }
        let load: Vec<f64> = self.load.iter().map(|&load| load as f64).collect();
        self.loss_with(&load, self.tokens as f64, choices)
    }

    /// The same with another load, of `load_tokens` tokens; there are tokens.
    pub(super) fn loss_with(&self, load: &[f64], load_tokens: f64, choices: usize) -> f64 {
        let all = load_tokens * choices as f64;
        let shares = load.iter().zip(&self.probability);
        let sum: f64 = shares
            .map(|(load, p)| (load / all) * (p / self.tokens as f64))
            .sum();
        self.load.len() as f64 * sum
    }
}
