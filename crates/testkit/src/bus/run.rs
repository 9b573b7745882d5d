//! A step on the bus: what may happen next, and the draw.

use std::collections::BTreeMap;

use bytes::Bytes;
use expertmesh_exchange::{COORDINATOR, StepError};
use expertmesh_routing::{OverflowLedger, Route};
use expertmesh_wire::{BufferPool, FrameKind, FrameView};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::bus::front::Front;
use crate::bus::peer::{Peer, Status};
use crate::bus::{Bus, BusStep, Fault, FaultKind};

/// A step under way.
pub(super) struct Run<'a> {
    front: Front<'a>,
    peers: Vec<Peer<'a>>,
    net: Net,
    /// How often nothing could happen but a deadline.
    waits: usize,
}

/// What is between the endpoints, and its time.
pub(super) struct Net {
    pub(super) pool: BufferPool,
    flying: Vec<Flight>,
    carried: BTreeMap<(u32, u32), (u64, u64)>,
    local_bytes: u64,
    now_ns: u64,
    /// Clocks of the endpoints against the bus's, by id.
    offsets: Vec<u64>,
    rng: ChaCha8Rng,
}

/// Something that is on its way.
struct Flight {
    from: u32,
    to: u32,
    what: What,
}

enum What {
    Message(Bytes),
    /// The stream between the two has ended.
    Closed,
}

enum Event {
    Arrives(usize),
    BatchStarts(usize),
    BatchEnds(usize),
}

/// One reply in so many is delivered twice, where the setup asks for it.
const ECHO: u64 = 4;

// === impl Run ===

impl<'a> Run<'a> {
    pub(super) fn new(
        bus: &'a Bus,
        x: &'a [f32],
        route: Route,
        seed: u64,
        faults: &[Fault],
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let endpoints = bus.table.endpoints();
        let offsets = (0..endpoints).map(|_| rng.next_u64() >> 24).collect();
        let net = Net {
            pool: BufferPool::default(),
            flying: Vec::new(),
            carried: BTreeMap::new(),
            local_bytes: 0,
            now_ns: 0,
            offsets,
            rng,
        };
        let workers = 1..u32::try_from(endpoints).expect("few endpoints");
        let peer = |id| {
            let fault = faults.iter().find(|fault| fault.endpoint == id).copied();
            Peer::new(bus, id, fault)
        };
        Self {
            front: Front::new(bus, x, route, net.clock(COORDINATOR)),
            peers: workers.map(peer).collect(),
            net,
            waits: 0,
        }
    }

    /// Lets things happen until the step is over.
    pub(super) fn finish(mut self) -> Result<BusStep, StepError> {
        let begun = self.net.now_ns;
        self.front.pump(&mut self.net);
        while self.front.outcome.is_none() {
            let events = self.events();
            match events.len() {
                0 => self.wait(),
                n => {
                    let at = self.net.below(n);
                    self.net.now_ns += 1 + self.net.rng.next_u64() % 1000;
                    self.happen(&events[at]);
                }
            }
        }
        if let Some(Err(error)) = self.front.outcome.take() {
            return Err(error);
        }
        let (output, admission) = self.front.results();
        let Front {
            bus,
            route,
            planned,
            ..
        } = self.front;
        let overflow = OverflowLedger::tally(
            &route,
            &admission,
            &bus.setup.capacity,
            &bus.admit_context(),
        );
        Ok(BusStep {
            output,
            overflow: overflow.expect("a route and its fates"),
            route,
            admission,
            planned,
            carried: self.net.carried,
            local_bytes: self.net.local_bytes,
            took_ns: self.net.now_ns - begun,
        })
    }

    fn events(&self) -> Vec<Event> {
        let arrivals = (0..self.net.flying.len()).map(Event::Arrives);
        let batches = self.peers.iter().enumerate().filter_map(|(at, peer)| {
            if peer.can_end_batch() {
                Some(Event::BatchEnds(at))
            } else if peer.can_start_batch() {
                Some(Event::BatchStarts(at))
            } else {
                None
            }
        });
        arrivals.chain(batches).collect()
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Arrives(at) => self.arrives(at),
            Event::BatchStarts(at) => self.peers[at].start_batch(&self.net),
            Event::BatchEnds(at) => self.peers[at].end_batch(&mut self.net),
        }
    }

    fn arrives(&mut self, at: usize) {
        let Flight { from, to, what } = self.net.flying.swap_remove(at);
        let message = match what {
            What::Closed if to == COORDINATOR => return self.front.closed(from, &mut self.net),
            What::Closed => return self.peers[to as usize - 1].closed(from, &mut self.net),
            What::Message(message) => message,
        };
        let frame = FrameView::read_prefixed(message.clone()).expect("a frame of ours");
        let reply = matches!(frame.header.kind, FrameKind::Results | FrameKind::Combined);
        if reply && self.setup_echoes() && self.net.rng.next_u64().is_multiple_of(ECHO) {
            let what = What::Message(message);
            self.net.flying.push(Flight { from, to, what });
        }
        if to == COORDINATOR {
            return self.front.arrived(from, frame, &mut self.net);
        }
        let peer = &mut self.peers[to as usize - 1];
        match peer.takes_one() {
            Status::Up => peer.arrived(from, frame, &mut self.net),
            Status::Down => {}
            Status::Fails(FaultKind::Hangs) => {}
            Status::Fails(FaultKind::Dies) => self.dies(to),
        }
    }

    /// Streams to and from `endpoint` end; of what it sent last, some arrives.
    fn dies(&mut self, endpoint: u32) {
        let Net { flying, rng, .. } = &mut self.net;
        flying.retain(|one| {
            one.to != endpoint && (one.from != endpoint || rng.next_u64().is_multiple_of(2))
        });
        let endpoints = u32::try_from(self.net.offsets.len()).expect("few endpoints");
        for to in (0..endpoints).filter(|to| *to != endpoint) {
            let what = What::Closed;
            let from = endpoint;
            self.net.flying.push(Flight { from, to, what });
        }
    }

    /// Nothing can happen but a deadline.
    fn wait(&mut self) {
        let deadlines = self.peers.iter().filter_map(|peer| {
            let (id, local) = (peer.id, peer.deadline_ns()?);
            Some(local - self.net.offsets[id as usize])
        });
        let own = self.front.deadline_ns() - self.net.offsets[COORDINATOR as usize];
        let next = deadlines.chain([own]).min().unwrap_or(own);
        // Several deadlines may have passed while the consequences of one travelled.
        self.waits += 1;
        assert!(self.waits <= 2 * self.net.offsets.len(), "the bus is stuck");
        self.net.now_ns = next.max(self.net.now_ns);
        for peer in &mut self.peers {
            peer.tick(&mut self.net);
        }
        self.front.tick(&mut self.net);
    }

    fn setup_echoes(&self) -> bool {
        self.front.bus.setup.echoes
    }
}

// === impl Net ===

impl Net {
    /// Now, on the clock of an endpoint.
    pub(super) fn clock(&self, endpoint: u32) -> u64 {
        self.now_ns + self.offsets[endpoint as usize]
    }

    /// Hands a message over.
    pub(super) fn send(&mut self, from: u32, to: u32, message: Bytes) {
        let bytes = message.len() as u64;
        if from == to {
            self.local_bytes += bytes;
        } else {
            let cell = self.carried.entry((from, to)).or_default();
            *cell = (cell.0 + 1, cell.1 + bytes);
        }
        let what = What::Message(message);
        self.flying.push(Flight { from, to, what });
    }

    fn below(&mut self, bound: usize) -> usize {
        let drawn = self.rng.next_u64() % bound as u64;
        usize::try_from(drawn).expect("below a usize")
    }
}
