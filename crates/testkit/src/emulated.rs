//! An emulated network between endpoints of one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use expertmesh_topology::{Fabric, Topology};
use expertmesh_transport::{Emulation, LinkOptions, PortWords};

/// Links of a topology between a coordinator and its workers.
///
/// Every endpoint has [`LinkOptions`] of its own; they share the state of the ports, as processes
/// do through mapped memory.
#[derive(Clone)]
pub struct EmulatedNetwork {
    fabric: Fabric,
    words: PortWords,
}

/// Tells the networks of this process apart.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

// === impl EmulatedNetwork ===

impl EmulatedNetwork {
    /// A network of its own for `workers` workers.
    ///
    /// # Panics
    /// If the topology has no room for them.
    pub fn new(topology: &Topology, workers: usize) -> Self {
        let fabric = Fabric::new(topology, workers).expect("room for all workers");
        let words: Vec<AtomicU64> = (0..Emulation::words_for(&fabric))
            .map(|_| AtomicU64::new(0))
            .collect();
        words[0].store(NUMBERS.fetch_add(1, Ordering::Relaxed), Ordering::Release);
        Self {
            fabric,
            words: Arc::new(words),
        }
    }

    /// Links of `endpoint`: 0 is the coordinator, worker `w` is `w + 1`.
    ///
    /// # Panics
    /// For an endpoint that the network does not have, or a link that cannot be emulated.
    pub fn options(&self, endpoint: u32) -> LinkOptions {
        let words = Arc::clone(&self.words);
        let emulation = Emulation::new(self.fabric.clone(), endpoint, words);
        LinkOptions {
            emulation: Some(emulation.expect("an endpoint of the network")),
            ..LinkOptions::default()
        }
    }

    /// The shortest time that a message takes between any two endpoints, ns.
    pub fn least_ns(&self) -> u64 {
        let ids = 0..self.fabric.endpoints() as u32;
        let pairs = ids
            .clone()
            .flat_map(|from| ids.clone().map(move |to| (from, to)));
        let ways = pairs.filter(|(from, to)| from != to);
        ways.map(|(from, to)| self.fabric.path(from, to).idle_ns(1))
            .min()
            .unwrap_or(0)
    }
}
