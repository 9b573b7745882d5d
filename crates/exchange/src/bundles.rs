//! Chunks for several hosts of a group that leave their home as one message: `hierarchical`.
//!
//! A token's row goes to a group once: [`cut`] says how chunks and bundles are cut for that, and
//! nothing but the plan decides.

mod cut;
mod line;

use std::ops::Range;

use expertmesh_wire::encoded_len;

pub(crate) use line::{Line, step};

use crate::shard_plan::ShardPlan;

/// Chunks that leave their home as one message, none twice for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Endpoint that the message goes to: it is for one of the bundle's hosts itself, and passes on
    /// what is for the others.
    pub relay: u32,
    /// The wave that all of its chunks are sent in.
    pub wave: u8,
    /// Rows of the message.
    pub rows: usize,
    /// Its chunks among those of [`ShardPlan::parts`].
    pub parts: Range<usize>,
}

/// A chunk of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Index in [`ShardPlan::hosts`].
    pub host: usize,
    /// Index in [`HostRows::chunks`](crate::HostRows::chunks).
    pub chunk: usize,
}

/// A message of a home to the hosts of its tokens: a chunk, or a bundle of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parcel<'a> {
    /// Counts those that share credits: a host, or the hosts of a group.
    pub lane: usize,
    /// Endpoint that it is sent to.
    pub to: u32,
    /// The wave that it is sent in.
    pub wave: u8,
    /// Rows that it carries.
    pub rows: usize,
    /// Index in [`ShardPlan::bundles`] of one that is passed on.
    pub bundle: Option<usize>,
    /// Its chunks, ascending by host.
    pub parts: &'a [Part],
}

/// How the chunks of a plan travel, where that is not one by one.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Bundles {
    /// Lane after lane, in the order they are sent.
    all: Vec<Bundle>,
    parts: Vec<Part>,
    lanes: Vec<Range<usize>>,
}

/// Words of a `RELAY` index before its parts, and of each part's head.
pub(crate) const RELAY_HEAD: usize = 1;
pub(crate) const PART_HEAD: usize = 5;

// === impl ShardPlan ===

impl ShardPlan {
    /// Bundles of a `hierarchical` plan, lane after lane in the order they are sent. One with a
    /// single part is an ordinary chunk. Empty where every chunk travels alone.
    pub fn bundles(&self) -> &[Bundle] {
        &self.bundles.all
    }

    /// Chunks of all bundles; see [`Bundle::parts`].
    pub fn parts(&self) -> &[Part] {
        &self.bundles.parts
    }

    /// Length of the `RELAY` frame of `bundle`.
    pub fn relay_frame_len(&self, bundle: &Bundle, row_bytes: usize) -> usize {
        encoded_len(self.relay_words(bundle), bundle.rows * row_bytes)
    }

    pub(crate) fn relay_words(&self, bundle: &Bundle) -> usize {
        let parts = self.bundles.parts[bundle.parts.clone()].iter();
        let words = parts.map(|part| {
            let chunk = &self.host(part.host).chunks[part.chunk];
            PART_HEAD + 2 * chunk.rows.len() + chunk.choices.len()
        });
        RELAY_HEAD + words.sum::<usize>()
    }

    /// Calls `each` with every message to hosts, lane after lane and within a lane in the order
    /// they are sent.
    pub fn each_parcel(&self, mut each: impl FnMut(Parcel<'_>)) {
        let Bundles { all, parts, lanes } = &self.bundles;
        for (lane, bundles) in lanes.iter().enumerate() {
            for at in bundles.clone() {
                let bundle = &all[at];
                each(Parcel {
                    lane,
                    to: bundle.relay,
                    wave: bundle.wave,
                    rows: bundle.rows,
                    bundle: (bundle.parts.len() > 1).then_some(at),
                    parts: &parts[bundle.parts.clone()],
                });
            }
        }
        if !lanes.is_empty() {
            return;
        }
        for (host, plan) in self.hosts.iter().enumerate() {
            for (chunk, cut) in self.chunks[plan.chunks.clone()].iter().enumerate() {
                each(Parcel {
                    lane: host,
                    to: plan.endpoint,
                    wave: cut.wave,
                    rows: cut.rows.len(),
                    bundle: None,
                    parts: &[Part { host, chunk }],
                });
            }
        }
    }

    /// Chunks that the homes of `plans` together send to each endpoint before their `credits` are
    /// used up, by endpoint id.
    pub fn first_chunks<'a>(
        plans: impl IntoIterator<Item = &'a Self>,
        endpoints: usize,
        credits: usize,
    ) -> Vec<u32> {
        let mut chunks = vec![0; endpoints];
        for plan in plans {
            let (mut lane, mut sent) = (usize::MAX, 0);
            plan.each_parcel(|parcel| {
                if parcel.lane != lane {
                    (lane, sent) = (parcel.lane, 0);
                }
                if parcel.wave > 0 || sent >= credits {
                    return;
                }
                sent += 1;
                for part in parcel.parts {
                    chunks[plan.hosts[part.host].endpoint as usize] += 1;
                }
            });
        }
        chunks
    }

    /// Rows that are not sent because each goes to an endpoint, or to a group, once: against once
    /// for every choice, counted where rows leave their home.
    pub fn rows_saved(&self) -> usize {
        let abroad = self.hosts.iter().filter(|host| host.endpoint != self.home);
        if self.bundles.lanes.is_empty() {
            // Every row goes by itself.
            return abroad
                .map(|host| host.choices.len() - host.rows.len())
                .sum();
        }
        let choices: usize = abroad.map(|host| host.choices.len()).sum();
        let mut rows = 0;
        self.each_parcel(|parcel| {
            if parcel.to != self.home {
                rows += parcel.rows;
            }
        });
        choices - rows
    }

    /// Position of a part among the chunks of the plan.
    pub(crate) fn chunk_at(&self, part: Part) -> usize {
        self.hosts[part.host].chunks.start + part.chunk
    }

    /// The lines of a bundle's parts, to be walked in the order of its rows.
    pub(crate) fn lines(&self, bundle: &Bundle) -> Vec<Line<'_>> {
        let parts = &self.bundles.parts[bundle.parts.clone()];
        let line = |part: &Part| {
            let rows = self.host(part.host);
            let range = rows.chunks[part.chunk].rows.clone();
            Line::new(rows, range, 0)
        };
        parts.iter().map(line).collect()
    }
}
