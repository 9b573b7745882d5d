//! Messages on their way: ports as FIFO servers, latency, seeded noise.

use std::collections::BTreeMap;

use expertmesh_topology::{Fabric, Hop, Passage, Path, Port};

use crate::config::PortUse;
use crate::costs::whole;
use crate::standing::NoisyLine;

/// Ports and what passed them.
#[derive(Debug)]
pub(crate) struct Net<'a> {
    fabric: &'a Fabric,
    seed: u64,
    ports: Vec<Port>,
    uses: Vec<PortUse>,
    /// Times as long, by endpoint; empty if no link is slow.
    slow: Vec<f64>,
    /// The last hop of messages to each endpoint, from its own host and from others; `None` until
    /// one came, and where links are slow.
    last: Vec<[Option<Hop>; 2]>,
    /// Links that are late by chance, as earlier runs left them.
    lines: BTreeMap<(u32, u32), NoisyLine>,
}

/// A message, as the net sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parcel {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) bytes: u64,
    /// The first of its exchange from this sender to this peer.
    pub(crate) first: bool,
    /// Both are on one host.
    pub(crate) is_near: bool,
    /// It travels on the stream of requests, else on that of replies.
    pub(crate) is_request: bool,
}

// === impl Net ===

impl<'a> Net<'a> {
    pub(crate) fn new(
        fabric: &'a Fabric,
        slow: Vec<f64>,
        lines: BTreeMap<(u32, u32), NoisyLine>,
    ) -> Self {
        Self {
            fabric,
            seed: fabric.topology().seed,
            ports: vec![Port::default(); fabric.ports()],
            uses: vec![PortUse::default(); fabric.ports()],
            last: vec![[None; 2]; fabric.endpoints()],
            slow,
            lines,
        }
    }

    /// A message leaves its sender: when its first and last bit are at the receiver's port.
    pub(crate) fn leave(&mut self, parcel: Parcel, now_ns: u64) -> Passage {
        let mut path = self.path(parcel);
        if parcel.first {
            path.hops[0].hold_ns += path.per_peer_ns;
        }
        let noise_ns = self.noise_ns(&path, parcel);
        let (ports, uses) = (&mut self.ports, &mut self.uses);
        let mut at = path.leave(now_ns, parcel.bytes, noise_ns, |hop, window, bytes| {
            take(ports, uses, hop, window, bytes)
        });
        if let Some(last) = self.last_of(parcel) {
            at.begin_ns = at.begin_ns.max(last.begin_ns);
            last.begin_ns = at.begin_ns;
        }
        at
    }

    /// Its first bit is at the receiver's port: when its last bit is with the receiver.
    pub(crate) fn arrive(&mut self, parcel: Parcel, at: Passage) -> u64 {
        let known = [parcel.to as usize, usize::from(parcel.is_near)];
        let hop =
            self.last[known[0]][known[1]].or_else(|| self.path(parcel).hops().last().copied());
        let Some(hop) = hop else {
            return at.end_ns;
        };
        if self.slow.is_empty() {
            self.last[known[0]][known[1]] = Some(hop);
        }
        let mut end_ns = take(&mut self.ports, &mut self.uses, hop, at, parcel.bytes).end_ns;
        if let Some(last) = self.last_of(parcel) {
            end_ns = end_ns.max(last.end_ns);
            last.end_ns = end_ns;
        }
        end_ns
    }

    /// Whether two endpoints are on one host: the last hop depends on nothing else.
    pub(crate) fn is_near(&self, from: u32, to: u32) -> bool {
        self.fabric.host_of(from) == self.fabric.host_of(to)
    }

    /// How long a short notice takes, ports aside.
    pub(crate) fn latency_ns(&self, from: u32, to: u32) -> u64 {
        self.fabric.path(from, to).latency_ns
    }

    pub(crate) fn take_lines(&mut self) -> BTreeMap<(u32, u32), NoisyLine> {
        std::mem::take(&mut self.lines)
    }

    pub(crate) fn take_uses(&mut self) -> Vec<PortUse> {
        std::mem::take(&mut self.uses)
    }

    #[inline]
    fn path(&self, parcel: Parcel) -> Path {
        let path = self.fabric.path(parcel.from, parcel.to);
        match self.slow.is_empty() {
            true => path,
            false => self.slow_path(path, parcel),
        }
    }

    /// Their own ports take longer: what lies between belongs to others, too.
    #[cold]
    fn slow_path(&self, mut path: Path, parcel: Parcel) -> Path {
        let len = path.hops().len();
        if let Some(hop) = path.hops.first_mut() {
            hop.bytes_per_ns /= self.slow[parcel.from as usize];
        }
        if let Some(hop) = path.hops[..len].last_mut() {
            hop.bytes_per_ns /= self.slow[parcel.to as usize];
        }
        path
    }

    fn noise_ns(&mut self, path: &Path, parcel: Parcel) -> u64 {
        if path.jitter_ns == 0 && path.loss <= 0.0 {
            return 0;
        }
        let Parcel {
            from, to, bytes, ..
        } = parcel;
        let line = self.lines.entry((from, to)).or_default();
        let noise = path.noise_ns(self.seed, from, to, line.number, bytes);
        line.number += 1;
        noise
    }

    /// What came before on the same stream, if its link is late by chance; on others messages keep
    /// their order by themselves.
    fn last_of(&mut self, parcel: Parcel) -> Option<&mut Passage> {
        if self.lines.is_empty() {
            return None;
        }
        let line = self.lines.get_mut(&(parcel.from, parcel.to))?;
        Some(&mut line.last[usize::from(parcel.is_request)])
    }
}

fn take(
    ports: &mut [Port],
    uses: &mut [PortUse],
    hop: Hop,
    window: Passage,
    bytes: u64,
) -> Passage {
    let at = hop.port.index();
    let passed = ports[at].take(window.begin_ns, window.end_ns, bytes, hop);
    let one = &mut uses[at];
    one.bytes += bytes;
    one.busy_ns += ports[at].free_ns - passed.begin_ns + hop.hold_ns;
    one.queued_ns += passed.begin_ns - hop.hold_ns - window.begin_ns;
    passed
}

/// `ns` so many times as long.
pub(crate) fn slowed(ns: u64, factor: f64) -> u64 {
    if factor == 1.0 {
        return ns;
    }
    whole(crate::costs::float(ns) * factor)
}
