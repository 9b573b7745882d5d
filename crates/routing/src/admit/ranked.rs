//! Policies under which each expert keeps its best choices, wherever they stand in the queue.

use super::{
    Batch,
    queue::{Queue, serve},
};
use crate::route::Fate;

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

/// The lot of a choice.
pub(super) fn drawn(batch: &Batch<'_>, choice: usize) -> u32 {
    let context = batch.context;
    let token = batch.route.place_of(choice).0 as u64;
    let token = context.first_token.wrapping_add(token);
    let expert = batch.route.experts[choice];
    drop_rank(context.seed, context.step, context.layer, token, expert)
}

/// A number for each (seed, step, layer, token, expert), as good as uniform and independent: each
/// is mixed in with splitmix64's function.
pub(crate) fn drop_rank(seed: u64, step: u64, layer: u32, token: u64, expert: u32) -> u32 {
    let fields = [step, u64::from(layer), token, u64::from(expert)];
    let mixed =
        fields.into_iter().fold(
            mix(seed),
            |state, field| mix(state.wrapping_add(mix(field))),
        );
    (mixed >> 32) as u32
}

/// The output function of splitmix64 (Steele, Lea and Flood 2014).
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
