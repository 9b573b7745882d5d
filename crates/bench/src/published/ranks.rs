//! Ranks that trade rows: random routes, what each sends to each, and when it is there.

use expertmesh_topology::{Fabric, Port};

use crate::draw::{below, generator};

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

/// Choices from each of `ranks` to each, row-major: experts lie on ranks in order, evenly.
pub(super) fn choice_matrix(
    ranks: usize,
    tokens_each: usize,
    experts: usize,
    k: usize,
    seed: u64,
) -> Vec<u64> {
    let mut matrix = vec![0; ranks * ranks];
    let chosen = uniform_choices(ranks * tokens_each, experts as u32, k, seed);
    for (at, expert) in chosen.iter().enumerate() {
        let home = at / (k * tokens_each);
        matrix[home * ranks + *expert as usize * ranks / experts] += 1;
    }
    matrix
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
