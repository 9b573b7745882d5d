//! In which order choices ask for room.

use std::{hint::select_unpredictable, ops::Range};

use expertmesh_kernels::math;

use super::{Batch, bins::Room};
use crate::{
    capacity::{Overflow, Priority, QueueOrder},
    route::{Fate, Route},
};

/// The choices of a run of tokens in the order in which they ask.
pub(super) struct Queue {
    order: QueueOrder,
    tokens: Range<usize>,
    /// Those that are not padding, counted from the run's first, where they are not in order.
    ranked: Option<Vec<u32>>,
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(batch: &Batch<'_>, tokens: Range<usize>) -> Self {
        let prioritised = batch.config.overflow == Overflow::DropPrioritised;
        Self {
            order: batch.config.order,
            ranked: prioritised.then(|| rank_tokens(batch, tokens.clone())),
            tokens,
        }
    }

    /// Calls `visit` with every choice in turn.
    #[inline]
    pub(super) fn walk(&self, batch: &Batch<'_>, mut visit: impl FnMut(usize)) {
        let (route, first) = (batch.route, self.tokens.start);
        let in_rank = |&token: &u32| first + token as usize;
        match (self.order, &self.ranked) {
            (QueueOrder::TokenMajor, None) => {
                batch.choices(self.tokens.clone()).for_each(visit);
            }
            (QueueOrder::TokenMajor, Some(ranked)) => {
                let tokens = ranked.iter().map(in_rank);
                tokens.for_each(|token| route.choices_of(token).for_each(&mut visit));
            }
            (QueueOrder::ChoiceMajor, None) => {
                by_slot(route, || self.tokens.clone(), visit);
            }
            (QueueOrder::ChoiceMajor, Some(ranked)) => {
                by_slot(route, || ranked.iter().map(in_rank), visit);
            }
        }
    }
}

/// The first choice of each token, then the second of each.
fn by_slot<I: Iterator<Item = usize>>(
    route: &Route,
    tokens: impl Fn() -> I,
    mut visit: impl FnMut(usize),
) {
    for slot in 0..route.top_k {
        for token in tokens() {
            let choices = route.choices_of(token);
            if slot < choices.len() {
                visit(choices.start + slot);
            }
        }
    }
}

/// The tokens of a run that are not padding, by falling priority, ties to the lower.
fn rank_tokens(batch: &Batch<'_>, tokens: Range<usize>) -> Vec<u32> {
    let (route, experts) = (batch.route, batch.route.experts_total);
    let mut row = Vec::new();
    let mut rank = |token: usize| {
        let highest = |values: &[f32]| values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        match batch.config.priority {
            Priority::GateWeight => highest(&route.weights[route.choices_of(token)]),
            Priority::Probability => {
                row.clear();
                row.extend_from_slice(&route.logits[token * experts..(token + 1) * experts]);
                math::softmax(&mut row);
                highest(&row)
            }
        }
    };
    let first = tokens.start;
    let mut ranks: Vec<u64> = tokens
        .filter(|&token| !route.is_padding(token))
        .map(|token| (u64::from(falling(rank(token))) << 32) | (token - first) as u64)
        .collect();
    ranks.sort_unstable();
    // The low half is the token.
    ranks.into_iter().map(|rank| rank as u32).collect()
}

/// A number that falls as `value` grows, in the total order of floats.
pub(super) fn falling(value: f32) -> u32 {
    let bits = value.to_bits();
    // Negative floats are ordered against their bits.
    let rising = if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    };
    !rising
}

/// Gives room to the first in the queue, and drops the rest.
pub(super) fn keep_first(
    batch: &Batch<'_>,
    queue: &Queue,
    room: &mut Room<'_>,
    fates: &mut [Fate],
) {
    if queue.order == QueueOrder::TokenMajor
        && queue.ranked.is_none()
        && batch.bins.first_table().is_none()
    {
        // The usual rule on the usual path: bins are experts, and choices stand in line as they
        // are stored. Free experts are past the last bin.
        let choices = batch.choices(queue.tokens.clone());
        let experts = &batch.route.experts[choices.clone()];
        for (&expert, fate) in experts.iter().zip(&mut fates[choices]) {
            let asks = *fate == Fate::Computed;
            // Where experts overflow nobody can guess who is refused: it is not asked, but written.
            let refused = room.is_refused(expert as usize, asks);
            *fate = select_unpredictable(refused, Fate::Dropped, *fate);
        }
        return;
    }
    serve(batch, queue, fates, |fates, choice, bin| {
        if !room.take(bin) {
            fates[choice] = Fate::Dropped;
        }
    });
}

/// Calls `ask` with fates, choice and bin of every choice that asks for room, in the queue's
/// order: not those that are skipped, nor those of free experts.
#[inline]
pub(super) fn serve(
    batch: &Batch<'_>,
    queue: &Queue,
    fates: &mut [Fate],
    mut ask: impl FnMut(&mut [Fate], usize, usize),
) {
    let (experts, held) = (&batch.route.experts[..], batch.held);
    // The usual bin is the expert: no table to look in.
    match batch.bins.first_table() {
        None => queue.walk(batch, |choice| {
            let expert = experts[choice] as usize;
            if expert < held && fates[choice] == Fate::Computed {
                ask(fates, choice, expert);
            }
        }),
        Some(first) => queue.walk(batch, |choice| {
            let expert = experts[choice] as usize;
            if expert < held && fates[choice] == Fate::Computed {
                ask(fates, choice, first[expert] as usize);
            }
        }),
    }
}
