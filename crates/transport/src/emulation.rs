//! Emulated links: streams between processes of one machine that take the time of a topology.
//!
//! Reading order: [`Emulation`], what a process knows of the emulated network; `link`, one pair of
//! endpoints; `line`, what a receiver holds back; `timer`, waiting to the microsecond; `probe`. Where
//! the processes sit in networks of their own, `switch` shapes the links instead, packet by packet
//! (`packets`).
//!
//! The processes share a clock and the state of every port, so time on emulated links **replaces**
//! time on the loopback: the sender takes its port when it is handed a message and sends the bytes at
//! once with a stamp; the receiver takes the other ports at the moments when the bits would be there,
//! and delivers when the last one would be. A message that the machine itself brings later than that
//! is delivered when it comes. `docs/topology.md` has the whole story and its limits.

mod line;
mod link;
mod packets;
mod probe;
mod switch;
mod timer;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use expertmesh_topology::{Fabric, Hop, Passage, Path, Port, Tier};

pub(crate) use crate::emulation::line::{Line, due};
pub(crate) use crate::emulation::link::{
    Link, Shaping, link_of_caller, link_of_reply, write_hello,
};
pub(crate) use crate::emulation::probe::ProbeSink;
pub use crate::emulation::probe::{OneWay, ProbePlan, Probed, probe, probe_between};
pub use crate::emulation::switch::{Switch, SwitchShaping};

use crate::error::TransportError;
use crate::watchdog::boot_id;

/// Words that every process of a cluster sees: the network's number, then when each port is free.
///
/// Between processes it is mapped memory, which this crate leaves to its callers; within one process
/// a vector will do.
pub type PortWords = Arc<dyn AsRef<[AtomicU64]> + Send + Sync>;

/// What one endpoint knows of an emulated network. Clones are the same endpoint.
#[derive(Clone)]
pub struct Emulation {
    net: Arc<Net>,
}

pub(crate) struct Net {
    fabric: Fabric,
    me: u32,
    boot: String,
    words: PortWords,
    /// Messages sent so far, by destination: their numbers seed jitter and loss.
    numbers: Vec<AtomicU64>,
    dilation: f64,
    /// Whether a [`Switch`] shapes the links.
    is_switched: bool,
}

/// The word that holds the network's number; ports follow.
const NUMBER: usize = 0;

// === impl Emulation ===

impl Emulation {
    /// Words that the ports of `fabric` need.
    pub fn words_for(fabric: &Fabric) -> usize {
        fabric.ports() + 1
    }

    /// The network of `fabric` as `endpoint` sees it. `words` are shared by all of its endpoints,
    /// zero but for the first, which holds a number that tells this network from others.
    ///
    /// # Errors
    /// [`TransportError::Emulation`]: an endpoint that the fabric does not have, too few words, no
    /// number, or a link with a cost per peer, which only a cost model can charge.
    pub fn new(fabric: Fabric, endpoint: u32, words: PortWords) -> Result<Self, TransportError> {
        let refuse = |reason: String| Err(TransportError::Emulation { reason });
        let endpoints = fabric.endpoints();
        if endpoint as usize >= endpoints {
            return refuse(format!(
                "endpoint is {endpoint}, expected one of the fabric's {endpoints}"
            ));
        }
        let (held, needed) = ((*words).as_ref().len(), Self::words_for(&fabric));
        if held < needed {
            return refuse(format!("{held} shared words, expected {needed}"));
        }
        if (*words).as_ref()[NUMBER].load(Ordering::Acquire) == 0 {
            return refuse("the shared words have no number, expected one in the first".to_owned());
        }
        if fabric.topology().tiers.has_per_peer() {
            return refuse(
                "`per_peer` is a cost of whole exchanges, which links do not see; expected \
                 `per_message`"
                    .to_owned(),
            );
        }
        let numbers = (0..endpoints).map(|_| AtomicU64::new(0)).collect();
        Ok(Self {
            net: Arc::new(Net {
                fabric,
                me: endpoint,
                boot: boot_id(),
                words,
                numbers,
                dilation: 1.0,
                is_switched: false,
            }),
        })
    }

    /// The same where the fabric's time is stretched by `dilation`, for those who stretch theirs.
    #[must_use]
    pub fn dilated(self, dilation: f64) -> Self {
        Self {
            net: Arc::new(Net {
                dilation,
                ..self.net.fresh()
            }),
        }
    }

    /// The same where a [`Switch`] shapes the links: streams then leave messages as they are, and
    /// still make sure that both ends are in one network.
    #[must_use]
    pub fn switched(self) -> Self {
        Self {
            net: Arc::new(Net {
                is_switched: true,
                ..self.net.fresh()
            }),
        }
    }

    /// How many times longer everything takes than the topology's file says; 1 in real time.
    pub fn dilation(&self) -> f64 {
        self.net.dilation
    }

    /// The endpoint that this process is.
    pub fn endpoint(&self) -> u32 {
        self.net.me
    }

    /// What lies between two endpoints. A path without ports is the machine's own: inside of a host
    /// whose links the topology does not describe, unless time is stretched.
    pub fn path(&self, from: u32, to: u32) -> Path {
        self.net.path(from, to)
    }

    /// Hosts, ports and paths.
    pub fn fabric(&self) -> &Fabric {
        &self.net.fabric
    }
}

impl fmt::Debug for Emulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulation")
            .field("endpoint", &self.net.me)
            .field("topology", &self.net.fabric.topology().name)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Emulation {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.net, &other.net)
    }
}

impl Eq for Emulation {}

// === impl Net ===

impl Net {
    /// Takes a port in the memory that all processes share.
    fn take(&self, hop: Hop, at: Passage, bytes: u64) -> Passage {
        let words: &[AtomicU64] = (*self.words).as_ref();
        let Some(word) = words.get(1 + hop.port.index()) else {
            return at;
        };
        let mut held = word.load(Ordering::Acquire);
        loop {
            let mut port = Port { free_ns: held };
            let passage = port.take(at.begin_ns, at.end_ns, bytes, hop);
            let (order, failed) = (Ordering::AcqRel, Ordering::Acquire);
            match word.compare_exchange_weak(held, port.free_ns, order, failed) {
                Ok(_) => return passage,
                Err(now) => held = now,
            }
        }
    }

    fn path(&self, from: u32, to: u32) -> Path {
        let path = self.fabric.path(from, to);
        let is_own = self.fabric.topology().tiers.host_is_usual && self.dilation <= 1.0;
        match path.tier {
            Tier::Host if is_own => Path::default(),
            _ => path,
        }
    }

    /// The same before its first message.
    fn fresh(&self) -> Self {
        Self {
            fabric: self.fabric.clone(),
            me: self.me,
            boot: self.boot.clone(),
            words: Arc::clone(&self.words),
            numbers: self.numbers.iter().map(|_| AtomicU64::new(0)).collect(),
            dilation: self.dilation,
            is_switched: self.is_switched,
        }
    }

    fn number(&self) -> u64 {
        let words: &[AtomicU64] = (*self.words).as_ref();
        words.first().map_or(0, |word| word.load(Ordering::Acquire))
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}
