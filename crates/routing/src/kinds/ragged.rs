//! Rules whose number of choices follows from the token's scores.

use super::{Buffers, Rows};
use crate::{
    error::RoutingError,
    gate::Choices,
    select::{Buffer, top_k},
};

/// The fewest experts, by falling key, whose scores sum to `p` or more; `k` if these do not reach
/// it (Q. Huang et al., "Harder tasks need more experts", ACL 2024, where scores are the
/// softmax).
pub(crate) fn top_p(rows: &Rows<'_>, p: f32) -> Result<Choices, RoutingError> {
    let mut scores = Buffer::default();
    rows.ragged(
        |_, row, chosen, buffers| {
            best(rows, row, chosen, buffers);
            rows.selector.fill_scores(row, &mut scores);
            let mut mass = 0.0;
            let enough = chosen.iter().position(|&expert| {
                mass += scores[expert as usize];
                mass >= p
            });
            chosen.truncate(enough.map_or(chosen.len(), |last| last + 1));
        },
        |_, weights| weights.len(),
    )
}

/// Of the `k` highest keys those whose scores exceed `least`, and the first in any case.
pub(crate) fn threshold(rows: &Rows<'_>, least: f32) -> Result<Choices, RoutingError> {
    let mut scores = Buffer::default();
    rows.ragged(
        |_, row, chosen, buffers| {
            best(rows, row, chosen, buffers);
            rows.selector.fill_scores(row, &mut scores);
            let first = chosen[0];
            chosen.retain(|&expert| expert == first || scores[expert as usize] > least);
        },
        |_, weights| weights.len(),
    )
}

fn best(rows: &Rows<'_>, row: &[f32], chosen: &mut Vec<u32>, buffers: &mut Buffers) {
    chosen.resize(rows.top_k(), 0);
    let keys = rows.selector.keys(row, &mut buffers.select);
    top_k(keys, chosen, &mut buffers.top);
}
