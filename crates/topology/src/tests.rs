//! What files say, what they may not say, and how long messages take.

mod bad_files;
mod fabric;
mod scaled;
mod times;

use crate::{Fabric, Port, Topology};

/// Two racks of two hosts with two slots each.
const RACKS: &str = r#"
[[host]]
name = "a"
count = 4
per_rack = 2
slots = 2
cores = 4
[tier.host]
latency = "10 us"
bandwidth = "4 GB/s"
[tier.rack]
latency = "100 us"
bandwidth = "1 GB/s"
[tier.spine]
latency = "300 us"
oversubscription = 4
"#;

fn topology(text: &str) -> Topology {
    Topology::parse(text, "lab.toml").unwrap()
}

fn fabric(text: &str, workers: usize) -> Fabric {
    Fabric::new(&topology(text), workers).unwrap()
}

/// When the last of `messages` (from, to, bytes), all ready at 0 and taken in order, has arrived.
fn last_arrival(fabric: &Fabric, messages: &[(u32, u32, u64)]) -> u64 {
    let mut ports = vec![Port::default(); fabric.ports()];
    let mut arrivals = messages.iter().map(|&(from, to, bytes)| {
        let path = fabric.path(from, to);
        let arrived = path.carry(0, bytes, 0, |hop, at, bytes| {
            ports[hop.port.index()].take(at.begin_ns, at.end_ns, bytes, hop)
        });
        arrived.end_ns
    });
    let first = arrivals.next().unwrap();
    arrivals.fold(first, u64::max)
}
