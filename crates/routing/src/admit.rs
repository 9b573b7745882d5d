//! Which choices an expert accepts.

use crate::{
    capacity::{CapacityConfig, Overflow},
    error::RoutingError,
    route::{Fate, Route},
};

/// What a batch is admitted under besides its route: all of it plain data, so that the answer is
/// the same wherever it is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdmitContext<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the step.
    pub step: u64,
    /// Number of the layer.
    pub layer: u32,
    /// Number of the batch's first token, for batches that are parts of one.
    pub first_token: u64,
    /// Tokens of a sequence; 0 where the batch is one sequence.
    pub sequence: usize,
    /// Which domains (workers, say) hold each expert, for policies that ask.
    pub domains: Option<&'a Domains>,
    /// The capacity that earlier steps grew to, for the policy that grows.
    pub grown: Option<u64>,
    /// The experts after those that workers hold, by ascending index.
    pub free: &'a [FreeExpert],
}

/// An expert that costs no dispatch: whoever is home to a token answers for it. Free experts use
/// no capacity and are never full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FreeExpert {
    /// Adds nothing: its choices are [`Fate::Skipped`] (MoE++'s zero expert).
    Null,
    /// Gives the row back (LongCat's zero-computation expert, MoE++'s copy expert).
    Identity,
    /// Mixes the row with a learned vector (MoE++'s constant expert).
    Constant,
}

/// A plain table of the domains that hold each expert, the first one first: workers with
/// replicas, or nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Domains {
    /// `[E + 1]` offsets into `ids`.
    offsets: Vec<u32>,
    /// Domains of every expert.
    ids: Vec<u32>,
    /// Number of domains.
    count: usize,
}

/// What is to be done for every choice: the gate's answer after capacity.
///
/// Tables that would repeat the route are absent: the usual step copies nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Admission {
    /// `[choices]`: computed, rerouted, dropped or skipped. A failure may turn computed and
    /// rerouted into lost later.
    pub fates: Vec<Fate>,
    /// `[choices]` the expert that computes each, where one was rerouted; `None`: the expert that
    /// the gate chose.
    pub executed: Option<Vec<u32>>,
    /// `[choices]` the weight that the result is multiplied by; `None`: the gate weight. Of no
    /// meaning where nothing is computed.
    pub weights: Option<Vec<f32>>,
    /// `[choices]` which of its expert's domains computes each; `None`: the first.
    pub replicas: Option<Vec<u8>>,
    /// `[choices]` the wave that each is sent in; `None`: all in the first.
    pub waves: Option<Vec<u8>>,
    /// Choices that each expert accepted at most; `None` without a limit.
    pub capacity: Option<u64>,
    /// How often the batch was admitted again under a larger capacity.
    pub replays: u32,
}

// === impl Domains ===

impl Domains {
    /// The table of `count` domains in which expert `e` is held by `of[e]`, each list without
    /// repeats.
    ///
    /// # Errors
    /// An expert that no domain holds, or a domain that is not below `count`.
    pub fn new<L: AsRef<[u32]>>(of: &[L], count: usize) -> Result<Self, RoutingError> {
        let mut table = Self {
            offsets: vec![0],
            ids: Vec::with_capacity(of.len()),
            count,
        };
        for held_by in of {
            let held_by = held_by.as_ref();
            if held_by.is_empty() {
                let expected = "at least one domain for each expert";
                return Err(RoutingError::config("domains", "none", expected));
            }
            if let Some(wrong) = held_by.iter().find(|&&id| id as usize >= count) {
                let expected = format!("a domain below {count}");
                return Err(RoutingError::config("domains", wrong, expected));
            }
            table.ids.extend_from_slice(held_by);
            let end = u32::try_from(table.ids.len()).unwrap_or(u32::MAX);
            table.offsets.push(end);
        }
        Ok(table)
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Number of domains.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The domains that hold `expert`, the first one first; none for an expert that is not in the
    /// table.
    #[must_use]
    pub fn of(&self, expert: u32) -> &[u32] {
        match self.offsets.get(expert as usize..expert as usize + 2) {
            Some(ends) => &self.ids[ends[0] as usize..ends[1] as usize],
            None => &[],
        }
    }
}

// === impl Admission ===

impl Admission {
    /// The expert that computes `choice` of `route`.
    #[must_use]
    pub fn executed(&self, route: &Route, choice: usize) -> u32 {
        self.executed.as_ref().unwrap_or(&route.experts)[choice]
    }

    /// What the result of `choice` is multiplied by.
    #[must_use]
    pub fn weight(&self, route: &Route, choice: usize) -> f32 {
        self.weights.as_ref().unwrap_or(&route.weights)[choice]
    }

    /// Which of its expert's domains computes `choice`.
    #[must_use]
    pub fn replica(&self, choice: usize) -> u8 {
        self.replicas
            .as_ref()
            .map_or(0, |replicas| replicas[choice])
    }

    /// The wave that `choice` is sent in.
    #[must_use]
    pub fn wave(&self, choice: usize) -> u8 {
        self.waves.as_ref().map_or(0, |waves| waves[choice])
    }
}

/// Applies the capacity rule to a route.
///
/// Padding is skipped and uses no capacity. Gate weights of the choices that remain are left as
/// they are: a token that loses a choice loses that share of its output.
///
/// # Errors
/// What [`CapacityConfig::validate`] and [`Route::check`] refuse.
pub fn admit(
    route: &Route,
    config: &CapacityConfig,
    _context: &AdmitContext<'_>,
) -> Result<Admission, RoutingError> {
    config.validate()?;
    route.check()?;
    let capacity = config.capacity(route.real_tokens(), route.top_k, route.experts_total);
    let mut fates = vec![Fate::Computed; route.choices()];
    if route.padding.is_some() {
        for token in (0..route.tokens).filter(|&token| route.is_padding(token)) {
            fates[route.choices_of(token)].fill(Fate::Skipped);
        }
    }
    match (config.overflow, capacity) {
        (Overflow::DropPosition, Some(capacity)) => drop_last(route, capacity, &mut fates),
        (Overflow::DropWeight, Some(capacity)) => drop_lightest(route, capacity, &mut fates),
        _ => {}
    }
    Ok(Admission {
        fates,
        capacity,
        ..Admission::default()
    })
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
