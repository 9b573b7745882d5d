//! Passing rows on inside the own group: `hierarchical`.

use expertmesh_wire::encoded_len;

use crate::run::parts::{Kind, Message};
use crate::run::{World, count};

// === impl World ===

impl World<'_> {
    /// The message of a home's bundle to its relay, and what each of its chunks is stamped with.
    pub(super) fn relay_message(&self, home: u32, bundle: usize) -> Message {
        let slot = &self.homes[home as usize];
        let plan = &self.steps[slot.step as usize].plan.shards[slot.shard as usize].plan;
        let of = &plan.bundles()[bundle];
        let mut message = Message::new(Kind::Relay, (slot.endpoint, of.relay), home, slot.step);
        message.host = count(bundle);
        // The first of its lane is the first to its relay.
        let first = plan.parts()[of.parts.clone()]
            .iter()
            .any(|part| part.chunk == 0);
        message.chunk = u32::from(!first);
        message.rows = count(of.rows);
        let row_bytes = self.sim.config().layer.row_bytes();
        message.bytes = plan.relay_frame_len(of, row_bytes) as u64;
        message
    }

    /// The `ROWS` frames that a relay makes of a bundle; what making them takes. They follow each
    /// other among the messages, the first of them is noted in the bundle's.
    pub(super) fn pack_parts(&mut self, message: u32) -> u64 {
        let costs = self.sim.costs();
        let row_bytes = self.sim.config().layer.row_bytes();
        let bundle = self.messages[message as usize];
        let me = bundle.to;
        let shard = self.homes[bundle.home as usize].shard as usize;
        let plan = &self.steps[bundle.step as usize].plan.shards[shard].plan;
        let parts = plan.bundles()[bundle.host as usize].parts.clone();
        let first = count(self.messages.len());
        let mut ns = 0;
        for part in &plan.parts()[parts] {
            let host = plan.host(part.host);
            let chunk = &host.chunks[part.chunk];
            let (rows, choices) = (chunk.rows.len(), chunk.choices.len());
            let ends = (me, host.endpoint);
            let mut one = Message::new(Kind::Rows, ends, bundle.home, bundle.step);
            (one.host, one.chunk) = (count(part.host), count(part.chunk));
            one.at = count(plan.hosts[part.host].chunks.start + part.chunk);
            (one.rows, one.choices) = (count(rows), count(choices));
            one.bytes = encoded_len(rows + choices, rows * row_bytes) as u64;
            ns += costs.pack.ns(one.bytes);
            if host.endpoint == me {
                ns += costs.local.ns(one.bytes);
            }
            self.messages.push(one);
        }
        let parts = count(self.messages.len()) - first;
        let bundle = &mut self.messages[message as usize];
        (bundle.at, bundle.choices) = (first, parts);
        ns
    }

    /// They are on their way; the relay's own are with its experts.
    pub(super) fn parts_packed(&mut self, message: u32) {
        let Message {
            to: me,
            at: first,
            choices: parts,
            ..
        } = self.messages[message as usize];
        self.hand_over(me, first, parts);
        for part in first..first + parts {
            if self.messages[part as usize].to == me {
                self.count_local(part);
                self.on_rows(part);
            }
        }
    }
}
