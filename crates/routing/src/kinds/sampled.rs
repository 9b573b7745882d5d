//! Rules with a lottery in the selection. The noise is on in evaluation too: it is the rule, not a
//! regulariser, in the systems that are followed.

use super::{Rows, Weigh};
use crate::{
    config::SecondRule,
    error::RoutingError,
    gate::Choices,
    noise::{Distribution, Purpose},
    select::top_k,
};

/// The `k` highest of logit + Gumbel noise. The first is a sample of the softmax of the logits
/// (DeepSpeed's `top1gating` with `RSample`), all of them one without replacement (W. Kool et al.,
/// "Stochastic beams and where to find them", ICML 2019). Weights come from the logits alone.
pub(crate) fn sampled(rows: &Rows<'_>) -> Result<Choices, RoutingError> {
    let noise = rows.noise_key().stream(Purpose::RSample);
    rows.fixed(Weigh::Scores, |token, row, experts, buffers| {
        buffers.keys.resize(row.len(), 0.0);
        noise.fill(Distribution::Gumbel, rows.number(token), &mut buffers.keys);
        for (key, logit) in buffers.keys.iter_mut().zip(row) {
            *key += logit;
        }
        top_k(&buffers.keys, experts, &mut buffers.top);
        Ok(())
    })
}

/// DeepSpeed's `top2gating` with `top2_2nd_expert_sampling`: the first expert has the highest key;
/// the second is the highest logit + Gumbel noise among the others.
pub(crate) fn sampled_second(rows: &Rows<'_>) -> Result<Choices, RoutingError> {
    let noise = rows.noise_key().stream(Purpose::SecondExpert);
    rows.fixed(Weigh::Scores, |token, row, experts, buffers| {
        let (first, second) = experts.split_at_mut(1);
        let keys = rows.selector.keys(row, &mut buffers.select);
        top_k(keys, first, &mut buffers.top);
        buffers.keys.resize(row.len(), 0.0);
        noise.fill(Distribution::Gumbel, rows.number(token), &mut buffers.keys);
        for (key, logit) in buffers.keys.iter_mut().zip(row) {
            *key += logit;
        }
        buffers.keys[first[0] as usize] = f32::NEG_INFINITY;
        top_k(&buffers.keys, second, &mut buffers.top);
        Ok(())
    })
}

/// GShard's algorithm 1: two experts by key, and the second stays with probability
/// `min(1, 2 w₂)`, where `w₂` is its share of the two weights. The first keeps its weight.
pub(crate) fn random_second(rows: &Rows<'_>, rule: SecondRule) -> Result<Choices, RoutingError> {
    let noise = rows.noise_key().stream(Purpose::SecondExpert);
    rows.ragged(
        |_, row, chosen, buffers| {
            chosen.resize(2, 0);
            let keys = rows.selector.keys(row, &mut buffers.select);
            top_k(keys, chosen, &mut buffers.top);
        },
        |token, weights| {
            let twice = 2.0 * (weights[1] / (weights[0] + weights[1]));
            let ticket = noise.uniform(rows.number(token), 0);
            let stays = match rule {
                SecondRule::Gshard => twice > ticket,
                SecondRule::FastMoe => twice >= ticket,
            };
            1 + usize::from(stays)
        },
    )
}
