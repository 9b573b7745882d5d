//! Auxiliary losses of a gate, from its logits and choices.
//!
//! Every loss is a value without its coefficient (α, λ), as systems log it: multiply by the
//! coefficient to add it to an objective. Sums are f64, in token order; probabilities are the f32
//! ones of the gate, and transcendentals those of `expertmesh_kernels::math`, so a loss has the
//! same bits on every CPU.
//!
//! Tokens that a mask leaves out count nowhere, in no sum and in no number of tokens.
//!
//! | loss | who computes it |
//! |---|---|
//! | [`load_balancing_loss`] | the Mixtral family of Hugging Face transformers |
//! | [`z_loss`], [`masked_z_loss`] | ST-MoE, Megatron-LM, MegaBlocks, Switch in transformers |
//! | [`switch_loss`] | Switch, Megatron-LM, MegaBlocks; DeepSpeed's top-k gate |
//! | [`sequence_loss`] | Megatron-LM `seq_aux_loss`, DeepSeek-V3 |
//! | [`GlobalLoad`] | Megatron-LM `global_aux_loss` |
//! | [`switch_load_balancing_loss`] | Switch in transformers |
//! | [`gshard_loss`] | GShard; top-1 and top-2 of DeepSpeed, Tutel, FastMoE |
//! | [`importance_loss`], [`NoisyLogits`] | noisy top-k of Shazeer 2017 |
//! | [`load_importance_loss`] | Tutel |

mod input;
mod noisy;
mod switch;

pub use self::{
    input::{LossInput, Probability},
    noisy::{NoisyLogits, cv_squared, importance, importance_loss, load_importance_loss},
    switch::{GlobalLoad, gshard_loss, sequence_loss, switch_load_balancing_loss, switch_loss},
};

#[cfg(test)]
pub(crate) use self::noisy::normal_cdf;

use expertmesh_kernels::{Format, math, round_bf16};

use crate::{
    error::RoutingError,
    select::{TopScratch, top_k},
};

/// The load-balancing loss of the Mixtral family (`load_balancing_loss_func` of Hugging Face
/// transformers), over all layers together.
///
/// `layers` are logits `[T, E]` in the number format `dtype`, one slice for each layer;
/// `attention_mask` `[T]`, shared by the layers, is true for the tokens that count. With
/// `p = softmax(logits)`, rounded to `dtype`, and `N` the number of (layer, token) pairs that
/// count:
///
/// ```text
/// c_e  = pairs whose k highest p include e / N        (ties to the lower expert)
/// P_e  = Σ p_e / N
/// loss = E · Σ_e c_e · P_e
/// ```
///
/// A perfect balance gives `k`. The `k` highest `p` are chosen anew: bias and groups of the
/// router's own selection play no part. Zero when no token counts.
///
/// # Errors
/// `experts` or `k` out of range, a slice whose length does not fit.
pub fn load_balancing_loss(
    layers: &[&[f32]],
    experts: usize,
    k: usize,
    attention_mask: Option<&[bool]>,
    dtype: Format,
) -> Result<f64, RoutingError> {
    if !(1..=experts).contains(&k) {
        let expected = format!("1 to {experts}, the number of experts");
        return Err(RoutingError::config("top_k", k, expected));
    }
    let mut chosen_by = vec![0_u64; experts];
    let mut probability = vec![0.0_f64; experts];
    let mut counted = 0_u64;
    let (mut p, mut chosen) = (Vec::with_capacity(experts), vec![0; k]);
    let mut scratch = TopScratch::default();
    for logits in layers {
        let tokens = check_rows(logits, experts)?;
        if let Some(mask) = attention_mask {
            RoutingError::check_length("attention_mask", mask.len(), [tokens, 1], "tokens x 1")?;
        }
        for (token, row) in logits.chunks_exact(experts).enumerate() {
            if attention_mask.is_some_and(|mask| !mask[token]) {
                continue;
            }
            counted += 1;
            p.clear();
            p.extend_from_slice(row);
            math::softmax(&mut p);
            if dtype == Format::Bf16 {
                round_bf16(&mut p);
            }
            top_k(&p, &mut chosen, &mut scratch);
            chosen
                .iter()
                .for_each(|&expert| chosen_by[expert as usize] += 1);
            probability
                .iter_mut()
                .zip(&p)
                .for_each(|(sum, &p)| *sum += f64::from(p));
        }
    }
    if counted == 0 {
        return Ok(0.0);
    }
    let counted = counted as f64;
    let product: f64 = chosen_by
        .iter()
        .zip(&probability)
        .map(|(&chosen, &p)| (chosen as f64 / counted) * (p / counted))
        .sum();
    Ok(experts as f64 * product)
}

/// The router z-loss of ST-MoE: the mean over tokens of `logsumexp(logits)²`, which keeps
/// logits small. `logits` is `[T, E]`. Zero when there is no token.
///
/// # Errors
/// `experts` is zero, or `logits` is not made of whole rows.
pub fn z_loss(logits: &[f32], experts: usize) -> Result<f64, RoutingError> {
    let tokens = check_rows(logits, experts)?;
    if tokens == 0 {
        return Ok(0.0);
    }
    let sum: f64 = logits
        .chunks_exact(experts)
        .map(|row| f64::from(math::logsumexp(row)).powi(2))
        .sum();
    Ok(sum / tokens as f64)
}

/// [`z_loss`] over the tokens that count, as Megatron-LM's `z_loss_func` with a padding mask. Zero
/// when none does. Reads the logits and the mask alone.
///
/// # Errors
/// What [`LossInput::check`] refuses.
pub fn masked_z_loss(input: &LossInput<'_>) -> Result<f64, RoutingError> {
    input.check()?;
    let rows = input.rows(0..input.tokens);
    let (sum, tokens) = rows.fold((0.0, 0_u64), |(sum, tokens), token| {
        let square = f64::from(math::logsumexp(input.logits_of(token))).powi(2);
        (sum + square, tokens + 1)
    });
    Ok(if tokens == 0 {
        0.0
    } else {
        sum / tokens as f64
    })
}

/// The number of rows of `[T, E]`.
fn check_rows(logits: &[f32], experts: usize) -> Result<usize, RoutingError> {
    if experts == 0 {
        return Err(RoutingError::config("experts", experts, "at least 1"));
    }
    let tokens = logits.len() / experts;
    RoutingError::check_length(
        "logits",
        logits.len(),
        [tokens, experts],
        "tokens x experts",
    )?;
    Ok(tokens)
}
