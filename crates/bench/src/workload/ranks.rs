//! Which rank holds which experts and which token rows.

use std::ops::Range;

use expertmesh_exchange::shard_ranges;
use expertmesh_placement::Placement;
use rand_chacha::ChaCha8Rng;

use crate::draw::shuffle;

/// Ranks where nobody says how many, or as many as there are experts.
const USUAL: usize = 4;

/// The split that contiguous placement and the exchange make for as many workers.
#[derive(Debug, Clone)]
pub(super) struct Ranks {
    placement: Placement,
}

// === impl Ranks ===

impl Ranks {
    /// `None` unless there is a rank, and an expert for each.
    pub(super) fn new(experts: usize, ranks: usize) -> Option<Self> {
        let fits = (1..=experts).contains(&ranks);
        let placement = Placement::contiguous(experts, ranks).ok();
        placement
            .filter(|_| fits)
            .map(|placement| Self { placement })
    }

    /// How many there are where nobody says.
    pub(super) fn usual(experts: usize) -> usize {
        USUAL.min(experts)
    }

    pub(super) fn count(&self) -> usize {
        self.placement.workers()
    }

    /// The experts of `rank`, ascending.
    pub(super) fn experts_of(&self, rank: usize) -> Vec<u32> {
        self.placement.experts_of(rank)
    }

    /// The token rows of each rank.
    pub(super) fn rows(&self, tokens: usize) -> Vec<Range<usize>> {
        shard_ranges(tokens, self.count())
    }

    /// `[T]`, true for padding: of R ranks, in a random order, the first has all of its rows, the
    /// next (R-1)/R of them, rounded up, and so on.
    pub(super) fn ragged(&self, random: &mut ChaCha8Rng, tokens: usize) -> Vec<bool> {
        let ranks = self.count();
        let mut order: Vec<u32> = (0..ranks as u32).collect();
        shuffle(random, &mut order);
        let mut padding = vec![true; tokens];
        for (rows, place) in self.rows(tokens).into_iter().zip(order) {
            let live = (rows.len() * (ranks - place as usize)).div_ceil(ranks);
            padding[rows.start..rows.start + live].fill(false);
        }
        padding
    }
}
