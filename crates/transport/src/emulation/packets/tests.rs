#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use expertmesh_topology::{Fabric, Topology};

use super::Packets;
use crate::emulation::{Emulation, Shaping};

/// 1 ms between hosts of a port each; a byte takes 1 ns.
const LINK: &str = "
[[host]]
count = 8
[tier.rack]
latency = \"1 ms\"
bandwidth = \"1 GB/s\"
";
const MS: u64 = 1_000_000;

fn packets(topology: &str) -> Packets {
    let topology = Topology::parse(topology, "test.toml").unwrap();
    let fabric = Fabric::new(&topology, 7).unwrap();
    let words: Vec<AtomicU64> = (0..Emulation::words_for(&fabric))
        .map(|at| AtomicU64::new(u64::from(at == 0)))
        .collect();
    let emulation = Emulation::new(fabric, 0, Arc::new(words)).unwrap();
    Packets::new(emulation.net)
}

/// Everything that arrives: when, where, and its first byte.
fn arrivals(packets: &mut Packets) -> Vec<(u64, u32, u8)> {
    let mut all = Vec::new();
    while let Some(now_ns) = packets.next_ns() {
        while let Some((to, bytes)) = packets.pop_due(now_ns) {
            all.push((now_ns, to, bytes[0]));
        }
    }
    all
}

#[test]
fn a_packet_takes_its_latency_and_its_bytes() {
    let mut packets = packets(LINK);
    packets.push(500, 1, 2, vec![7; 9000], Shaping::Full);
    assert_eq!(arrivals(&mut packets), [(500 + MS + 9000, 2, 7)]);
}

#[test]
fn packets_queue_at_the_ports_of_sender_and_receiver() {
    let mut packets = packets(LINK);
    // Two leave endpoint 1 behind each other; one of endpoint 3 meets them at endpoint 2.
    packets.push(0, 1, 2, vec![1; 1000], Shaping::Full);
    packets.push(0, 1, 4, vec![2; 1000], Shaping::Full);
    packets.push(0, 3, 2, vec![3; 1000], Shaping::Full);
    // And one on the way back, whose ports are others.
    packets.push(0, 2, 1, vec![4; 1000], Shaping::Full);
    let mut all = arrivals(&mut packets);
    all.sort_by_key(|(_, _, first)| *first);
    let one = MS + 1000;
    assert_eq!(
        all,
        [
            (one, 2, 1),
            (one + 1000, 4, 2),
            (one + 1000, 2, 3),
            (one, 1, 4)
        ]
    );
}

#[test]
fn a_packet_on_a_long_way_does_not_hold_up_one_on_a_short_way() {
    let far = format!("{LINK}[[override]]\nfrom = \"host0\"\nto = \"host1\"\nlatency = \"9 ms\"\n");
    let mut packets = packets(&far);
    packets.push(0, 1, 2, vec![1; 1000], Shaping::Full);
    packets.push(0, 3, 2, vec![2; 1000], Shaping::Full);
    let all = arrivals(&mut packets);
    assert_eq!(all, [(MS + 1000, 2, 2), (9 * MS + 1000, 2, 1)]);
}

#[test]
fn jitter_delays_and_keeps_the_order_of_a_pair() {
    let mut packets = packets(&LINK.replace("[tier.rack]", "[tier.rack]\njitter = \"5 ms\""));
    for number in 0..200 {
        packets.push(
            u64::from(number) * 1000,
            1,
            2,
            vec![number; 100],
            Shaping::Full,
        );
    }
    let all = arrivals(&mut packets);
    assert!(all.iter().map(|(_, _, first)| *first).eq(0..200));
    assert!(all.is_sorted());
    let late = |&&(at, _, first): &&(u64, u32, u8)| at > u64::from(first) * 1000 + MS + 100;
    assert!(all.iter().filter(late).count() > 150);
}

#[test]
fn a_share_of_packets_is_lost_and_probes_lose_none() {
    let lossy = LINK.replace("[tier.rack]", "[tier.rack]\nloss = 0.25");
    let sent = 4000;
    let arrived = |shaping| {
        let mut packets = packets(&lossy);
        for _ in 0..sent {
            packets.push(0, 1, 2, vec![0; 40], shaping);
        }
        arrivals(&mut packets).len()
    };
    // Ten standard deviations: √(4000 · 0.25 · 0.75) = 27.
    assert!(arrived(Shaping::Full).abs_diff(3000) < 270);
    assert_eq!(arrived(Shaping::Full), arrived(Shaping::Full));
    assert_eq!(arrived(Shaping::Quiet), sent);
    assert_eq!(arrived(Shaping::Bare), sent);
}

#[test]
fn nothing_shapes_a_bare_packet_and_one_to_oneself() {
    let mut packets = packets(LINK);
    packets.push(10, 1, 2, vec![1; 9000], Shaping::Bare);
    packets.push(10, 3, 3, vec![2; 9000], Shaping::Full);
    assert_eq!(arrivals(&mut packets), [(10, 2, 1), (10, 3, 2)]);
}
