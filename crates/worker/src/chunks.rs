//! What became of the chunks of the last steps, for whoever draws them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use expertmesh_exchange::{ChunkWay, HomeRun};
use expertmesh_wire::v1;

/// Steps that are remembered: a coordinator asks right after its step, of which others may be under
/// way.
const STEPS: usize = 16;

/// Ways of chunks by step, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    steps: Mutex<VecDeque<(u64, Vec<ChunkWay>)>>,
}

// === impl Chunks ===

impl Chunks {
    /// Remembers a step that has ended.
    pub(crate) fn keep(&self, step: u64, run: &HomeRun) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        // The memory of the oldest step serves the newest.
        let mut ways = match steps.len() {
            STEPS => steps.pop_front().map_or_else(Vec::new, |(_, ways)| ways),
            _ => Vec::new(),
        };
        ways.clear();
        ways.extend(run.ways());
        steps.push_back((step, ways));
    }

    /// The ways of a step; empty if it is not remembered.
    pub(crate) fn of(&self, step: u64) -> Vec<v1::ChunkWay> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let found = steps.iter().find(|(one, _)| *one == step);
        let ways = found.into_iter().flat_map(|(_, ways)| ways);
        ways.map(ChunkWay::to_wire).collect()
    }
}
