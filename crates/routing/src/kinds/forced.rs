//! Choices that the logits do not make: for benchmarks, and to run an earlier run again.

use super::{Rows, Weigh, check_row};
use crate::{
    error::RoutingError,
    gate::{Choices, NO_CHOICE},
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

/// The context's choices; with the context's weights, or weighed by this gate. A batch of whose
/// tokens one has fewer than k is a ragged one.
pub(crate) fn replay(rows: &Rows<'_>) -> Result<Choices, RoutingError> {
    const FIELD: &str = "replay experts";
    let Some(replay) = rows.context.replay else {
        return Err(rows.missing("replay", "the choices of an earlier run"));
    };
    let (tokens, k) = (rows.tokens, rows.top_k());
    let choices =
        |field, found| RoutingError::check_length(field, found, [tokens, k], "tokens x top_k");
    choices(FIELD, replay.experts.len())?;
    // The choices of a token, and the slots behind them.
    let cut = |token: usize| {
        let row = &replay.experts[token * k..(token + 1) * k];
        row.split_at(row.iter().take_while(|&&one| one != NO_CHOICE).count())
    };
    for token in 0..tokens {
        let (held, rest) = cut(token);
        check_row(FIELD, token, held, rows.experts())?;
        if let Some(expert) = rest.iter().find(|&&one| one != NO_CHOICE) {
            let found = format!("expert {expert} behind an empty slot of row {token}");
            return Err(RoutingError::config(FIELD, found, "empty slots last"));
        }
    }
    let is_ragged = replay.experts.contains(&NO_CHOICE);
    let Some(weights) = replay.weights else {
        if is_ragged {
            return rows.ragged(
                |token, _, chosen, _| chosen.extend_from_slice(cut(token).0),
                |_, weights| weights.len(),
            );
        }
        return rows.fixed(Weigh::Scores, |token, _, experts, _| {
            experts.copy_from_slice(cut(token).0);
            Ok(())
        });
    };
    choices("replay weights", weights.len())?;
    let mut recorded = Choices {
        tokens,
        offsets: is_ragged.then(|| vec![0]),
        ..Choices::default()
    };
    for token in 0..tokens {
        let held = cut(token).0;
        let weights = &weights[token * k..token * k + held.len()];
        if let Some(slot) = weights.iter().position(|weight| !weight.is_finite()) {
            return Err(RoutingError::Weight {
                token,
                slot,
                found: weights[slot],
            });
        }
        recorded.experts.extend_from_slice(held);
        recorded.weights.extend_from_slice(weights);
        if let Some(offsets) = &mut recorded.offsets {
            // As many as there are slots, which the caller's batch counts in 32 bits.
            offsets.push(recorded.experts.len() as u32);
        }
    }
    Ok(recorded)
}
