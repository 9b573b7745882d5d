//! Policies under which each expert keeps its best choices, wherever they stand in the queue.

use super::{
    AdmitContext, Batch,
    queue::{Queue, serve},
};
use crate::{
    noise::{Noise, NoiseKey, Purpose},
    route::Fate,
};

/// Keeps, of each bin, the `capacity` choices of the lowest keys, ties to the first in the queue,
/// and drops the rest. `demand` is the batch's, `[bins]`; it becomes a buffer.
pub(super) fn keep_lowest(
    batch: &Batch<'_>,
    queue: &Queue,
    demand: &mut [u64],
    capacity: u64,
    fates: &mut [Fate],
    key: impl Fn(usize) -> u32,
) {
    // Only the choices of full bins are looked at, in one table, bin after bin.
    let mut starts = Vec::with_capacity(demand.len());
    let mut end = 0;
    for next in &mut *demand {
        starts.push(end);
        if *next > capacity {
            let start = end;
            end += *next as usize;
            *next = start as u64;
        } else {
            *next = u64::MAX;
        }
    }
    starts.push(end);
    let mut choices = vec![0_u32; end];
    // Key above place: lower entries are better, and the place finds the choice again.
    let mut entries = vec![0_u64; end];
    serve(batch, queue, fates, |_, choice, bin| {
        let next = &mut demand[bin];
        if *next != u64::MAX {
            let place = *next as usize;
            // Choices are counted in u32: the batch was refused otherwise.
            choices[place] = choice as u32;
            entries[place] = u64::from(key(choice)) << 32 | place as u64;
            *next += 1;
        }
    });
    for bin in starts.windows(2).filter(|bin| bin[0] < bin[1]) {
        // Fewer than there are, or the bin would not be full.
        let kept = capacity as usize;
        let entries = &mut entries[bin[0]..bin[1]];
        entries.select_nth_unstable(kept);
        for entry in &entries[kept..] {
            let place = *entry as u32 as usize;
            fates[choices[place] as usize] = Fate::Dropped;
        }
    }
}

/// The lots of a batch: a number for each token and expert, which depends on nothing else that is
/// in the queue.
pub(super) fn lots(context: &AdmitContext<'_>) -> Noise {
    let key = NoiseKey {
        seed: context.seed,
        step: context.step,
        layer: context.layer,
    };
    key.stream(Purpose::RandomDrop)
}

/// The lot of a choice.
pub(super) fn drawn(batch: &Batch<'_>, lots: &Noise, choice: usize) -> u32 {
    let token = batch.route.place_of(choice).0 as u64;
    let token = batch.context.first_token.wrapping_add(token);
    lots.word(token, batch.route.experts[choice])
}
