//! The room that there is.

use super::{AdmitContext, Domains};
use crate::{
    capacity::{CapacityConfig, CapacityScope, Overflow},
    error::RoutingError,
    route::Route,
};

/// What has room of its own: an expert, an (expert, domain) pair or a worker.
pub(crate) struct Bins<'a> {
    kind: Kind<'a>,
    /// `[held]` the bin of each expert's first domain; `None` where it is the expert.
    first: Option<Vec<u32>>,
    /// Number of bins.
    pub(super) count: usize,
    /// What the formula divides by.
    pub(crate) sharers: usize,
}

enum Kind<'a> {
    Expert,
    Instance(&'a Domains),
    Worker(&'a Domains),
}

/// The room that is left in each bin.
pub(super) struct Room<'a> {
    pub(super) capacity: u64,
    /// `[bins]`
    taken: &'a mut [u64],
}

// === impl Bins ===

impl<'a> Bins<'a> {
    pub(super) fn new(
        route: &Route,
        config: &CapacityConfig,
        context: &AdmitContext<'a>,
        held: usize,
    ) -> Result<Self, RoutingError> {
        let by_instance = config.overflow == Overflow::RerouteToReplica;
        if config.overflow == Overflow::Dropless
            || (config.scope == CapacityScope::Expert && !by_instance)
        {
            return Ok(Self {
                kind: Kind::Expert,
                first: None,
                count: held,
                sharers: route.experts_total,
            });
        }
        let Some(domains) = context.domains else {
            let expected = match by_instance {
                true => "the domains of every expert for overflow reroute-to-replica",
                false => "the domains of every expert for capacity scope worker",
            };
            return Err(RoutingError::config("domains", "none", expected));
        };
        if domains.experts() < held {
            let expected = format!("those of {held} experts");
            let found = format!("those of {}", domains.experts());
            return Err(RoutingError::config("domains", found, expected));
        }
        let experts = 0..u32::try_from(held).unwrap_or(u32::MAX);
        let first = |expert: u32| match config.scope {
            CapacityScope::Expert => domains.pairs_before(expert as usize),
            CapacityScope::Worker => domains.of(expert)[0],
        };
        let first = Some(experts.map(first).collect());
        Ok(match config.scope {
            CapacityScope::Expert => Self {
                kind: Kind::Instance(domains),
                first,
                count: domains.pairs_before(held) as usize,
                sharers: route.experts_total,
            },
            CapacityScope::Worker => Self {
                kind: Kind::Worker(domains),
                first,
                count: domains.count(),
                sharers: domains.count(),
            },
        })
    }

    /// The bin of `expert`'s first domain.
    pub(super) fn first(&self, expert: u32) -> usize {
        let first = self.first.as_ref();
        first.map_or(expert, |first| first[expert as usize]) as usize
    }

    /// The same for all experts, `[held]`, where it is not the expert itself.
    pub(super) fn first_table(&self) -> Option<&[u32]> {
        self.first.as_deref()
    }

    /// The bins of `expert`'s domains, the first one first.
    pub(super) fn of(&self, expert: u32) -> impl Iterator<Item = usize> {
        let (from, workers) = match self.kind {
            Kind::Expert => (expert as usize, &[0][..]),
            Kind::Instance(domains) => (self.first(expert), domains.of(expert)),
            Kind::Worker(domains) => (0, domains.of(expert)),
        };
        let by_worker = matches!(self.kind, Kind::Worker(_));
        let bin = move |(replica, &worker): (usize, &u32)| match by_worker {
            true => worker as usize,
            false => from + replica,
        };
        workers.iter().enumerate().map(bin)
    }
}

// === impl Room ===

impl<'a> Room<'a> {
    /// Empty room in `bins` bins; `taken` is a buffer.
    pub(super) fn new(capacity: u64, taken: &'a mut Vec<u64>, bins: usize) -> Self {
        taken.clear();
        taken.resize(bins, 0);
        Self { capacity, taken }
    }

    /// Takes a place in `bin`; false where it is full.
    pub(super) fn take(&mut self, bin: usize) -> bool {
        let taken = &mut self.taken[bin];
        let free = *taken < self.capacity;
        *taken += u64::from(free);
        free
    }

    /// Takes a place in `bin`, if it is a bin and somebody asks; true where it is full.
    #[inline]
    pub(super) fn is_refused(&mut self, bin: usize, asks: bool) -> bool {
        let Some(taken) = self.taken.get_mut(bin) else {
            return false;
        };
        let full = *taken >= self.capacity;
        *taken += u64::from(asks & !full);
        asks & full
    }

    /// Whether there is a place in `bin`.
    pub(super) fn has(&self, bin: usize) -> bool {
        self.taken[bin] < self.capacity
    }

    /// Counts one more in `bin`, however many there are, and tells how many were there.
    pub(super) fn count(&mut self, bin: usize) -> u64 {
        let taken = &mut self.taken[bin];
        *taken += 1;
        *taken - 1
    }
}
