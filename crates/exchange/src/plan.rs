//! Route + placement → the rows that each expert host gets, and where each result belongs.

use std::ops::Range;

use expertmesh_placement::Placement;
use expertmesh_routing::{Fate, Route};
use expertmesh_wire::encoded_len;

use crate::timeline::TIMELINE_WORDS;

/// Which endpoint executes which expert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTable {
    of: Vec<u32>,
    endpoints: u32,
}

/// The choices of a shard's tokens that have a host, token by token in slot order.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// `[tokens + 1]`: the choices of token `t` are `offsets[t]..offsets[t + 1]`.
    pub offsets: &'a [u32],
    /// `[choices]` expert ids.
    pub experts: &'a [u32],
    /// `[choices]` gate weights.
    pub weights: &'a [f32],
}

/// The kept choices of some tokens of a route: those whose fate is to be computed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeptChoices {
    /// `[tokens + 1]` offsets of each token's kept choices.
    pub offsets: Vec<u32>,
    /// `[choices]` expert ids.
    pub experts: Vec<u32>,
    /// `[choices]` gate weights.
    pub weights: Vec<f32>,
    /// `[choices]` where each stands in the route: `token × k + slot`.
    pub origin: Vec<u32>,
}

/// What bounds a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one encoded row.
    pub row_bytes: usize,
    /// The longest encoded frame, request or result, that a chunk may give.
    pub chunk_bytes: usize,
}

/// Rows and choices of one message to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Range in [`HostPlan::tokens`].
    pub rows: Range<usize>,
    /// Range in [`HostPlan::experts`].
    pub choices: Range<usize>,
}

/// What one expert host gets of a shard: each token's row once, however many of its experts live
/// there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPlan {
    /// Endpoint id of the host.
    pub endpoint: u32,
    /// `[rows]` token (local to the shard) of each row, ascending.
    pub tokens: Vec<u32>,
    /// `[rows + 1]` offsets into `experts`.
    pub offsets: Vec<u32>,
    /// `[choices]` expert of each choice, row by row in slot order.
    pub experts: Vec<u32>,
    /// `[choices]` index of each choice among the shard's kept choices.
    pub kept: Vec<u32>,
    /// The messages, in the order they are sent.
    pub chunks: Vec<Chunk>,
}

/// Where the result row of a choice arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResultAt {
    /// Index in [`ShardPlan::hosts`].
    pub(crate) host: u32,
    /// Chunk of that host.
    pub(crate) chunk: u32,
    /// Row of the chunk's result frame.
    pub(crate) row: u32,
}

/// The plan of one home's tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardPlan {
    /// Endpoint id of the home.
    pub home: u32,
    /// Tokens of the shard.
    pub tokens: usize,
    /// `[tokens + 1]` offsets of each token's kept choices.
    pub offsets: Vec<u32>,
    /// `[choices]` gate weight of each kept choice.
    pub weights: Vec<f32>,
    /// Hosts that get rows, ascending by endpoint.
    pub hosts: Vec<HostPlan>,
    pub(crate) results: Vec<ResultAt>,
}

/// Contiguous shares of `tokens` for each of `homes`, as even as possible, earlier homes first.
pub fn shard_ranges(tokens: usize, homes: usize) -> Vec<Range<usize>> {
    (0..homes)
        .map(|at| tokens * at / homes..tokens * (at + 1) / homes)
        .collect()
}

// === impl HostTable ===

impl HostTable {
    /// The hosts of a placement: worker `w` is endpoint `w + 1`. Of several replicas the first
    /// executes.
    pub fn new(placement: &Placement) -> Self {
        let experts = u32::try_from(placement.experts()).unwrap_or(u32::MAX);
        Self {
            of: (0..experts)
                .map(|expert| placement.primary(expert as usize) + 1)
                .collect(),
            endpoints: u32::try_from(placement.workers()).unwrap_or(u32::MAX) + 1,
        }
    }

    /// The hosts named one by one: `of[expert]` is an endpoint id below `endpoints`.
    pub fn from_endpoints(of: Vec<u32>, endpoints: u32) -> Self {
        Self { of, endpoints }
    }

    /// Endpoint id of the host of `expert`, `None` for an expert that does not exist.
    pub fn host(&self, expert: u32) -> Option<u32> {
        self.of.get(expert as usize).copied()
    }

    /// Number of experts.
    pub fn experts(&self) -> usize {
        self.of.len()
    }

    /// Number of endpoints, the coordinator included.
    pub fn endpoints(&self) -> usize {
        self.endpoints as usize
    }
}

// === impl KeptChoices ===

impl KeptChoices {
    /// The choices of `tokens` in `route` whose fate says that an expert computes them, in token
    /// order and, within a token, in slot order.
    pub fn new(route: &Route, fates: &[Fate], tokens: Range<usize>) -> Self {
        let k = route.top_k;
        let mut kept = Self {
            offsets: Vec::with_capacity(tokens.len() + 1),
            experts: Vec::with_capacity(tokens.len() * k),
            weights: Vec::with_capacity(tokens.len() * k),
            origin: Vec::with_capacity(tokens.len() * k),
        };
        kept.offsets.push(0);
        for token in tokens {
            let choices = token * k..(token + 1) * k;
            for (at, fate) in choices.clone().zip(&fates[choices]) {
                if matches!(fate, Fate::Computed | Fate::Rerouted) {
                    kept.experts.push(route.experts[at]);
                    kept.weights.push(route.weights[at]);
                    kept.origin.push(index(at));
                }
            }
            kept.offsets.push(index(kept.experts.len()));
        }
        kept
    }

    /// The choices, as a plan takes them.
    pub fn as_kept(&self) -> Kept<'_> {
        Kept {
            offsets: &self.offsets,
            experts: &self.experts,
            weights: &self.weights,
        }
    }
}

// === impl Limits ===

impl Limits {
    fn fits(&self, rows: usize, choices: usize) -> bool {
        encoded_len(rows + choices, rows * self.row_bytes) <= self.chunk_bytes
            && encoded_len(0, choices * self.row_bytes) <= self.chunk_bytes
    }
}

// === impl ShardPlan ===

impl ShardPlan {
    /// Plans the kept choices of `home`'s tokens: rows for each host, chunks, places of results.
    ///
    /// Experts are looked up in `table`; every one must be there (the caller checks what arrives
    /// from the network). Linear in tokens and choices.
    pub fn new(home: u32, kept: Kept<'_>, table: &HostTable, limits: Limits) -> Self {
        let tokens = kept.offsets.len().saturating_sub(1);
        let mut by_endpoint: Vec<Option<HostPlan>> = vec![None; table.endpoints()];
        let choices = kept.experts.len();
        let mut position = vec![(0u32, 0u32); choices];
        for token in 0..tokens {
            let range = kept.offsets[token] as usize..kept.offsets[token + 1] as usize;
            for choice in range {
                let expert = kept.experts[choice];
                let endpoint = table.of[expert as usize];
                let host = by_endpoint[endpoint as usize]
                    .get_or_insert_with(|| HostPlan::empty(endpoint, tokens, choices));
                let at = host.push(index(token), expert, index(choice));
                position[choice] = (endpoint, at);
            }
        }
        let mut hosts: Vec<HostPlan> = by_endpoint.into_iter().flatten().collect();
        let mut host_at = vec![0u32; table.endpoints()];
        for (at, host) in hosts.iter_mut().enumerate() {
            host.cut(limits);
            host_at[host.endpoint as usize] = index(at);
        }
        let results = position
            .into_iter()
            .map(|(endpoint, at)| {
                let host = host_at[endpoint as usize];
                let chunks = &hosts[host as usize].chunks;
                let chunk = chunks.partition_point(|chunk| chunk.choices.end <= at as usize);
                let row = at - index(chunks[chunk].choices.start);
                ResultAt {
                    host,
                    chunk: index(chunk),
                    row,
                }
            })
            .collect();
        Self {
            home,
            tokens,
            offsets: kept.offsets.to_vec(),
            weights: kept.weights.to_vec(),
            hosts,
            results,
        }
    }

    /// Number of kept choices.
    pub fn choices(&self) -> usize {
        self.weights.len()
    }

    /// Chunks that the homes of `plans` together send to each endpoint before their `credits` are
    /// used up, by endpoint id.
    pub fn first_chunks(plans: &[Self], endpoints: usize, credits: usize) -> Vec<u32> {
        let mut chunks = vec![0; endpoints];
        for host in plans.iter().flat_map(|plan| &plan.hosts) {
            chunks[host.endpoint as usize] += index(host.chunks.len().min(credits));
        }
        chunks
    }

    /// Length of the `SHARD` frame that tells a home this plan's tokens and choices, in a cluster
    /// of `endpoints` endpoints.
    pub fn shard_frame_len(&self, row_bytes: usize, endpoints: usize) -> usize {
        encoded_len(
            self.tokens + 2 * self.choices() + endpoints,
            self.tokens * row_bytes,
        )
    }

    /// Length of the `COMBINED` frame that brings this plan's outputs back, if nothing is lost.
    pub fn combined_frame_len(&self, output_row_bytes: usize) -> usize {
        encoded_len(TIMELINE_WORDS, self.tokens * output_row_bytes)
    }

    /// Position of `endpoint` in [`ShardPlan::hosts`].
    pub fn host_index(&self, endpoint: u32) -> Option<usize> {
        self.hosts
            .binary_search_by_key(&endpoint, |host| host.endpoint)
            .ok()
    }

    /// Rows that sending each token once to an endpoint saved, against once for every choice.
    pub fn rows_saved(&self) -> usize {
        self.hosts
            .iter()
            .filter(|host| host.endpoint != self.home)
            .map(|host| host.experts.len() - host.tokens.len())
            .sum()
    }
}

// === impl HostPlan ===

impl HostPlan {
    /// With room for the worst case, so that planning allocates a fixed number of times.
    fn empty(endpoint: u32, tokens: usize, choices: usize) -> Self {
        let mut offsets = Vec::with_capacity(tokens + 1);
        offsets.push(0);
        Self {
            endpoint,
            tokens: Vec::with_capacity(tokens),
            offsets,
            experts: Vec::with_capacity(choices),
            kept: Vec::with_capacity(choices),
            chunks: Vec::new(),
        }
    }

    /// Adds a choice, with a new row where the token has none here yet; returns its position.
    fn push(&mut self, token: u32, expert: u32, kept: u32) -> u32 {
        if self.tokens.last() != Some(&token) {
            self.tokens.push(token);
            self.offsets.push(index(self.experts.len()));
        }
        let at = index(self.experts.len());
        self.experts.push(expert);
        self.kept.push(kept);
        if let Some(end) = self.offsets.last_mut() {
            *end = at + 1;
        }
        at
    }

    fn cut(&mut self, limits: Limits) {
        let mut start = 0;
        for row in 0..self.tokens.len() {
            let choices = (self.offsets[row + 1] - self.offsets[start]) as usize;
            if row > start && !limits.fits(row + 1 - start, choices) {
                self.chunks.push(self.chunk(start..row));
                start = row;
            }
        }
        if start < self.tokens.len() {
            self.chunks.push(self.chunk(start..self.tokens.len()));
        }
    }

    fn chunk(&self, rows: Range<usize>) -> Chunk {
        let choices = self.offsets[rows.start] as usize..self.offsets[rows.end] as usize;
        Chunk { rows, choices }
    }
}

/// Counts here are bounded by tokens × k, which the caller bounds by 32 bits.
pub(crate) fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
