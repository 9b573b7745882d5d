//! Experts choose tokens: Y. Zhou et al., "Mixture-of-experts with expert choice routing", NeurIPS
//! 2022.

use super::{Buffers, Rows};
use crate::{error::RoutingError, gate::Choices, select::top_k};

/// Each expert takes the `C = ceil(T · factor / E)` tokens that score highest for it, ties to the
/// lower token, where `T` counts tokens that are not padding; all of them if `C` is larger. The
/// paper's scores are the softmax over experts, and so are its weights. A sequence is a batch of its
/// own. A token's choices are listed by ascending expert.
pub(crate) fn expert_choice(rows: &Rows<'_>, factor: f32) -> Result<Choices, RoutingError> {
    let experts = rows.experts();
    let mut scores = Vec::with_capacity(rows.logits.len());
    let mut buffers = Buffers::default();
    for token in 0..rows.tokens {
        let keys = rows.selector.keys(rows.row(token), &mut buffers.select);
        scores.extend_from_slice(keys);
    }
    let mut taken = vec![false; scores.len()];
    let mut chosen = vec![];
    for sequence in rows.context.sequences(rows.tokens) {
        let real: Vec<usize> = sequence
            .filter(|&token| !rows.context.is_padding(token))
            .collect();
        let mean = real.len() as f64 * f64::from(factor) / experts as f64;
        // The cast saturates, and a factor is above 0.
        #[expect(clippy::cast_sign_loss, reason = "a product of positive numbers")]
        let capacity = (mean.ceil() as usize).min(real.len());
        for expert in 0..experts {
            let column = real.iter().map(|token| scores[token * experts + expert]);
            buffers.keys.clear();
            buffers.keys.extend(column);
            chosen.clear();
            chosen.resize(capacity, 0);
            top_k(&buffers.keys, &mut chosen, &mut buffers.top);
            for &rank in &chosen {
                taken[real[rank as usize] * experts + expert] = true;
            }
        }
    }
    rows.ragged(
        |token, row, chosen, _| {
            let taken = &taken[token * row.len()..(token + 1) * row.len()];
            let experts = (0_u32..).zip(taken).filter(|(_, taken)| **taken);
            chosen.extend(experts.map(|(expert, _)| expert));
        },
        |_, weights| weights.len(),
    )
}
