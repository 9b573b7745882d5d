//! Policies that send what an expert refuses elsewhere, or later.

use super::{
    Admission, Batch,
    bins::Room,
    queue::{Queue, serve},
};
use crate::{capacity::Overflow, route::Fate};

/// Finds room for the choices that were refused, in their order.
pub(super) fn send(
    batch: &Batch<'_>,
    refused: &[usize],
    room: &mut Room<'_>,
    admission: &mut Admission,
) {
    for &choice in refused {
        let found = match batch.config.overflow {
            Overflow::RerouteToReplica => to_replica(batch, choice, room, admission),
            _ => to_expert(batch, choice, room, admission),
        };
        if found {
            admission.fates[choice] = Fate::Rerouted;
        }
    }
}

/// Sends a choice to its token's best other expert with room; false where there is none.
fn to_expert(
    batch: &Batch<'_>,
    choice: usize,
    room: &mut Room<'_>,
    admission: &mut Admission,
) -> bool {
    let route = batch.route;
    let token = route.place_of(choice).0;
    let choices = route.choices_of(token);
    let executed = admission.executed.as_ref().unwrap_or(&route.experts);
    let has = |expert| {
        let chosen = &route.experts[choices.clone()];
        chosen.contains(&expert) || executed[choices.clone()].contains(&expert)
    };
    // The free experts are the last of the row.
    let row = &route.logits[token * route.experts_total..][..batch.held];
    let mut best: Option<(u32, f32)> = None;
    for (expert, &logit) in (0..).zip(row) {
        let better = best.map_or(!logit.is_nan(), |(_, highest)| logit > highest);
        if better && room.has(batch.bins.first(expert)) && !has(expert) {
            best = Some((expert, logit));
        }
    }
    let Some((expert, _)) = best else {
        return false;
    };
    room.count(batch.bins.first(expert));
    let executed = &mut admission.executed;
    executed.get_or_insert_with(|| route.experts.clone())[choice] = expert;
    true
}

/// Sends a choice to its expert's next domain with room; false where there is none.
fn to_replica(
    batch: &Batch<'_>,
    choice: usize,
    room: &mut Room<'_>,
    admission: &mut Admission,
) -> bool {
    // Replicas are numbered in a byte; an expert's 257th is never asked.
    let replicas = (0..=u8::MAX).zip(batch.bins.of(batch.route.experts[choice]));
    let with_room = replicas.skip(1).find(|&(_, bin)| room.take(bin));
    let Some((replica, _)) = with_room else {
        return false;
    };
    let replicas = &mut admission.replicas;
    replicas.get_or_insert_with(|| vec![0; batch.route.choices()])[choice] = replica;
    true
}

/// Gives every choice a wave.
pub(super) fn spill(
    batch: &Batch<'_>,
    queue: &Queue,
    mut room: Room<'_>,
    admission: &mut Admission,
) {
    let capacity = room.capacity;
    let waves = &mut admission.waves;
    serve(batch, queue, &mut admission.fates, |fates, choice, bin| {
        let before = room.count(bin);
        if before < capacity {
            return;
        }
        // No capacity, no wave; and waves are numbered in a byte.
        match before.checked_div(capacity).map(u8::try_from) {
            Some(Ok(wave)) => {
                waves.get_or_insert_with(|| vec![0; batch.route.choices()])[choice] = wave;
            }
            _ => fates[choice] = Fate::Dropped,
        }
    });
}
