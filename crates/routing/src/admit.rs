//! Which choices an expert accepts.

use crate::{
    capacity::{CapacityConfig, Overflow},
    error::RoutingError,
    route::{Fate, Route},
};

/// The first fate of every choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// `[T, k]`: computed, dropped or skipped. Later stages may turn computed into rerouted or
    /// lost.
    pub fates: Vec<Fate>,
    /// Choices that each expert accepted at most; `None` without a limit.
    pub capacity: Option<u64>,
}

/// Applies the capacity rule to a route.
///
/// Padding is skipped and uses no capacity. Gate weights of the choices that remain are left as
/// they are: a token that loses a choice loses that share of its output.
///
/// # Errors
/// What [`CapacityConfig::validate`] and [`Route::check`] refuse.
pub fn admit(route: &Route, config: &CapacityConfig) -> Result<Admission, RoutingError> {
    config.validate()?;
    route.check()?;
    let capacity = config.capacity(route.real_tokens(), route.top_k, route.experts_total);
    let mut fates = vec![Fate::Computed; route.choices()];
    for (token, fates) in fates.chunks_exact_mut(route.top_k).enumerate() {
        if route.is_padding(token) {
            fates.fill(Fate::Skipped);
        }
    }
    match (config.overflow, capacity) {
        (Overflow::DropPosition, Some(capacity)) => drop_last(route, capacity, &mut fates),
        (Overflow::DropWeight, Some(capacity)) => drop_lightest(route, capacity, &mut fates),
        _ => {}
    }
    Ok(Admission { fates, capacity })
}

/// Keeps the first `capacity` choices of each expert. The order of a token's own choices does
/// not matter, because they are for different experts.
fn drop_last(route: &Route, capacity: u64, fates: &mut [Fate]) {
    let mut taken = vec![0_u64; route.experts_total];
    for (&expert, fate) in route.experts.iter().zip(fates) {
        if *fate == Fate::Computed {
            let taken = &mut taken[expert as usize];
            if *taken == capacity {
                *fate = Fate::Dropped;
            } else {
                *taken += 1;
            }
        }
    }
}

/// Keeps the heaviest `capacity` choices of each expert.
fn drop_lightest(route: &Route, capacity: u64, fates: &mut [Fate]) {
    let demand = route.demand();
    // Choices of full experts alone, expert after expert, in token order.
    let mut queues: Vec<Vec<usize>> = demand
        .iter()
        .map(|&count| {
            if count > capacity {
                Vec::with_capacity(count as usize)
            } else {
                vec![]
            }
        })
        .collect();
    for (choice, (&expert, &fate)) in route.experts.iter().zip(&*fates).enumerate() {
        if fate == Fate::Computed && demand[expert as usize] > capacity {
            queues[expert as usize].push(choice);
        }
    }
    for mut queue in queues.into_iter().filter(|queue| !queue.is_empty()) {
        // Fewer than the queue's length, or the expert would not be full.
        let kept = capacity as usize;
        queue.select_nth_unstable_by(kept, |a, b| {
            route.weights[*b]
                .total_cmp(&route.weights[*a])
                .then(a.cmp(b))
        });
        for choice in &queue[kept..] {
            fates[*choice] = Fate::Dropped;
        }
    }
}
