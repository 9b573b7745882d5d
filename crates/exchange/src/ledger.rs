//! The traffic ledger: what follows from plans alone.

use std::collections::BTreeMap;

use expertmesh_wire::encoded_len;

use crate::bundles::Parcel;
use crate::plan::{Limits, index};
use crate::shard_plan::ShardPlan;
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
    cells: Cells,
    /// Bytes of frames whose source and destination are the same endpoint: they never leave it.
    pub local_bytes: u64,
    /// Bytes that homes would have sent besides, had each choice its own row: a row goes to an
    /// endpoint, or in `hierarchical` to a group, once. What relays pass on inside their group is
    /// in the cells and not set against it.
    pub saved_by_dedup_bytes: u64,
}

/// Cells by source and destination: a square, or, where that would be large and mostly empty, what
/// was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cells {
    Dense { endpoints: usize, cells: Vec<Cell> },
    Sparse(Vec<BTreeMap<u32, Cell>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Cell {
    link: LinkCell,
    /// Of its bytes, those of requests: shards and rows, relayed ones on both legs.
    requested: u64,
}

/// Endpoints up to which the cells are a square: 33 MB.
const MOST_DENSE: usize = 1024;

/// Number formats' row sizes as the ledger needs them.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    row: usize,
    output_row: usize,
}

// === impl TrafficLedger ===

impl TrafficLedger {
    /// Endpoints up to which [`TrafficLedger::matrix`] is filled.
    pub const MOST_IN_MATRIX: usize = MOST_DENSE;

    /// An empty ledger of `endpoints` endpoints.
    pub fn new(endpoints: usize) -> Self {
        Self {
            cells: Cells::new(endpoints),
            local_bytes: 0,
            saved_by_dedup_bytes: 0,
        }
    }

    /// The ledger of a step: rows and results of every shard, and where workers are homes the shards
    /// themselves. Rows that are relayed are counted on both legs. `output_row_bytes` is the size of
    /// a combined output row.
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
            if kind.is_sharded() {
                ledger.shard(shard, sizes);
            }
            shard.each_parcel(|parcel| ledger.parcel(shard, parcel, sizes));
            ledger.saved_by_dedup_bytes += (shard.rows_saved() * sizes.row) as u64;
        }
        ledger
    }

    /// Number of endpoints.
    pub fn endpoints(&self) -> usize {
        self.cells.endpoints()
    }

    /// What `source` sends to `destination`.
    pub fn cell(&self, source: u32, destination: u32) -> LinkCell {
        self.cells.get(source, destination).link
    }

    /// Bytes of shards and rows that `source` sends to `destination`.
    pub fn requested(&self, source: u32, destination: u32) -> u64 {
        self.cells.get(source, destination).requested
    }

    /// Bytes of results and outputs that `source` sends to `destination`.
    pub fn answered(&self, source: u32, destination: u32) -> u64 {
        self.cell(source, destination).bytes - self.requested(source, destination)
    }

    /// Pairs that exchange anything: (source, destination, cell).
    pub fn links(&self) -> impl Iterator<Item = (u32, u32, LinkCell)> + '_ {
        self.cells
            .used()
            .map(|(source, destination, cell)| (source, destination, cell.link))
    }

    /// Encoded bytes by source and destination; empty beyond [`TrafficLedger::MOST_IN_MATRIX`]
    /// endpoints, whose square nobody would read.
    pub fn matrix(&self) -> Vec<Vec<u64>> {
        let n = self.endpoints();
        if n > Self::MOST_IN_MATRIX {
            return Vec::new();
        }
        let mut matrix = vec![vec![0; n]; n];
        for (source, destination, cell) in self.links() {
            matrix[source as usize][destination as usize] = cell.bytes;
        }
        matrix
    }

    /// Sums over all pairs.
    pub fn total(&self) -> LinkCell {
        self.links()
            .fold(LinkCell::default(), |sum, (_, _, cell)| LinkCell {
                messages: sum.messages + cell.messages,
                rows: sum.rows + cell.rows,
                bytes: sum.bytes + cell.bytes,
            })
    }

    /// Counts a message of `rows` rows; `request` tells shards and rows from results and outputs. A
    /// message of an endpoint to itself is local.
    pub fn carry(&mut self, source: u32, destination: u32, rows: usize, bytes: u64, request: bool) {
        if source == destination {
            self.local_bytes += bytes;
            return;
        }
        let cell = self.cells.at(source, destination);
        cell.link.messages += 1;
        cell.link.rows += rows as u64;
        cell.link.bytes += bytes;
        cell.requested += if request { bytes } else { 0 };
    }

    fn shard(&mut self, shard: &ShardPlan, sizes: Sizes) {
        let there = shard.shard_frame_len(sizes.row, self.endpoints());
        let back = shard.combined_frame_len(sizes.output_row);
        self.request(COORDINATOR, shard.home, shard.tokens, there);
        self.add(shard.home, COORDINATOR, shard.tokens, back);
    }

    /// A message to hosts, what its relay passes on, and the results.
    fn parcel(&mut self, shard: &ShardPlan, parcel: Parcel<'_>, sizes: Sizes) {
        let mut from = shard.home;
        if let Some(at) = parcel.bundle {
            let bytes = shard.relay_frame_len(&shard.bundles()[at], sizes.row);
            self.request(from, parcel.to, parcel.rows, bytes);
            from = parcel.to;
        }
        for part in parcel.parts {
            let host = &shard.hosts[part.host];
            let chunk = &shard.chunks[shard.chunk_at(*part)];
            let (rows, choices) = (chunk.rows.len(), chunk.choices.len());
            let there = encoded_len(rows + choices, rows * sizes.row);
            self.request(from, host.endpoint, rows, there);
            let back = encoded_len(0, choices * sizes.row);
            self.add(host.endpoint, shard.home, choices, back);
        }
    }

    fn request(&mut self, source: u32, destination: u32, rows: usize, bytes: usize) {
        self.carry(source, destination, rows, bytes as u64, true);
    }

    fn add(&mut self, source: u32, destination: u32, rows: usize, bytes: usize) {
        self.carry(source, destination, rows, bytes as u64, false);
    }
}

// === impl Cells ===

impl Cells {
    fn new(endpoints: usize) -> Self {
        if endpoints <= MOST_DENSE {
            return Self::Dense {
                endpoints,
                cells: vec![Cell::default(); endpoints * endpoints],
            };
        }
        Self::Sparse(vec![BTreeMap::new(); endpoints])
    }

    fn endpoints(&self) -> usize {
        match self {
            Self::Dense { endpoints, .. } => *endpoints,
            Self::Sparse(rows) => rows.len(),
        }
    }

    fn get(&self, source: u32, destination: u32) -> Cell {
        match self {
            Self::Dense { endpoints, cells } => {
                cells[source as usize * endpoints + destination as usize]
            }
            Self::Sparse(rows) => {
                let cell = rows[source as usize].get(&destination);
                cell.copied().unwrap_or_default()
            }
        }
    }

    fn at(&mut self, source: u32, destination: u32) -> &mut Cell {
        match self {
            Self::Dense { endpoints, cells } => {
                &mut cells[source as usize * *endpoints + destination as usize]
            }
            Self::Sparse(rows) => rows[source as usize].entry(destination).or_default(),
        }
    }

    /// Cells in which something was counted, by source and destination.
    fn used(&self) -> Box<dyn Iterator<Item = (u32, u32, Cell)> + '_> {
        match self {
            Self::Dense { endpoints, cells } => {
                let n = (*endpoints).max(1);
                let used = cells.iter().enumerate();
                let used = used.filter(|(_, cell)| cell.link.messages > 0);
                Box::new(used.map(move |(at, cell)| (index(at / n), index(at % n), *cell)))
            }
            Self::Sparse(rows) => Box::new((0..).zip(rows).flat_map(|(source, row)| {
                row.iter()
                    .map(move |(destination, cell)| (source, *destination, *cell))
            })),
        }
    }
}
