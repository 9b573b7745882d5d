//! Lanes of one endpoint and phase that overlap stand below each other: a viewer draws what a thread
//! does at once as calls within calls, and lanes are none.

use std::collections::BTreeMap;

use super::Slice;

/// Gives each slice the first row that is free when it begins. `slices` are in that order.
pub(super) fn assign(slices: &mut [Slice]) {
    let mut rows: BTreeMap<(u64, usize), Vec<u64>> = BTreeMap::new();
    for slice in slices {
        let place = (slice.process(), slice.lane.phase.index());
        let rows = rows.entry(place).or_default();
        let free = rows.iter().position(|end| *end <= slice.begin_ns);
        let row = free.unwrap_or(rows.len());
        match rows.get_mut(row) {
            Some(end) => *end = slice.end_ns(),
            None => rows.push(slice.end_ns()),
        }
        slice.row = row as u64;
    }
}
