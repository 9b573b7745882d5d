//! Load times probability: the losses of Switch and GShard and their variants.

use super::input::LossInput;
use crate::error::RoutingError;

/// The balance loss of Switch Transformers for top-k:
///
/// ```text
/// f_e  = choices of expert e / (k · T),   P_e = mean over tokens of p_e
/// loss = E · Σ_e f_e · P_e
/// ```
///
/// Perfect balance gives 1, for any k. Zero when no token counts. Sources: Fedus et al. 2021,
/// arXiv 2101.03961, eq. 4; `switch_load_balancing_loss_func` of Megatron-LM;
/// `batched_load_balancing_loss` of MegaBlocks. DeepSpeed's `topkgating`, which computes
/// `mean_e(m·c) · E²/k` with `c_e` the choices of all slots over `T`, is the same number.
///
/// # Errors
/// What [`LossInput::check`] refuses.
///
/// ```
/// use expertmesh_routing::loss::{LossInput, Probability, switch_loss};
///
/// // Two tokens, each sure of an expert of its own.
/// let input = LossInput {
///     logits: &[9.0, -9.0, -9.0, 9.0],
///     tokens: 2,
///     experts: 2,
///     top_k: 1,
///     chosen: &[0, 1],
///     weights: &[],
///     attention_mask: None,
///     sequence: 2,
///     probability: Probability::Softmax,
/// };
/// assert!((switch_loss(&input)? - 1.0).abs() < 1e-6);
/// # Ok::<(), expertmesh_routing::RoutingError>(())
/// ```
pub fn switch_loss(input: &LossInput<'_>) -> Result<f64, RoutingError> {
    input.check()?;
    let tally = input.tally(0..input.tokens, |token| input.chosen_by(token));
    Ok(tally.loss(input.top_k))
}

/// [`switch_loss`] of each sequence by itself, averaged over the sequences that have a token that
/// counts: a batch may be even where each of its sequences is not. Zero when no token counts.
///
/// Sources: `seq_aux_loss` of Megatron-LM; DeepSeek-V3, arXiv 2412.19437, eq. 17–20, with
/// [`Probability::Sigmoid`](super::Probability::Sigmoid).
///
/// # Errors
/// What [`LossInput::check`] refuses.
pub fn sequence_loss(input: &LossInput<'_>) -> Result<f64, RoutingError> {
    input.check()?;
    Ok(mean_of_sequences(input, input.top_k, |token| {
        input.chosen_by(token)
    }))
}

/// The balance loss of Switch in Hugging Face transformers (`load_balancing_loss_func` of
/// `modeling_switch_transformers.py`, 5.x), for batches `b` of one sequence each:
///
/// ```text
/// loss = mean_{b,e}(f_be · P_be) · E²
/// ```
///
/// `f_be` is the share of the tokens of `b` whose highest **logit** is that of `e`, ties to the
/// lower expert: chosen experts are not read, so capacity and `k` play no part. A sequence without
/// a token that counts is left out (transformers has no mask here).
///
/// # Errors
/// What [`LossInput::check`] refuses.
pub fn switch_load_balancing_loss(input: &LossInput<'_>) -> Result<f64, RoutingError> {
    input.check()?;
    let highest: Vec<u32> = (0..input.tokens)
        .map(|token| argmax(input.logits_of(token)))
        .collect();
    Ok(mean_of_sequences(input, 1, |token| {
        std::slice::from_ref(&highest[token])
    }))
}

/// The balance loss of GShard, in which only the first choice of a token is its load, before
/// capacity:
///
/// ```text
/// m_e  = mean over tokens of p_e,   c_e = tokens whose slot 0 is expert e / T
/// loss = E · Σ_e m_e · c_e
/// ```
///
/// Perfect balance gives 1. Zero when no token counts. Source: Lepikhin et al. 2020,
/// arXiv 2006.16668, algorithm 1. It is the number of `top1gating` (`Σ m·c · E`) and `top2gating`
/// (`mean(m·c) · E²`) of DeepSpeed and of Tutel's `gshard_loss` (`Σ me·ce / T` with `ce` scaled by
/// `E/T`). FastMoE's GShard gate multiplies the mean by the square of the experts of one worker,
/// `E_w`: that is this loss times `(E_w / E)²`.
///
/// # Errors
/// What [`LossInput::check`] refuses.
pub fn gshard_loss(input: &LossInput<'_>) -> Result<f64, RoutingError> {
    input.check()?;
    let tally = input.tally(0..input.tokens, |token| &input.chosen_by(token)[..1]);
    Ok(tally.loss(1))
}

/// The running load of [`switch_loss`] over the micro-batches of a step: probabilities are those
/// of one micro-batch, the load is the mean over all that came so far.
///
/// Sources: `global_aux_loss` of Megatron-LM (`global_tokens_per_expert / ga_steps`); Qiu et al.
/// 2025, arXiv 2501.11873. Micro-batches are weighed by their tokens that count, so that ones of
/// different sizes give the load of their union; with equal sizes this is Megatron-LM's mean.
///
/// ```
/// use expertmesh_routing::loss::{GlobalLoad, LossInput, Probability};
///
/// let both = LossInput {
///     logits: &[9.0, -9.0],
///     tokens: 1,
///     experts: 2,
///     top_k: 1,
///     chosen: &[0],
///     weights: &[],
///     attention_mask: None,
///     sequence: 1,
///     probability: Probability::Softmax,
/// };
/// let other = LossInput { logits: &[-9.0, 9.0], chosen: &[1], ..both };
/// let mut load = GlobalLoad::new(2);
/// // One micro-batch has one favourite, but the step is balanced.
/// assert!((load.add(&both)? - 2.0).abs() < 1e-6);
/// assert!((load.add(&other)? - 1.0).abs() < 1e-6);
/// # Ok::<(), expertmesh_routing::RoutingError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalLoad {
    /// `[E]`.
    load: Vec<u64>,
    /// Choices that were counted, tokens times `k`.
    choices: u64,
}

// === impl GlobalLoad ===

impl GlobalLoad {
    /// Nothing counted yet, for a layer of `experts` experts.
    #[must_use]
    pub fn new(experts: usize) -> Self {
        Self {
            load: vec![0; experts],
            choices: 0,
        }
    }

    /// Counts a micro-batch and returns its loss under the load so far, itself included. Zero when
    /// none of its tokens counts.
    ///
    /// # Errors
    /// What [`LossInput::check`] refuses, and another number of experts than at the start.
    pub fn add(&mut self, input: &LossInput<'_>) -> Result<f64, RoutingError> {
        input.check()?;
        if input.experts != self.load.len() {
            let expected = format!("{}, as in the first micro-batch", self.load.len());
            return Err(RoutingError::config("experts", input.experts, expected));
        }
        let tally = input.tally(0..input.tokens, |token| input.chosen_by(token));
        for (sum, load) in self.load.iter_mut().zip(&tally.load) {
            *sum += load;
        }
        self.choices += tally.tokens * input.top_k as u64;
        if tally.tokens == 0 {
            return Ok(0.0);
        }
        let load: Vec<f64> = self.load.iter().map(|&load| load as f64).collect();
        Ok(tally.loss_with(&load, self.choices as f64, 1))
    }

    /// Forgets what was counted: the next micro-batch begins a step.
    pub fn reset(&mut self) {
        self.load.fill(0);
        self.choices = 0;
    }

    /// Choices of each expert so far, `[E]`.
    #[must_use]
    pub fn load(&self) -> &[u64] {
        &self.load
    }
}

// === parts ===

fn mean_of_sequences<'a>(
    input: &'a LossInput<'_>,
    choices: usize,
    chosen: impl Fn(usize) -> &'a [u32],
) -> f64 {
    let (mut sum, mut sequences) = (0.0, 0_u64);
    for tokens in input.sequences() {
        let tally = input.tally(tokens, &chosen);
        if tally.tokens > 0 {
            sum += tally.loss(choices);
            sequences += 1;
        }
    }
    if sequences == 0 {
        return 0.0;
    }
    sum / sequences as f64
}

/// The index of the highest value, ties to the lower; the values are finite.
fn argmax(values: &[f32]) -> u32 {
    let highest = (0_u32..).zip(values).reduce(
        |highest, next| {
            if next.1 > highest.1 { next } else { highest }
        },
    );
    highest.map_or(0, |(index, _)| index)
}
