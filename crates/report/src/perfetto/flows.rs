//! Arrows: rows that leave, the experts that compute them, the sum that takes their results.

use std::collections::BTreeMap;

use expertmesh_telemetry::Phase;

use super::Slice;

/// Step, whether predicted, endpoint, peer.
type Place = (u64, bool, u32, Option<u32>);

/// The slices of each arrow, two or three, in the order of time. Every one begins at a `send`.
pub(super) fn flows(slices: &[Slice]) -> Vec<Vec<Slice>> {
    let experts = by_place(slices, Phase::Experts);
    let back = by_place(slices, Phase::Return);
    let sums = by_place(slices, Phase::Combine);
    // A shard is packed anew by its home, which a star does not have.
    let packs = by_place(slices, Phase::Pack);
    let mut flows = Vec::new();
    let mut taken: BTreeMap<Place, usize> = BTreeMap::new();
    for sent in slices
        .iter()
        .filter(|slice| slice.lane.phase == Phase::Send)
    {
        let lane = &sent.lane;
        let Some(peer) = lane.peer else {
            continue;
        };
        let place = (lane.step, lane.predicted, peer, Some(lane.endpoint));
        let key = (lane.step, lane.predicted);
        let nth = taken.entry(place).or_default();
        let Some(computed) = experts.get(&place).and_then(|all| all.get(*nth)) else {
            let home = (key.0, key.1, peer, None);
            let packed =
                packs.range((key.0, key.1, peer, None)..=(key.0, key.1, peer, Some(u32::MAX)));
            let packed = packed.flat_map(|(_, all)| all);
            let first = packed.filter(|pack| pack.begin_ns >= sent.end_ns());
            let next = first.min_by_key(|pack| pack.begin_ns);
            let next = next.or_else(|| sums.get(&home).and_then(|all| all.first()));
            flows.extend(next.map(|next| vec![*sent, *next]));
            continue;
        };
        *nth += 1;
        let mut flow = vec![*sent, *computed];
        let mut after = computed.end_ns();
        let returns = back.get(&place).into_iter().flatten();
        if let Some(returned) = returns
            .filter(|one| one.begin_ns >= after)
            .min_by_key(|one| one.begin_ns)
        {
            flow.push(*returned);
            after = returned.end_ns();
        }
        let home = (key.0, key.1, lane.endpoint, None);
        let sum = sums.get(&home).into_iter().flatten();
        flow.extend(
            sum.filter(|one| one.begin_ns >= after)
                .min_by_key(|one| one.begin_ns),
        );
        flows.push(flow);
    }
    flows
}

/// Slices of a phase, in the order of their beginning.
fn by_place(slices: &[Slice], phase: Phase) -> BTreeMap<Place, Vec<Slice>> {
    let mut places: BTreeMap<Place, Vec<Slice>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.lane.phase == phase) {
        let lane = &slice.lane;
        let place = (lane.step, lane.predicted, lane.endpoint, lane.peer);
        places.entry(place).or_default().push(*slice);
    }
    places
}
