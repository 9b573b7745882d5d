//! Packets between endpoints: on their way through the ports of a topology, or lost.
//!
//! What `line` does to the messages of one stream, for all pairs in one place and for packets: a
//! packet takes each port when its first bit is there, whoever sent it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use expertmesh_topology::{Passage, Path, is_lost, jitter_ns};

use crate::emulation::{Net, Shaping};

/// Everything that is under way.
pub(super) struct Packets {
    net: Arc<Net>,
    /// By sender and receiver.
    pairs: BTreeMap<(u32, u32), Pair>,
    coming: BinaryHeap<Reverse<Event>>,
    /// Events so far: of two at one moment the older one is first.
    born: u64,
}

struct Pair {
    path: Path,
    /// Packets so far: their numbers draw jitter and loss.
    number: u64,
    /// The last arrival at the receiver's port, and the last delivery: a pair's packets keep their
    /// order, whatever jitter says.
    last: Passage,
}

/// A packet at a port, or behind the last one.
#[derive(PartialEq, Eq)]
struct Event {
    at_ns: u64,
    born: u64,
    packet: Packet,
}

#[derive(PartialEq, Eq)]
struct Packet {
    between: (u32, u32),
    bytes: Vec<u8>,
    /// Ports that it has passed.
    passed: usize,
    /// When its bits are at the next port, or behind the last one.
    at: Passage,
    noise_ns: u64,
}

// === impl Packets ===

impl Packets {
    pub(super) fn new(net: Arc<Net>) -> Self {
        Self {
            net,
            pairs: BTreeMap::new(),
            coming: BinaryHeap::new(),
            born: 0,
        }
    }

    /// Takes the sender's port for a packet that leaves at `now_ns`. A packet that gets lost takes it
    /// too.
    pub(super) fn push(&mut self, now_ns: u64, from: u32, to: u32, bytes: Vec<u8>, as_if: Shaping) {
        let net = &self.net;
        let pair = self.pairs.entry((from, to)).or_insert_with(|| Pair {
            path: net.path(from, to),
            number: 0,
            last: Passage::default(),
        });
        let mut packet = Packet {
            between: (from, to),
            bytes,
            passed: pair.path.hops().len(),
            at: Passage {
                begin_ns: now_ns,
                end_ns: now_ns,
            },
            noise_ns: 0,
        };
        if as_if == Shaping::Bare || packet.passed == 0 {
            return self.wait(now_ns, packet);
        }
        packet.passed = 0;
        let hop = pair.path.hops()[0];
        packet.at = net.take(hop, packet.at, packet.bytes.len() as u64);
        packet.passed = 1;
        if as_if == Shaping::Full {
            let (seed, number) = (net.fabric.topology().seed, pair.number);
            pair.number += 1;
            if is_lost(seed, from, to, number, pair.path.loss) {
                return;
            }
            packet.noise_ns = jitter_ns(seed, from, to, number, pair.path.jitter_ns);
        }
        self.travel(packet);
    }

    /// When something happens next.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.coming.peek().map(|Reverse(event)| event.at_ns)
    }

    /// The next packet that is there at `now_ns`, and whose it is.
    pub(super) fn pop_due(&mut self, now_ns: u64) -> Option<(u32, Vec<u8>)> {
        while self.next_ns().is_some_and(|at_ns| at_ns <= now_ns) {
            let Some(Reverse(Event { mut packet, .. })) = self.coming.pop() else {
                break;
            };
            let hops = self.pairs.get(&packet.between).map(|pair| pair.path);
            let hop = hops.and_then(|path| path.hops().get(packet.passed).copied());
            let Some(hop) = hop else {
                return Some((packet.between.1, packet.bytes));
            };
            packet.at = self.net.take(hop, packet.at, packet.bytes.len() as u64);
            packet.passed += 1;
            self.travel(packet);
        }
        None
    }

    /// Adds what lies behind the port that was passed last: the latency before the receiver's port,
    /// and the order of the pair.
    fn travel(&mut self, mut packet: Packet) {
        let Some(pair) = self.pairs.get_mut(&packet.between) else {
            return;
        };
        let all = pair.path.hops().len();
        if packet.passed + 1 == all {
            let way = pair.path.latency_ns.saturating_add(packet.noise_ns);
            let begin_ns = packet.at.begin_ns.saturating_add(way);
            packet.at.begin_ns = begin_ns.max(pair.last.begin_ns);
            packet.at.end_ns = packet.at.end_ns.saturating_add(way);
            pair.last.begin_ns = packet.at.begin_ns;
        }
        let at_ns = if packet.passed < all {
            packet.at.begin_ns
        } else {
            pair.last.end_ns = packet.at.end_ns.max(pair.last.end_ns);
            pair.last.end_ns
        };
        self.wait(at_ns, packet);
    }

    fn wait(&mut self, at_ns: u64, packet: Packet) {
        let born = self.born;
        self.born += 1;
        self.coming.push(Reverse(Event {
            at_ns,
            born,
            packet,
        }));
    }
}

// === impl Event ===

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.born).cmp(&(other.at_ns, other.born))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
