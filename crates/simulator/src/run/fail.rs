//! Workers that fail, and who learns of it.

use expertmesh_exchange::{COORDINATOR, Home, LossCause};

use crate::config::{Failure, Fault};
use crate::log::Entry;
use crate::queue::Event;
use crate::run::parts::{Kind, Message};
use crate::run::{World, count};
use crate::standing::Failed;

pub(super) fn gone() -> LossCause {
    LossCause::Disconnected("its machine failed in the simulation".to_owned())
}

// === impl World ===

impl World<'_> {
    /// A fault of the configuration comes true.
    pub(super) fn fails(&mut self, fault: u32) {
        let Fault::Lost { endpoint, how, .. } = self.sim.config().faults[fault as usize] else {
            return;
        };
        self.happened[fault as usize] = true;
        let one = &mut self.ends[endpoint as usize];
        if std::mem::replace(&mut one.is_down, true) {
            return;
        }
        one.urgent.clear();
        one.queue.clear();
        one.pool.clear();
        let threads = one.threads.len();
        for lane in 0..threads {
            let thread = self.thread(endpoint, lane);
            let grant = self.cpus.kill(thread, self.now);
            self.granted(grant);
        }
        for step in 0..count(self.steps.len()) {
            self.behind_done(step, endpoint);
        }
        let at_ns = self.now;
        self.failed[endpoint as usize] = Some(Failed { at_ns, how });
        if how == Failure::Dies {
            self.streams_end(endpoint, at_ns, at_ns);
        }
    }

    /// The streams of an endpoint that failed at `at_ns` end. The end of each travels as a message of
    /// its own, behind those that were sent, and is there at `from_ns` at the earliest.
    pub(super) fn streams_end(&mut self, endpoint: u32, at_ns: u64, from_ns: u64) {
        for other in 0..count(self.ends.len()) {
            let has_stream = other == COORDINATOR || self.sim.config().exchange.is_sharded();
            if other == endpoint || !has_stream {
                continue;
            }
            let message = Message::new(Kind::Closed, (endpoint, other), 0, 0);
            self.messages.push(message);
            let there_ns = at_ns + self.net.latency_ns(endpoint, other);
            let closed = Event::Arrives(count(self.messages.len() - 1));
            self.queue.push(there_ns.max(from_ns), closed);
        }
    }

    /// An endpoint learns that the stream of another ended.
    pub(super) fn closed(&mut self, endpoint: u32, peer: u32) {
        self.log.add(self.now, Entry::Lost, endpoint, peer, 0);
        self.gone.insert((endpoint, peer));
        for home in self.ends[endpoint as usize].homes.clone() {
            if let Some(run) = &mut self.homes[home as usize].run {
                run.home.on_host_lost(peer, gone());
            }
            self.pump_home(home);
        }
        if endpoint != COORDINATOR {
            return;
        }
        self.down[peer as usize] = Some(gone());
        for step in 0..count(self.steps.len()) {
            let front = &mut self.steps[step as usize];
            if let (Some(conductor), None) = (&mut front.conductor, &front.outcome) {
                conductor.on_home_lost(peer, gone());
                self.pump_shards(step);
            }
        }
    }

    /// Whoever was late in a home's exchange.
    pub(super) fn late(&mut self, home: u32, machine: &Home) {
        let slot = &mut self.homes[home as usize];
        slot.late.extend(machine.late());
    }
}
