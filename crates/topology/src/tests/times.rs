use proptest::prelude::*;

use super::{RACKS, fabric, last_arrival};
use crate::units::{share, time};
use crate::{Hop, Port, PortId, jitter_ns, retransmission_ns, show_rate, show_time};

#[test]
fn one_message_takes_latency_and_its_bytes() {
    let fabric = fabric(RACKS, 8);
    assert_eq!(
        last_arrival(&fabric, &[(1, 2, 1 << 20)]),
        10_000 + (1 << 18)
    );
    assert_eq!(
        last_arrival(&fabric, &[(1, 3, 1 << 20)]),
        100_000 + (1 << 20)
    );
    assert_eq!(
        last_arrival(&fabric, &[(1, 5, 1 << 20)]),
        300_000 + (1 << 21)
    );
}

#[test]
fn four_senders_queue_at_one_port() {
    let text = RACKS
        .replace("count = 4", "count = 5")
        .replace("per_rack = 2", "per_rack = 5");
    let text = text
        .split("[tier.spine]")
        .next()
        .unwrap()
        .replace("per_rack = 5\n", "");
    let fabric = fabric(&text, 10);
    let messages = [3, 5, 7, 9].map(|from| (from, 1, 1_000_000));
    assert_eq!(last_arrival(&fabric, &messages), 100_000 + 4 * 1_000_000);
    // Two workers of one host share the port on the way out.
    let shared = [(3, 1, 1_000_000), (4, 5, 1_000_000)];
    assert_eq!(last_arrival(&fabric, &shared), 100_000 + 2 * 1_000_000);
}

#[test]
fn a_faster_port_behind_slow_ones_serves_them_at_once() {
    // Four hosts of 1 GB/s into one port of 4 GB/s.
    let fast = Hop {
        port: PortId(0),
        bytes_per_ns: 4.0,
        hold_ns: 0,
    };
    let mut port = Port::default();
    let ends: Vec<u64> = (0..4)
        .map(|_| port.take(0, 1000, 1000, fast).end_ns)
        .collect();
    assert_eq!(ends, [1000; 4]);
    assert_eq!(port.take(0, 1000, 1000, fast).end_ns, 1250);
}

#[test]
fn the_overhead_of_a_message_holds_its_senders_port() {
    let text = RACKS.replace(
        "bandwidth = \"1 GB/s\"",
        "bandwidth = \"1 GB/s\"\nper_message = \"5 us\"",
    );
    let fabric = fabric(&text, 8);
    assert_eq!(fabric.path(1, 3).idle_ns(1000), 106_000);
    assert_eq!(last_arrival(&fabric, &[(1, 3, 1000)]), 106_000);
    assert_eq!(
        last_arrival(&fabric, &[(1, 3, 1000), (1, 3, 1000)]),
        112_000
    );
}

#[test]
fn lost_packets_cost_what_the_formula_says() {
    let rtt = 1_000_000;
    let cost = |number, bytes, loss| retransmission_ns(7, 1, 2, number, bytes, loss, rtt);
    assert_eq!(cost(0, 1 << 20, 0.0), 0);
    // A share of messages as (1 - p)^n says, each late by a round trip, or by a timeout.
    let late = (0..10_000)
        .filter(|number| cost(*number, 100 * 1448, 0.001) > 0)
        .count();
    let expected = 10_000.0 * (1.0 - 0.999f64.powi(100));
    assert!(
        (late as f64 - expected).abs() < 100.0,
        "{late} of {expected}"
    );
    let delays: std::collections::BTreeSet<u64> =
        (0..10_000).map(|n| cost(n, 100 * 1448, 0.001)).collect();
    assert!(delays.contains(&rtt), "{delays:?}");
    let small: std::collections::BTreeSet<u64> = (0..10_000).map(|n| cost(n, 100, 0.01)).collect();
    assert!(
        small.contains(&200_000_000) && !small.contains(&rtt),
        "{small:?}"
    );
}

#[test]
fn quantities_are_read_with_their_units() {
    assert_eq!(time("25 us"), Some(25_000));
    assert_eq!(time("1.5ms"), Some(1_500_000));
    assert_eq!(
        [
            time("25"),
            time("us"),
            time("-1 us"),
            time("2 h"),
            time("2 parsec")
        ],
        [None; 5]
    );
    assert_eq!(share("0.01 %"), Some(0.0001));
    assert_eq!([share("50 %"), share("x"), share("NaN")], [None; 3]);
    assert_eq!(show_time(1_500_000), "1.5 ms");
    assert_eq!(
        [0.125, 1.25, 450.0, 3350.0].map(show_rate),
        ["1 Gbit/s", "10 Gbit/s", "450 GB/s", "3.35 TB/s"]
    );
}

proptest! {
    #[test]
    fn more_bytes_and_later_starts_never_arrive_earlier(
        bytes in 0u64..1 << 32, more in 0u64..1 << 20,
        first in 0u64..1 << 40, wait in 0u64..1 << 30, free in 0u64..1 << 40, rate in 1e-6f64..1e4,
    ) {
        let hop = Hop { port: PortId(0), bytes_per_ns: rate, hold_ns: 0 };
        let take = |first, last, bytes| {
            let mut port = Port { free_ns: free };
            let passage = port.take(first, last, bytes, hop);
            prop_assert!(passage.begin_ns <= passage.end_ns && passage.end_ns >= last);
            prop_assert!(port.free_ns >= free);
            Ok(passage.end_ns)
        };
        let end = take(first, first + wait, bytes)?;
        prop_assert!(take(first, first + wait, bytes + more)? >= end);
        prop_assert!(take(first + more, first + wait + more, bytes)? >= end);
        prop_assert!(take(first, first + wait + more, bytes)? >= end);
    }

    #[test]
    fn a_port_does_no_more_than_its_rate(sizes in prop::collection::vec(1u64..1 << 20, 1..20)) {
        let hop = Hop { port: PortId(0), bytes_per_ns: 2.0, hold_ns: 0 };
        let mut port = Port::default();
        let end = sizes.iter().map(|&bytes| port.take(0, 0, bytes, hop).end_ns).max();
        let total: u64 = sizes.iter().map(|bytes| bytes.div_ceil(2)).sum();
        prop_assert_eq!(end, Some(total));
    }

    #[test]
    fn noise_is_a_function_of_the_message(
        seed: u64, from: u32, to: u32, number: u64, most in 0u64..1 << 40,
        loss in 0.0f64..0.5, bytes in 0u64..1 << 30,
    ) {
        let jitter = jitter_ns(seed, from, to, number, most);
        prop_assert!(jitter <= most);
        prop_assert_eq!(jitter, jitter_ns(seed, from, to, number, most));
        let late = |loss| retransmission_ns(seed, from, to, number, bytes, loss, 1000);
        prop_assert!(late(loss) >= late(loss / 2.0));
    }
}
