//! Choices that the logits do not make: for benchmarks, and to run an earlier run again.

use super::{Rows, Weigh, check_table};
use crate::{
    error::RoutingError,
    gate::Choices,
    noise::{Distribution, NoiseKey, Purpose},
};

/// Choice `c` of the batch, counted token by token, goes to expert `c mod E`: loads differ by one
/// at most. (MegaBlocks' `uniform_expert_assignment`, which deals in the same way.) Padding takes
/// its turn.
pub(crate) fn forced_balance(rows: &Rows<'_>) -> Result<Choices, RoutingError> {
    let (e, k) = (rows.experts() as u64, rows.top_k() as u64);
    rows.fixed(Weigh::Scores, |token, _, experts, _| {
        let first = (rows.number(token) % e) * k;
        for (slot, expert) in (0_u64..).zip(experts) {
            *expert = ((first + slot) % e) as u32;
        }
        Ok(())
    })
}

/// Megatron-LM's `apply_biased_logits`: `|std| · N(0, 1)` for each expert, the same for all
/// tokens; of this step, or where `std` is negative of the layer.
pub(crate) fn forced_bias(std: f32, experts: usize, key: NoiseKey) -> Vec<f32> {
    let step = if std < 0.0 { 0 } else { key.step };
    // A token that no batch reaches: noise on logits, which has this purpose too, is not met.
    const EVERY_TOKEN: u64 = u64::MAX;
    let noise = NoiseKey { step, ..key }.stream(Purpose::LogitNoise);
    let mut bias = vec![0.0; experts];
    noise.fill(Distribution::Normal, EVERY_TOKEN, &mut bias);
    bias.iter_mut().for_each(|value| *value *= std.abs());
    bias
}

/// The context's choices; with the context's weights, or weighed by this gate.
pub(crate) fn replay(rows: &Rows<'_>) -> Result<Choices, RoutingError> {
    let Some(replay) = rows.context.replay else {
        return Err(rows.missing("replay", "the choices of an earlier run"));
    };
    let (tokens, k) = (rows.tokens, rows.top_k());
    let choices =
        |field, found| RoutingError::check_length(field, found, [tokens, k], "tokens x top_k");
    choices("replay experts", replay.experts.len())?;
    check_table("replay experts", replay.experts, rows.selector.config())?;
    let Some(weights) = replay.weights else {
        return rows.fixed(Weigh::Scores, |token, _, experts, _| {
            experts.copy_from_slice(&replay.experts[token * k..(token + 1) * k]);
            Ok(())
        });
    };
    choices("replay weights", weights.len())?;
    if let Some(choice) = weights.iter().position(|weight| !weight.is_finite()) {
        return Err(RoutingError::Weight {
            token: choice / k,
            slot: choice % k,
            found: weights[choice],
        });
    }
    Ok(Choices {
        tokens,
        experts: replay.experts.to_vec(),
        weights: weights.to_vec(),
        offsets: None,
    })
}
