//! What a cluster carries from one run to the next.

use std::collections::BTreeMap;

use expertmesh_exchange::LossCause;
use expertmesh_topology::Passage;

use crate::config::Failure;
use crate::run::Scratch;

/// What earlier runs left: who is lost, which faults came true, how far each noisy link is.
#[derive(Debug, Default)]
pub struct Standing {
    /// What the coordinator knows of its workers, by endpoint id; shorter where nobody was lost.
    pub(crate) down: Vec<Option<LossCause>>,
    /// By number of the fault, whether it came true.
    pub(crate) happened: Vec<bool>,
    /// By endpoint id, when and how its machine failed, whoever knows of it.
    pub(crate) failed: Vec<Option<Failed>>,
    /// Links with jitter or loss, by sender and receiver.
    pub(crate) lines: BTreeMap<(u32, u32), NoisyLine>,
    /// Memory, so that each run need not take its own.
    pub(crate) scratch: Scratch,
}

/// A machine that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed {
    pub(crate) at_ns: u64,
    pub(crate) how: Failure,
}

/// A link whose messages are late by chance.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NoisyLine {
    /// Messages so far: their numbers seed what is random.
    pub(crate) number: u64,
    /// Of requests and of replies, which are streams of their own, the last message at the
    /// receiver's port and behind it: later ones are not earlier.
    pub(crate) last: [Passage; 2],
}

// === impl Standing ===

impl Standing {
    /// Why a worker is down.
    pub fn down(&self, endpoint: u32) -> Option<&LossCause> {
        self.down.get(endpoint as usize)?.as_ref()
    }

    /// Whether the fault at `at` in the configuration came true.
    pub fn happened(&self, at: usize) -> bool {
        self.happened.get(at).copied().unwrap_or(false)
    }

    /// The same for a cluster of so many endpoints and faults.
    pub(crate) fn sized(mut self, endpoints: usize, faults: usize) -> Self {
        self.down.resize(endpoints, None);
        self.happened.resize(faults, false);
        self.failed.resize(endpoints, None);
        // Nothing is on its way when a run begins, as its ports are free.
        self.lines
            .values_mut()
            .for_each(|line| line.last = Default::default());
        self
    }
}
