//! The delay line of one stream: messages that are here already, and not yet there.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use expertmesh_topology::{Passage, Path};
use expertmesh_wire::{GRPC_PREFIX, RemoteError};

use crate::emulation::Net;
use crate::emulation::link::Stamp;
use crate::emulation::timer::Timer;
use crate::error::TransportError;
use crate::watchdog::monotonic_ns;

/// Holds messages until their last bit is there; in the order of the stream, whatever jitter says.
pub(crate) struct Line {
    net: Arc<Net>,
    path: Path,
    queue: VecDeque<Delayed>,
    /// The stamp whose message comes next.
    stamp: Option<Stamp>,
    /// The last arrival at the receiver's port, and the last delivery: later messages are not earlier.
    last: Passage,
    timer: Timer,
}

struct Delayed {
    message: Bytes,
    bytes: u64,
    /// Ports that it has passed.
    passed: usize,
    /// When its bits are at the next port, or behind the last one.
    at: Passage,
    noise_ns: u64,
}

/// Waits until `line` has something to do; forever if there is nothing.
pub(crate) async fn due(line: Option<&mut Line>) {
    match line.and_then(|line| Some((line.next_ns()?, &mut line.timer))) {
        Some((next_ns, timer)) => timer.until(next_ns).await,
        None => std::future::pending().await,
    }
}

// === impl Line ===

impl Line {
    /// # Errors
    /// [`TransportError::Emulation`] if the system gives no timer.
    pub(super) fn new(net: Arc<Net>, path: Path) -> Result<Self, TransportError> {
        let timer = Timer::new().map_err(|error| TransportError::Emulation {
            reason: format!("the system gives no timer: {error}"),
        })?;
        Ok(Self {
            net,
            path,
            queue: VecDeque::new(),
            stamp: None,
            last: Passage::default(),
            timer,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether a stamp waits for its message.
    pub(crate) fn is_midway(&self) -> bool {
        self.stamp.is_some()
    }

    /// Takes what the stream brought: a stamp, or the message behind it.
    ///
    /// # Errors
    /// `BadFrame` for something else than a stamp where one is due.
    pub(crate) fn push(&mut self, message: Bytes) -> Result<(), RemoteError> {
        let Some(stamp) = self.stamp.take() else {
            self.stamp = Some(Stamp::read(message)?);
            return Ok(());
        };
        let bytes = (GRPC_PREFIX + message.len()) as u64;
        let passed = usize::from(!self.path.hops().is_empty());
        let mut delayed = Delayed {
            message,
            bytes,
            passed,
            at: stamp.left,
            noise_ns: stamp.noise_ns,
        };
        self.travel(&mut delayed);
        self.queue.push_back(delayed);
        Ok(())
    }

    /// The next message whose last bit is there.
    pub(crate) fn pop_due(&mut self) -> Option<Bytes> {
        let now = monotonic_ns();
        self.advance(now);
        let all = self.path.hops().len();
        let front = self.queue.front()?;
        if front.passed < all || front.at.end_ns > now {
            return None;
        }
        self.queue.pop_front().map(|front| front.message)
    }

    /// Takes ports for every message whose first bit has come to one. Not before: whoever is there
    /// first is served first, and a message on a long way must not hold up one on a short way.
    fn advance(&mut self, now: u64) {
        let all = self.path.hops().len();
        let mut queue = std::mem::take(&mut self.queue);
        for delayed in &mut queue {
            while delayed.passed < all && delayed.at.begin_ns <= now {
                let hop = self.path.hops()[delayed.passed];
                delayed.at = self.net.take(hop, delayed.at, delayed.bytes);
                delayed.passed += 1;
                self.travel(delayed);
            }
        }
        self.queue = queue;
    }

    /// Adds what lies behind the port that was passed last: the latency before the receiver's port,
    /// and the order of the stream.
    fn travel(&mut self, delayed: &mut Delayed) {
        let all = self.path.hops().len();
        if delayed.passed + 1 == all {
            let way = self.path.latency_ns.saturating_add(delayed.noise_ns);
            delayed.at.begin_ns = delayed
                .at
                .begin_ns
                .saturating_add(way)
                .max(self.last.begin_ns);
            delayed.at.end_ns = delayed.at.end_ns.saturating_add(way);
            self.last.begin_ns = delayed.at.begin_ns;
        } else if delayed.passed == all {
            delayed.at.end_ns = delayed.at.end_ns.max(self.last.end_ns);
            self.last.end_ns = delayed.at.end_ns;
        }
    }

    /// When there is something to do: a first bit at a port, or the last bit of the front message.
    fn next_ns(&self) -> Option<u64> {
        let all = self.path.hops().len();
        let ports = self.queue.iter().filter(|one| one.passed < all);
        let port = ports.map(|one| one.at.begin_ns).min();
        let front = self.queue.front().filter(|front| front.passed == all);
        [port, front.map(|front| front.at.end_ns)]
            .into_iter()
            .flatten()
            .min()
    }
}
