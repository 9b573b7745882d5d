//! Rules that make a table from three numbers.

use std::{fmt, str::FromStr};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::{
    error::PlacementError,
    placement::{Placement, check_sizes},
};

/// How experts are spread when nothing is known about their load. Every strategy gives each
/// expert one replica, and worker loads that differ by at most one expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strategy {
    /// Neighbouring experts together; see [`Placement::contiguous`].
    #[default]
    Contiguous,
    /// Neighbouring experts apart; see [`Placement::round_robin`].
    RoundRobin,
    /// A seeded random order, then contiguous; see [`Placement::shuffled`].
    Shuffled,
}

// === impl Strategy ===

impl Strategy {
    /// Every strategy, in the order of their names in help texts.
    pub const ALL: [Self; 3] = [Self::Contiguous, Self::RoundRobin, Self::Shuffled];

    /// Places `experts` on `workers`; `seed` matters to [`Shuffled`](Self::Shuffled) alone.
    ///
    /// # Errors
    /// A size that is zero or past its limit.
    pub fn place(
        self,
        experts: usize,
        workers: usize,
        seed: u64,
    ) -> Result<Placement, PlacementError> {
        match self {
            Self::Contiguous => Placement::contiguous(experts, workers),
            Self::RoundRobin => Placement::round_robin(experts, workers),
            Self::Shuffled => Placement::shuffled(experts, workers, seed),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Contiguous => "contiguous",
            Self::RoundRobin => "round-robin",
            Self::Shuffled => "shuffled",
        })
    }
}

impl FromStr for Strategy {
    type Err = PlacementError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.to_string() == name)
            .ok_or_else(|| PlacementError::UnknownStrategy {
                found: name.to_owned(),
            })
    }
}

// === impl Placement ===

impl Placement {
    /// Blocks of neighbouring experts: the first `experts % workers` workers hold
    /// `experts / workers + 1` experts, the others `experts / workers`.
    ///
    /// # Errors
    /// A size that is zero or past its limit.
    pub fn contiguous(experts: usize, workers: usize) -> Result<Self, PlacementError> {
        check_sizes(experts, workers)?;
        let (share, longer) = (experts / workers, experts % workers);
        let mut primary = Vec::with_capacity(experts);
        for (position, worker) in (0..workers).zip(0_u32..) {
            let count = share + usize::from(position < longer);
            primary.extend(std::iter::repeat_n(worker, count));
        }
        Ok(Self::from_primaries(primary, workers))
    }

    /// Expert `e` on worker `e % workers`.
    ///
    /// # Errors
    /// A size that is zero or past its limit.
    pub fn round_robin(experts: usize, workers: usize) -> Result<Self, PlacementError> {
        check_sizes(experts, workers)?;
        let primary = (0..experts)
            .map(|expert| (expert % workers) as u32)
            .collect();
        Ok(Self::from_primaries(primary, workers))
    }

    /// [`contiguous`](Self::contiguous) over a random order of the experts: the workers'
    /// loads stay as even, and which experts are neighbours is drawn from `seed`.
    ///
    /// # Errors
    /// A size that is zero or past its limit.
    pub fn shuffled(experts: usize, workers: usize, seed: u64) -> Result<Self, PlacementError> {
        let blocks = Self::contiguous(experts, workers)?;
        let mut primary: Vec<u32> = blocks.entries().map(|entry| entry[0]).collect();
        // Fisher–Yates, written out: a library's shuffle may draw differently in its next
        // version, and then a seed would no longer name a placement.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for last in (1..primary.len()).rev() {
            primary.swap(last, below(&mut rng, last + 1));
        }
        Ok(Self::from_primaries(primary, workers))
    }
}

/// An index below `bound`: the high half of a 64 × 64 bit product, whose bias
/// (`bound / 2^64`) no number of draws would show.
fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}
