//! Hot sets: which experts are hot in a step, and how likely each expert is then.

use rand_chacha::ChaCha8Rng;

use crate::draw::systematic;

/// A hot set is one in this many experts, or k.
const ONE_IN: usize = 8;
/// Length of a certain choice; see [`systematic`].
pub(super) const PERIOD: u64 = 1 << 32;
/// Share of choices of a hot set that moves.
pub(super) const MOVING: f64 = 0.5;
/// Share of choices of a hot set that is there in bursts.
pub(super) const BURST: f64 = 0.8;

/// Experts that get more choices than others.
#[derive(Debug, Clone)]
pub(super) struct Heat {
    pub(super) top_k: usize,
    /// Experts in the order of the sets: the set of a phase is the `size` experts from the
    /// phase's place on, round and round.
    pub(super) order: Vec<u32>,
    /// Where the set of each phase begins in the order.
    pub(super) places: Vec<usize>,
    /// Experts of a set.
    pub(super) size: usize,
    /// Share of all choices that the set is to get.
    pub(super) share: f64,
    /// Steps of a phase; 0 for a single phase.
    pub(super) steps: u64,
    /// The sets of two phases have few experts in common, if any.
    pub(super) jumps: bool,
    /// What the set is, for the names of claims.
    pub(super) name: String,
}

/// Experts of a hot set that is not a rank.
pub(super) fn set_size(experts: usize, top_k: usize) -> usize {
    experts.div_ceil(ONE_IN).max(top_k).min(experts)
}

// === impl Heat ===

impl Heat {
    /// The phase of `step`, and the one before it.
    pub(super) fn phase(&self, step: u64) -> (usize, usize) {
        let phases = self.places.len() as u64;
        let phase = step.checked_div(self.steps).unwrap_or(0) % phases;
        (phase as usize, ((phase + phases - 1) % phases) as usize)
    }

    /// The hot experts of a phase.
    pub(super) fn set(&self, phase: usize) -> impl Iterator<Item = u32> + Clone {
        let round = self.order.iter().copied().cycle();
        round.skip(self.places[phase]).take(self.size)
    }

    /// How likely each expert is among a token's choices, in parts of [`PERIOD`], `[E]`. Where k
    /// distinct choices cannot give the set its share, it gets what they can.
    #[expect(clippy::cast_sign_loss, reason = "shares are not below 0")]
    pub(super) fn lengths(&self, phase: usize) -> Vec<u64> {
        let experts = self.order.len();
        let (hot, cold) = (self.size as u64, (experts - self.size) as u64);
        let total = self.top_k as u64 * PERIOD;
        let wanted = (self.share * total as f64) as u64;
        // No expert is chosen twice: nobody's length is above the period.
        let least = total.saturating_sub(cold * PERIOD);
        let of_hot = wanted.min(hot * PERIOD).max(least);
        // What does not divide evenly goes to the first ones.
        let part = |of: u64, by: u64, at: u64| of / by + u64::from(at < of % by);
        let mut lengths = vec![u64::MAX; experts];
        for (at, expert) in (0..).zip(self.set(phase)) {
            lengths[expert as usize] = part(of_hot, hot, at);
        }
        let others = lengths.iter_mut().filter(|length| **length == u64::MAX);
        for (at, length) in (0..).zip(others) {
            *length = part(total - of_hot, cold, at);
        }
        lengths
    }

    /// Appends `[tokens, k]` experts.
    pub(super) fn choose(
        &self,
        random: &mut ChaCha8Rng,
        step: u64,
        tokens: usize,
        chosen: &mut Vec<u32>,
    ) {
        let lengths = self.lengths(self.phase(step).0);
        let mut order = self.order.clone();
        order.sort_unstable();
        for _ in 0..tokens {
            systematic(random, &mut order, &lengths, PERIOD, chosen);
        }
    }
}
