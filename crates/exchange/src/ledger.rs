//! The traffic ledger: what follows from plans alone.

use expertmesh_wire::encoded_len;

use crate::plan::Limits;
use crate::shard_plan::{HostRows, ShardPlan};
use crate::{COORDINATOR, ExchangeKind};

/// Messages, rows and encoded bytes from one endpoint to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCell {
    /// Frames.
    pub messages: u64,
    /// Token rows or result rows.
    pub rows: u64,
    /// Bytes of the encoded frames, gRPC prefix included.
    pub bytes: u64,
}

/// What a step sends, for every (source, destination) pair of endpoints.
///
/// A pure function of plans and exchange kind: neither credits nor timing nor faults change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficLedger {
    endpoints: usize,
    cells: Vec<LinkCell>,
    /// Of each cell's bytes, those of requests: shards and rows.
    requests: Vec<u64>,
    /// Bytes of frames whose source and destination are the same endpoint: they never leave it.
    pub local_bytes: u64,
    /// Bytes that would have been sent besides, had each choice its own row.
    pub saved_by_dedup_bytes: u64,
}

/// Number formats' row sizes as the ledger needs them.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    row: usize,
    output_row: usize,
}

// === impl TrafficLedger ===

impl TrafficLedger {
    /// An empty ledger of `endpoints` endpoints.
    pub fn new(endpoints: usize) -> Self {
        Self {
            endpoints,
            cells: vec![LinkCell::default(); endpoints * endpoints],
            requests: vec![0; endpoints * endpoints],
            local_bytes: 0,
            saved_by_dedup_bytes: 0,
        }
    }

    /// The ledger of a step: rows and results of every shard, and for `all-to-all` the shards
    /// themselves. `output_row_bytes` is the size of a combined output row.
    pub fn of_step<'a>(
        kind: ExchangeKind,
        shards: impl IntoIterator<Item = &'a ShardPlan>,
        endpoints: usize,
        limits: Limits,
        output_row_bytes: usize,
    ) -> Self {
        let mut ledger = Self::new(endpoints);
        let sizes = Sizes {
            row: limits.row_bytes,
            output_row: output_row_bytes,
        };
        for shard in shards.into_iter().filter(|shard| shard.tokens > 0) {
            if kind == ExchangeKind::AllToAll {
                ledger.shard(shard, sizes);
            }
            for at in 0..shard.hosts.len() {
                ledger.host(shard.home, shard.host(at), sizes);
            }
            ledger.saved_by_dedup_bytes += (shard.rows_saved() * sizes.row) as u64;
        }
        ledger
    }

    /// Number of endpoints.
    pub fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// What `source` sends to `destination`.
    pub fn cell(&self, source: u32, destination: u32) -> LinkCell {
        self.cells[source as usize * self.endpoints + destination as usize]
    }

    /// Bytes of shards and rows that `source` sends to `destination`.
    pub fn requested(&self, source: u32, destination: u32) -> u64 {
        self.requests[source as usize * self.endpoints + destination as usize]
    }

    /// Bytes of results and outputs that `source` sends to `destination`.
    pub fn answered(&self, source: u32, destination: u32) -> u64 {
        self.cell(source, destination).bytes - self.requested(source, destination)
    }

    /// Pairs that exchange anything: (source, destination, cell).
    pub fn links(&self) -> impl Iterator<Item = (u32, u32, LinkCell)> + '_ {
        let n = self.endpoints;
        self.cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| cell.messages > 0)
            .map(move |(at, cell)| {
                (
                    crate::plan::index(at / n),
                    crate::plan::index(at % n),
                    *cell,
                )
            })
    }

    /// Sums over all pairs.
    pub fn total(&self) -> LinkCell {
        self.cells
            .iter()
            .fold(LinkCell::default(), |sum, cell| LinkCell {
                messages: sum.messages + cell.messages,
                rows: sum.rows + cell.rows,
                bytes: sum.bytes + cell.bytes,
            })
    }

    fn shard(&mut self, shard: &ShardPlan, sizes: Sizes) {
        let there = shard.shard_frame_len(sizes.row, self.endpoints);
        let back = shard.combined_frame_len(sizes.output_row);
        self.request(COORDINATOR, shard.home, shard.tokens, there);
        self.add(shard.home, COORDINATOR, shard.tokens, back);
    }

    fn host(&mut self, home: u32, host: HostRows<'_>, sizes: Sizes) {
        for chunk in host.chunks {
            let (rows, choices) = (chunk.rows.len(), chunk.choices.len());
            self.request(
                home,
                host.endpoint,
                rows,
                encoded_len(rows + choices, rows * sizes.row),
            );
            self.add(
                host.endpoint,
                home,
                choices,
                encoded_len(0, choices * sizes.row),
            );
        }
    }

    fn request(&mut self, source: u32, destination: u32, rows: usize, bytes: usize) {
        if source != destination {
            self.requests[source as usize * self.endpoints + destination as usize] += bytes as u64;
        }
        self.add(source, destination, rows, bytes);
    }

    fn add(&mut self, source: u32, destination: u32, rows: usize, bytes: usize) {
        if source == destination {
            self.local_bytes += bytes as u64;
            return;
        }
        let cell = &mut self.cells[source as usize * self.endpoints + destination as usize];
        cell.messages += 1;
        cell.rows += rows as u64;
        cell.bytes += bytes as u64;
    }
}
