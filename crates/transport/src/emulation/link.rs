//! One pair of endpoints: how they agree on being emulated, and the stamp of a message.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use expertmesh_topology::{Passage, Path};
use expertmesh_wire::{ErrorCode, GRPC_PREFIX, RemoteError};
use http::{HeaderMap, HeaderValue};

use crate::emulation::line::Line;
use crate::emulation::{Emulation, Net};
use crate::error::TransportError;
use crate::watchdog::monotonic_ns;

/// Metadata of a stream on an emulated link, in requests and in replies: shaping, the sender's
/// endpoint, the network's number and the kernel, separated by spaces.
const HEADER: &str = "expertmesh-emulation";

/// What a link does to the messages of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shaping {
    /// Everything that the topology says.
    Full,
    /// The same without jitter and loss: for probes of latency and rate.
    Quiet,
    /// Nothing: for probes of the machine below.
    Bare,
}

/// This endpoint's end of an emulated link.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    net: Arc<Net>,
    peer: u32,
    shaping: Shaping,
}

/// What a sender tells the receiver about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When its bits leave the sender's port.
    pub(crate) left: Passage,
    /// Jitter and resent packets.
    pub(crate) noise_ns: u64,
}

/// Bytes of a stamp, without the prefix that it has as a message.
const STAMP: usize = 24;

// === impl Shaping ===

impl Shaping {
    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Quiet => "quiet",
            Self::Bare => "bare",
        }
    }

    fn read(name: &str) -> Option<Self> {
        let all = [Self::Full, Self::Quiet, Self::Bare];
        all.into_iter().find(|one| one.name() == name)
    }
}

// === impl Link ===

impl Link {
    pub(crate) fn shaping(&self) -> Shaping {
        self.shaping
    }

    /// Whether its two ends make it slow; a switch between them does otherwise.
    pub(crate) fn is_shaped_here(&self) -> bool {
        !self.net.is_switched
    }

    /// Takes this endpoint's port for a message of `bytes` bytes, prefix included, that is ready
    /// now. The stamp is a message of its own, framed as gRPC has it, so that a stream stays one.
    pub(crate) fn stamp(&self, bytes: usize) -> Bytes {
        let stamp = self.leave(bytes as u64, monotonic_ns());
        let mut framed = BytesMut::with_capacity(GRPC_PREFIX + STAMP);
        framed.put_u8(0);
        framed.put_u32(STAMP as u32);
        framed.put_u64_le(stamp.left.begin_ns);
        framed.put_u64_le(stamp.left.end_ns);
        framed.put_u64_le(stamp.noise_ns);
        framed.freeze()
    }

    fn leave(&self, bytes: u64, ready_ns: u64) -> Stamp {
        let (net, me) = (&self.net, self.net.me);
        let mut left = Passage {
            begin_ns: ready_ns,
            end_ns: ready_ns,
        };
        let path = self.path(me, self.peer);
        if let Some(hop) = path.hops().first() {
            left = net.take(*hop, left, bytes);
        }
        let mut noise_ns = 0;
        if self.shaping == Shaping::Full {
            let counter = net.numbers.get(self.peer as usize);
            let number = counter.map_or(0, |count| count.fetch_add(1, Ordering::Relaxed));
            let seed = net.fabric.topology().seed;
            noise_ns = path.noise_ns(seed, me, self.peer, number, bytes);
        }
        Stamp { left, noise_ns }
    }

    /// The delay line of what arrives.
    ///
    /// # Errors
    /// [`TransportError::Emulation`] if the system gives no timer.
    pub(crate) fn line(&self) -> Result<Line, TransportError> {
        let path = self.path(self.peer, self.net.me);
        Line::new(Arc::clone(&self.net), path)
    }

    fn path(&self, from: u32, to: u32) -> Path {
        match self.shaping {
            Shaping::Full | Shaping::Quiet => self.net.path(from, to),
            Shaping::Bare => Path::default(),
        }
    }
}

// === impl Stamp ===

impl Stamp {
    pub(crate) fn read(mut message: Bytes) -> Result<Self, RemoteError> {
        if message.len() != STAMP {
            let held = message.len();
            return Err(RemoteError::new(
                ErrorCode::BadFrame,
                format!("stamp of an emulated link holds {held} bytes, expected {STAMP}"),
            ));
        }
        Ok(Self {
            left: Passage {
                begin_ns: message.get_u64_le(),
                end_ns: message.get_u64_le(),
            },
            noise_ns: message.get_u64_le(),
        })
    }
}

/// Says that this end emulates its links.
pub(crate) fn write_hello(
    emulation: Option<&Emulation>,
    shaping: Shaping,
    headers: &mut HeaderMap,
) {
    let Some(Emulation { net }) = emulation else {
        return;
    };
    let (name, me, number, boot) = (shaping.name(), net.me, net.number(), &net.boot);
    if let Ok(value) = HeaderValue::try_from(format!("{name} {me} {number:x} {boot}")) {
        headers.insert(HEADER, value);
    }
}

/// The link to whoever sent `headers`, for a server; `None` where neither end emulates.
///
/// # Errors
/// What [`link`] says, as an error of the caller's.
pub(crate) fn link_of_caller(
    emulation: Option<&Emulation>,
    headers: &HeaderMap,
) -> Result<Option<Link>, RemoteError> {
    link(emulation, headers)
        .map_err(|reason| RemoteError::invalid(format!("links cannot be emulated: {reason}")))
}

/// The link to the server at `addr` that answered with `headers`.
///
/// # Errors
/// [`TransportError::Emulation`] with what [`link`] says.
pub(crate) fn link_of_reply(
    emulation: Option<&Emulation>,
    addr: &str,
    headers: &HeaderMap,
    shaping: Shaping,
) -> Result<Option<Link>, TransportError> {
    let link = link(emulation, headers).map_err(|reason| TransportError::Emulation {
        reason: format!("{reason} ({addr})"),
    })?;
    Ok(link.map(|link| Link { shaping, ..link }))
}

/// Both ends emulate the same network on the same machine, or neither does.
fn link(emulation: Option<&Emulation>, headers: &HeaderMap) -> Result<Option<Link>, String> {
    let said = headers.get(HEADER);
    let (net, said) = match (emulation, said) {
        (None, None) => return Ok(None),
        (Some(_), None) | (None, Some(_)) => {
            return Err(
                "one end has links of a topology and the other has real ones; start both with the \
                 same topology"
                    .to_owned(),
            );
        }
        (Some(Emulation { net }), Some(said)) => (net, said),
    };
    let words: Vec<&str> = said.to_str().unwrap_or_default().split(' ').collect();
    let read = || {
        let [shaping, peer, number, boot] = words.as_slice() else {
            return None;
        };
        let number = u64::from_str_radix(number, 16).ok()?;
        Some((Shaping::read(shaping)?, peer.parse().ok()?, number, *boot))
    };
    let Some((shaping, peer, number, boot)) = read() else {
        let expected = "shaping, endpoint, network and kernel";
        return Err(format!(
            "metadata `{HEADER}` holds {said:?}, expected {expected}"
        ));
    };
    if net.boot.is_empty() || boot != net.boot {
        return Err(
            "the peer runs on another machine, expected one whose clock and memory are shared"
                .to_owned(),
        );
    }
    if number != net.number() {
        let ours = net.number();
        return Err(format!(
            "the peer is in network {number:x}, expected {ours:x}"
        ));
    }
    if peer as usize >= net.fabric.endpoints() || peer == net.me {
        let endpoints = net.fabric.endpoints();
        return Err(format!(
            "the peer is endpoint {peer}, expected another of {endpoints}"
        ));
    }
    Ok(Some(Link {
        net: Arc::clone(net),
        peer,
        shaping,
    }))
}
