//! Ranks that trade rows: random routes, the exchange's plan of them, and when bytes are there.

use expertmesh_exchange::{
    ExchangeKind, Groups, HostTable, KeptChoices, Limits, PlanRules, StepPlan,
};
use expertmesh_routing::{AdmitContext, CapacityConfig, Route, admit};
use expertmesh_topology::{Fabric, Port};

use crate::draw::{below, generator};
use crate::published::PublishedError;

/// Longer than whatever is sent from one rank to another: nothing is cut.
const WHOLE: usize = 1 << 36;

/// `tokens × k` distinct experts of `experts`, every subset as likely: what the published
/// benchmarks draw, which choose the largest of independent scores.
pub(super) fn uniform_choices(tokens: usize, experts: u32, k: usize, seed: u64) -> Vec<u32> {
    let mut random = generator(seed, 0);
    let mut order: Vec<u32> = (0..experts).collect();
    let mut chosen = Vec::with_capacity(tokens * k);
    for _ in 0..tokens {
        // The beginning of a Fisher–Yates shuffle, from whatever order the last token left.
        for at in 0..k {
            let other = at + below(&mut random, (order.len() - at) as u64) as usize;
            order.swap(at, other);
        }
        chosen.extend_from_slice(&order[..k]);
    }
    chosen
}

/// A batch of [`uniform_choices`].
pub(super) fn uniform_route(tokens: usize, experts: usize, k: usize, seed: u64) -> Route {
    Route {
        tokens,
        top_k: k,
        offsets: None,
        experts_total: experts,
        logits: Vec::new(),
        experts: uniform_choices(tokens, experts as u32, k, seed),
        weights: vec![1.0; tokens * k],
        padding: None,
    }
}

/// Ranks, and how rows travel between them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranks {
    pub(super) ranks: usize,
    pub(super) kind: ExchangeKind,
    /// Ranks of a node, which stand together in `hierarchical`.
    pub(super) node: usize,
    pub(super) row_bytes: usize,
    /// Whether every choice has a row of its own.
    pub(super) row_per_choice: bool,
}

// === impl Ranks ===

impl Ranks {
    /// The plan that every clock follows, of a dropless step whose tokens are at `homes`: endpoint
    /// ids, rank *r* being endpoint *r* + 1. Experts lie on ranks in order, evenly.
    ///
    /// # Errors
    /// [`PublishedError`] for a route that cannot be admitted or nodes that are none.
    pub(super) fn plan(self, route: &Route, homes: &[u32]) -> Result<StepPlan, PublishedError> {
        let admission = admit(route, &CapacityConfig::default(), &AdmitContext::default())?;
        let experts = route.experts_total;
        let host = |expert| (expert * self.ranks / experts) as u32 + 1;
        let endpoints = self.ranks as u32 + 1;
        let mut table = HostTable::from_endpoints((0..experts).map(host).collect(), endpoints);
        if self.kind == ExchangeKind::Hierarchical {
            let groups = Groups::new(Groups::contiguous(self.ranks, self.node));
            table = table.with_groups(groups.map_err(PublishedError::Groups)?);
        }
        let rules = PlanRules {
            kind: self.kind,
            homes,
            table: &table,
            limits: Limits {
                row_bytes: self.row_bytes,
                chunk_bytes: WHOLE,
                row_per_choice: self.row_per_choice,
            },
            output_row_bytes: self.row_bytes,
            one_by_one: false,
            credits: 1,
        };
        let kept = |tokens| KeptChoices::new(route, &admission, tokens);
        Ok(StepPlan::new(kept, route.tokens, &rules))
    }

    /// Rows from each rank to each, its own included, row-major: `tokens_each` tokens at every rank.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub(super) fn rows(
        self,
        tokens_each: usize,
        experts: usize,
        k: usize,
        seed: u64,
    ) -> Result<Vec<u64>, PublishedError> {
        let route = uniform_route(self.ranks * tokens_each, experts, k, seed);
        let homes: Vec<u32> = (1..=self.ranks as u32).collect();
        let mut matrix = vec![0; self.ranks * self.ranks];
        for shard in self.plan(&route, &homes)?.shards {
            let from = (shard.home as usize - 1) * self.ranks;
            for host in &shard.plan.hosts {
                matrix[from + host.endpoint as usize - 1] += host.rows.len() as u64;
            }
        }
        Ok(matrix)
    }
}

/// When each rank has all of its bytes, ns, through the ports of `fabric`, whose workers are the
/// ranks, as many on every host.
///
/// Every rank sends one message to every other: host by host from its own on, within a host from its
/// own place on, so that at any time no two ranks send to one. Kernels that send all rows at once
/// come close to that, because packets of all peers share a port evenly.
pub(super) fn completions(fabric: &Fabric, matrix: &[u64], row_bytes: u64) -> Vec<u64> {
    let ranks = fabric.endpoints() - 1;
    let hosts = fabric.workers_by_host();
    let hosts: Vec<&Vec<u32>> = hosts.iter().filter(|host| !host.is_empty()).collect();
    let each = hosts.first().map_or(1, |host| host.len());
    let mut ports = vec![Port::default(); fabric.ports()];
    let mut done = vec![0; ranks];
    for turn in 1..ranks {
        let (hosts_on, places_on) = (turn / each, turn % each);
        for from in 0..ranks {
            let (host, place) = (from / each, from % each);
            let to = (host + hosts_on) % hosts.len() * each + (place + places_on) % each;
            let bytes = matrix[from * ranks + to] * row_bytes;
            if bytes == 0 {
                continue;
            }
            let path = fabric.path(from as u32 + 1, to as u32 + 1);
            let passage = path.carry(0, bytes, 0, |hop, window, bytes| {
                ports[hop.port.index()].take(window.begin_ns, window.end_ns, bytes, hop)
            });
            done[to] = done[to].max(passage.end_ns);
            // A rank is done when it has sent everything, too.
            done[from] = done[from].max(passage.end_ns - path.latency_ns);
        }
    }
    done
}

/// Mean over the ranks, µs: what the published benchmarks average.
pub(super) fn mean_us(completions: &[u64]) -> f64 {
    completions.iter().sum::<u64>() as f64 / completions.len().max(1) as f64 / 1e3
}
