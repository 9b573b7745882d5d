//! Which choices an expert accepts, and what becomes of the others.
//!
//! # How a batch is admitted
//!
//! The batch is cut into the tokens that share a capacity ([`CapacityShare`]). In each part every
//! choice asks its expert, or its expert's worker, for room ([`CapacityScope`]), in the order that
//! policy and [`QueueOrder`] give. Padding and null experts are skipped; free experts have room
//! without end. Then the weight rule is applied ([`WeightRule`]).
//!
//! Policies that send a refused choice elsewhere go over the queue twice: first every choice asks
//! where its gate sent it, then those that were refused ask elsewhere, in the same order. So no
//! choice loses its own expert to one that was sent there by overflow.
//!
//! # What permuting the tokens of a batch does
//!
//! | policy | if the whole batch shares a capacity, permuting tokens permutes |
//! |---|---|
//! | dropless, grow-and-replay | everything |
//! | spill | fates and outputs; the wave of a choice follows from its place |
//! | drop-weight | everything, but for equal weights at the edge of an expert's room |
//! | drop-prioritised | everything, but for tokens of equal rank |
//! | drop-random | nothing is promised: the draw belongs to a token's number |
//! | drop-position, reroute, reroute-to-replica | nothing is promised: place in the batch decides |
//!
//! Where senders or sequences have capacities of their own, a permutation changes who shares one,
//! and only the first line is promised.
//!
//! [`CapacityScope`]: crate::CapacityScope
//! [`CapacityShare`]: crate::CapacityShare
//! [`QueueOrder`]: crate::QueueOrder
//! [`WeightRule`]: crate::WeightRule

mod admission;
mod batch;
mod bins;
mod context;
mod elsewhere;
mod queue;
mod ranked;
mod weights;

use std::ops::Range;

pub use admission::Admission;
pub(crate) use batch::Batch;
pub use context::{AdmitContext, Domains, FreeExpert};

use bins::Room;
use queue::Queue;

use crate::{
    capacity::{CapacityConfig, Overflow},
    error::RoutingError,
    route::{Fate, Route},
};

/// Applies the capacity rule to a route.
///
/// # Errors
/// What [`CapacityConfig::validate`] and [`Route::check`] refuse; a policy that asks for domains
/// without a table of them for all experts that workers hold; one that asks for logits of a route
/// without; more free experts than experts; more than 2^32 - 1 tokens or choices.
pub fn admit(
    route: &Route,
    config: &CapacityConfig,
    context: &AdmitContext<'_>,
) -> Result<Admission, RoutingError> {
    config.validate()?;
    route.check()?;
    let batch = Batch::new(route, config, context)?;
    let mut admission = Admission {
        fates: batch.first_fates(),
        ..Admission::default()
    };
    if config.overflow != Overflow::Dropless {
        batch.check_logits()?;
        let mut taken = Vec::new();
        for tokens in batch.parts() {
            admit_part(&batch, tokens, &mut taken, &mut admission);
        }
    }
    weights::apply(route, config.weights, &mut admission);
    Ok(admission)
}

/// Admits the tokens that share a capacity. `taken` is a buffer.
fn admit_part(
    batch: &Batch<'_>,
    tokens: Range<usize>,
    taken: &mut Vec<u64>,
    admission: &mut Admission,
) {
    let config = batch.config;
    let ranks = matches!(config.overflow, Overflow::DropWeight | Overflow::DropRandom);
    taken.clear();
    if ranks || config.asks_for_demand() {
        batch.count_demand(tokens.clone(), taken);
    }
    let needed = taken.iter().copied().max().unwrap_or_default();
    let real = batch.real_tokens(tokens.clone());
    let Some(mut capacity) =
        config.capacity_for(real, batch.route.top_k, batch.bins.sharers, needed)
    else {
        return;
    };
    if config.overflow == Overflow::GrowAndReplay {
        capacity = capacity.max(batch.context.grown.unwrap_or_default());
        if needed > capacity {
            capacity = config.align(needed);
            admission.replays = 1;
        }
    }

    let fates = &mut admission.fates;
    match config.overflow {
        Overflow::Dropless | Overflow::GrowAndReplay => {}
        Overflow::DropWeight => {
            let queue = Queue::new(batch, tokens);
            let key = |choice: usize| queue::falling(batch.route.weights[choice]);
            ranked::keep_lowest(batch, &queue, taken, capacity, fates, key);
        }
        Overflow::DropRandom => {
            let queue = Queue::new(batch, tokens);
            let lots = ranked::lots(batch.context);
            let key = |choice| ranked::drawn(batch, &lots, choice);
            ranked::keep_lowest(batch, &queue, taken, capacity, fates, key);
        }
        Overflow::DropPosition | Overflow::DropPrioritised => {
            let queue = Queue::new(batch, tokens);
            let mut room = Room::new(capacity, taken, batch.bins.count);
            queue::keep_first(batch, &queue, &mut room, fates);
        }
        Overflow::Reroute | Overflow::RerouteToReplica => {
            let queue = Queue::new(batch, tokens);
            let mut room = Room::new(capacity, taken, batch.bins.count);
            let mut refused = Vec::new();
            queue::serve(batch, &queue, fates, |fates, choice, bin| {
                if !room.take(bin) {
                    fates[choice] = Fate::Dropped;
                    refused.push(choice);
                }
            });
            elsewhere::send(batch, &refused, &mut room, admission);
        }
        Overflow::Spill => {
            let queue = Queue::new(batch, tokens);
            let room = Room::new(capacity, taken, batch.bins.count);
            elsewhere::spill(batch, &queue, room, admission);
        }
    }
    admission.capacity = admission.capacity.max(Some(capacity));
}
