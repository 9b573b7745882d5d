//! Route + placement → the rows that each expert host gets, and where each result belongs.

use std::ops::Range;

use expertmesh_placement::Placement;
use expertmesh_routing::{Admission, Fate, Route};
use expertmesh_wire::encoded_len;

use crate::target::Target;
use crate::timeline::TIMELINE_WORDS;

/// Which endpoints execute which expert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTable {
    /// `[E + 1]` offsets into `of`.
    first: Vec<u32>,
    /// Endpoints of every expert, the first replica first.
    of: Vec<u32>,
    /// Experts after those that endpoints hold: every home answers for them itself.
    free: u32,
    endpoints: u32,
}

/// The choices of a shard's tokens that have a host, token by token in slot order.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// `[tokens + 1]`: the choices of token `t` are `offsets[t]..offsets[t + 1]`.
    pub offsets: &'a [u32],
    /// `[choices]` packed [`Target`]s.
    pub targets: &'a [u32],
    /// `[choices]` weights that results are multiplied by.
    pub weights: &'a [f32],
}

/// The kept choices of some tokens of a route: those whose fate is to be computed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeptChoices {
    /// `[tokens + 1]` offsets of each token's kept choices.
    pub offsets: Vec<u32>,
    /// `[choices]` packed [`Target`]s.
    pub targets: Vec<u32>,
    /// `[choices]` weights that results are multiplied by.
    pub weights: Vec<f32>,
    /// `[choices]` where each stands in the route.
    pub origin: Vec<u32>,
}

/// What bounds a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one encoded row.
    pub row_bytes: usize,
    /// The longest encoded frame, request or result, that a chunk may give.
    pub chunk_bytes: usize,
    /// Whether every choice has a row of its own, as a layer needs that weighs the rows it sends;
    /// else a token's row goes to a host once.
    pub row_per_choice: bool,
}

/// Rows and choices of one message to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Range in [`HostPlan::tokens`].
    pub rows: Range<usize>,
    /// Range in [`HostPlan::experts`].
    pub choices: Range<usize>,
    /// The wave it is sent in: not before the results of every earlier wave are in.
    pub wave: u8,
}

/// What one expert host gets of a shard: each token's row once, however many of its experts live
/// there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPlan {
    /// Endpoint id of the host.
    pub endpoint: u32,
    /// `[rows]` token (local to the shard) of each row, ascending in a wave.
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
    /// Index in [`ShardPlan::hosts`], or [`OWN`].
    pub(crate) host: u32,
    /// Chunk of that host.
    pub(crate) chunk: u32,
    /// Row of the chunk's result frame, or position in [`ShardPlan::own`].
    pub(crate) row: u32,
}

/// In place of a host: the home computes the choice itself.
pub(crate) const OWN: u32 = u32::MAX;

/// A choice for which its home answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnChoice {
    /// Token, local to the shard.
    pub token: u32,
    /// A free expert.
    pub expert: u32,
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
    /// `[choices]` weight of each kept choice.
    pub weights: Vec<f32>,
    /// Choices of free experts, in token order.
    pub own: Vec<OwnChoice>,
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
    /// The hosts of a placement: worker `w` is endpoint `w + 1`.
    pub fn new(placement: &Placement) -> Self {
        let hosts = (0..placement.experts()).map(|expert| {
            let replicas = placement.replicas(expert).iter();
            replicas.map(|worker| worker + 1).collect::<Vec<u32>>()
        });
        Self::from_replicas(hosts, index(placement.workers()) + 1)
    }

    /// One host for each expert: `of[expert]` is an endpoint id below `endpoints`.
    pub fn from_endpoints(of: Vec<u32>, endpoints: u32) -> Self {
        Self::from_replicas(of.into_iter().map(|host| [host]), endpoints)
    }

    /// The hosts named one by one: every list names endpoints below `endpoints`, at least one.
    pub fn from_replicas<L: AsRef<[u32]>>(of: impl IntoIterator<Item = L>, endpoints: u32) -> Self {
        let mut table = Self {
            first: vec![0],
            of: Vec::new(),
            free: 0,
            endpoints,
        };
        for hosts in of {
            table.of.extend_from_slice(hosts.as_ref());
            table.first.push(index(table.of.len()));
        }
        table
    }

    /// The same table with `free` experts more that no endpoint holds.
    #[must_use]
    pub fn with_free(mut self, free: usize) -> Self {
        self.free = index(free);
        self
    }

    /// Endpoint id of the host of a packed [`Target`], `None` for an expert or a replica that does
    /// not exist and for free experts.
    pub fn host(&self, target: u32) -> Option<u32> {
        let Target {
            expert, replica, ..
        } = Target::unpack(target);
        let ends = self.first.get(expert as usize..expert as usize + 2)?;
        self.of[ends[0] as usize..ends[1] as usize]
            .get(usize::from(replica))
            .copied()
    }

    /// Whether `endpoint` holds `expert`, as whichever replica.
    pub fn holds(&self, endpoint: u32, expert: u32) -> bool {
        match self.first.get(expert as usize..expert as usize + 2) {
            Some(ends) => self.of[ends[0] as usize..ends[1] as usize].contains(&endpoint),
            None => false,
        }
    }

    /// Whether a packed [`Target`] is of a free expert.
    pub fn is_free(&self, target: u32) -> bool {
        let expert = Target::unpack(target).expert as usize;
        (self.experts()..self.experts() + self.free as usize).contains(&expert)
    }

    /// Number of experts that endpoints hold.
    pub fn experts(&self) -> usize {
        self.first.len().saturating_sub(1)
    }

    /// Number of endpoints, the coordinator included.
    pub fn endpoints(&self) -> usize {
        self.endpoints as usize
    }
}

// === impl KeptChoices ===

impl KeptChoices {
    /// The choices of `tokens` in `route` that `admission` has computed, in token order and,
    /// within a token, in slot order.
    pub fn new(route: &Route, admission: &Admission, tokens: Range<usize>) -> Self {
        let most = tokens.len() * route.top_k;
        let mut kept = Self {
            offsets: Vec::with_capacity(tokens.len() + 1),
            targets: Vec::with_capacity(most),
            weights: Vec::with_capacity(most),
            origin: Vec::with_capacity(most),
        };
        kept.offsets.push(0);
        for token in tokens {
            for at in route.choices_of(token) {
                if matches!(admission.fates[at], Fate::Computed | Fate::Rerouted) {
                    let target = Target {
                        expert: admission.executed(route, at),
                        replica: admission.replica(at),
                        wave: admission.wave(at),
                    };
                    kept.targets.push(target.pack());
                    kept.weights.push(admission.weight(route, at));
                    kept.origin.push(index(at));
                }
            }
            kept.offsets.push(index(kept.targets.len()));
        }
        kept
    }

    /// The same with each token's choices in the order of their experts.
    #[must_use]
    pub fn by_expert(mut self) -> Self {
        for ends in self.offsets.windows(2) {
            let choices = ends[0] as usize..ends[1] as usize;
            let mut order: Vec<usize> = choices.clone().collect();
            order.sort_by_key(|choice| Target::unpack(self.targets[*choice]).expert);
            let targets: Vec<u32> = order.iter().map(|at| self.targets[*at]).collect();
            let weights: Vec<f32> = order.iter().map(|at| self.weights[*at]).collect();
            let origin: Vec<u32> = order.iter().map(|at| self.origin[*at]).collect();
            self.targets[choices.clone()].copy_from_slice(&targets);
            self.weights[choices.clone()].copy_from_slice(&weights);
            self.origin[choices].copy_from_slice(&origin);
        }
        self
    }

    /// The choices, as a plan takes them.
    pub fn as_kept(&self) -> Kept<'_> {
        Kept {
            offsets: &self.offsets,
            targets: &self.targets,
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
    /// Targets are looked up in `table`; every one must be there (the caller checks what arrives
    /// from the network). Linear in tokens and choices, once for every wave.
    pub fn new(home: u32, kept: Kept<'_>, table: &HostTable, limits: Limits) -> Self {
        let tokens = kept.offsets.len().saturating_sub(1);
        let choices = kept.targets.len();
        let mut by_endpoint: Vec<Option<HostPlan>> = vec![None; table.endpoints()];
        let mut position = vec![(OWN, 0u32); choices];
        let mut own = Vec::new();
        let wave_of = |target: &u32| Target::unpack(*target).wave;
        let waves = kept.targets.iter().map(wave_of).max().unwrap_or(0);
        for wave in 0..=waves {
            for token in 0..tokens {
                let range = kept.offsets[token] as usize..kept.offsets[token + 1] as usize;
                for choice in range {
                    let target = kept.targets[choice];
                    if waves > 0 && wave_of(&target) != wave {
                        continue;
                    }
                    let expert = Target::unpack(target).expert;
                    position[choice] = match table.host(target) {
                        Some(endpoint) => {
                            let host = by_endpoint[endpoint as usize]
                                .get_or_insert_with(|| HostPlan::empty(endpoint, tokens, choices));
                            let token = index(token);
                            let at = host.push(token, expert, index(choice), limits.row_per_choice);
                            (endpoint, at)
                        }
                        None => {
                            let token = index(token);
                            own.push(OwnChoice { token, expert });
                            (OWN, index(own.len() - 1))
                        }
                    };
                }
            }
            let hosts = by_endpoint.iter_mut().flatten();
            hosts.for_each(|host| host.cut(limits, wave));
        }
        let hosts: Vec<HostPlan> = by_endpoint.into_iter().flatten().collect();
        let mut host_at = vec![0u32; table.endpoints()];
        for (at, host) in hosts.iter().enumerate() {
            host_at[host.endpoint as usize] = index(at);
        }
        let results = position
            .into_iter()
            .map(|(endpoint, at)| {
                if endpoint == OWN {
                    let (host, chunk) = (OWN, 0);
                    return ResultAt {
                        host,
                        chunk,
                        row: at,
                    };
                }
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
            own,
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
            let first_wave = host.chunks.iter().take_while(|chunk| chunk.wave == 0);
            chunks[host.endpoint as usize] += index(first_wave.count().min(credits));
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

    /// Adds a choice, with a new row where the token has none in this wave yet, or where choices
    /// do not share rows; returns its position.
    fn push(&mut self, token: u32, expert: u32, kept: u32, row_per_choice: bool) -> u32 {
        let cut = self.chunks.last().map_or(0, |chunk| chunk.rows.end);
        let open = self.tokens.len() > cut && self.tokens.last() == Some(&token);
        if !open || row_per_choice {
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

    /// Cuts the rows since the last cut into chunks.
    fn cut(&mut self, limits: Limits, wave: u8) {
        let first = self.chunks.last().map_or(0, |chunk| chunk.rows.end);
        let mut start = first;
        for row in first..self.tokens.len() {
            let choices = (self.offsets[row + 1] - self.offsets[start]) as usize;
            if row > start && !limits.fits(row + 1 - start, choices) {
                self.chunks.push(self.chunk(start..row, wave));
                start = row;
            }
        }
        if start < self.tokens.len() {
            self.chunks.push(self.chunk(start..self.tokens.len(), wave));
        }
    }

    fn chunk(&self, rows: Range<usize>, wave: u8) -> Chunk {
        let choices = self.offsets[rows.start] as usize..self.offsets[rows.end] as usize;
        Chunk {
            rows,
            choices,
            wave,
        }
    }
}

/// Counts here are bounded by tokens × k, which the caller bounds by 32 bits.
pub(crate) fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
