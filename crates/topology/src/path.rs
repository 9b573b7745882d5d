//! The way of a message between two endpoints.

use crate::noise::{jitter_ns, retransmission_ns};
use crate::port::{Passage, transfer_ns};

/// A port of a [`crate::Fabric`], numbered from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u32);

/// How far two endpoints are apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The same endpoint: nothing is sent.
    #[default]
    SelfSame,
    /// Two endpoints of one host.
    Host,
    /// Two hosts of a rack.
    Rack,
    /// Two racks.
    Spine,
}

/// A port on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Hop {
    /// Which one.
    pub port: PortId,
    /// Its rate.
    pub bytes_per_ns: f64,
    /// Time that a message holds it before its first bit leaves: the overhead of a message at its
    /// sender, 0 at the other ports.
    pub hold_ns: u64,
}

/// From one endpoint to another.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Path {
    /// How far.
    pub tier: Tier,
    /// Ports in the order of passage; see [`Self::hops`].
    pub hops: [Hop; 4],
    /// Ports that there are: 0 for an endpoint to itself.
    pub len: u8,
    /// Of the whole way, spent before the last port.
    pub latency_ns: u64,
    /// Largest jitter.
    pub jitter_ns: u64,
    /// Share of packets lost.
    pub loss: f64,
    /// Overhead of a message at the sender's port, which the first hop holds too.
    pub per_message_ns: u64,
    /// Cost of the peer once in an exchange, for cost models.
    pub per_peer_ns: u64,
}

// === impl PortId ===

impl PortId {
    /// The number as an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

// === impl Tier ===

impl Tier {
    /// The name in files, tables and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SelfSame => "self",
            Self::Host => "host",
            Self::Rack => "rack",
            Self::Spine => "spine",
        }
    }
}

// === impl Path ===

impl Path {
    /// The ports: the sender's, a rack's uplink and another's downlink or a link of the pair's own,
    /// the receiver's.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        self.hops.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Rate of the slowest port, in bytes per nanosecond; infinite for an endpoint to itself.
    #[must_use]
    pub fn bytes_per_ns(&self) -> f64 {
        let rates = self.hops().iter().map(|hop| hop.bytes_per_ns);
        rates.fold(f64::INFINITY, f64::min)
    }

    /// What a message of `bytes` bytes takes while nobody else sends: latency + overhead + bytes /
    /// rate, without jitter and loss.
    #[must_use]
    pub fn idle_ns(&self, bytes: u64) -> u64 {
        self.latency_ns + self.per_message_ns + transfer_ns(bytes, self.bytes_per_ns())
    }

    /// What message `number` from `from` to `to` is late by: jitter and resent packets, on top of the
    /// latency. A round trip, which a resent packet waits for, is twice the latency.
    #[must_use]
    pub fn noise_ns(&self, seed: u64, from: u32, to: u32, number: u64, bytes: u64) -> u64 {
        let rtt_ns = 2 * self.latency_ns;
        let resent = retransmission_ns(seed, from, to, number, bytes, self.loss, rtt_ns);
        resent + jitter_ns(seed, from, to, number, self.jitter_ns)
    }

    /// Passes every port but the receiver's, and the latency: when the bits are at the receiver's
    /// port. The message is ready to leave at `ready_ns`; `take` passes one port.
    pub fn leave(
        &self,
        ready_ns: u64,
        bytes: u64,
        noise_ns: u64,
        mut take: impl FnMut(Hop, Passage, u64) -> Passage,
    ) -> Passage {
        let mut at = Passage {
            begin_ns: ready_ns,
            end_ns: ready_ns,
        };
        if let Some((_, before)) = self.hops().split_last() {
            for hop in before {
                at = take(*hop, at, bytes);
            }
        }
        let way = self.latency_ns.saturating_add(noise_ns);
        Passage {
            begin_ns: at.begin_ns.saturating_add(way),
            end_ns: at.end_ns.saturating_add(way),
        }
    }

    /// Passes the receiver's port; `at` is what [`Self::leave`] gave.
    pub fn arrive(
        &self,
        at: Passage,
        bytes: u64,
        mut take: impl FnMut(Hop, Passage, u64) -> Passage,
    ) -> Passage {
        match self.hops().last() {
            Some(hop) => take(*hop, at, bytes),
            None => at,
        }
    }

    /// The whole way at once, for who sees all ports in one place and one order.
    pub fn carry(
        &self,
        ready_ns: u64,
        bytes: u64,
        noise_ns: u64,
        mut take: impl FnMut(Hop, Passage, u64) -> Passage,
    ) -> Passage {
        let at = self.leave(ready_ns, bytes, noise_ns, &mut take);
        self.arrive(at, bytes, take)
    }
}
