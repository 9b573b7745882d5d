use super::*;
use crate::Scale;

/// Everything that can state a rate or a latency.
const ALL: &str = r#"
[[host]]
name = "a"
count = 4
per_rack = 2
slots = 2
nics = 2
bandwidth = "2 GB/s"
device = "gpu"
[tier.host]
latency = "10 us"
bandwidth = "4 GB/s"
[tier.rack]
latency = "100 us"
bandwidth = "1 GB/s"
[tier.spine]
latency = "300 us"
uplink = "0.2 Gbit/s"
[[override]]
from = "a0"
to = "a3"
latency = "1 ms"
bandwidth = "10 Mbit/s"
[[device]]
name = "gpu"
flops = "100 TFLOP/s"
memory = "1 TB/s"
launch = "4 us"
source = "made up"
"#;

/// A large message over every path of `topology`: who shares a port with whom does not matter.
fn times(topology: &Topology) -> Vec<u64> {
    let fabric = Fabric::new(topology, 8).unwrap();
    let pairs = (1..=8).flat_map(|from| (1..=8).map(move |to| (from, to)));
    let between = pairs.filter(|(from, to)| from != to);
    let path = |(from, to)| fabric.path(from, to);
    between.map(|pair| path(pair).idle_ns(1 << 30)).collect()
}

fn latencies(topology: &Topology) -> Vec<u64> {
    let fabric = Fabric::new(topology, 8).unwrap();
    let pairs = (1..=8).flat_map(|from| (1..=8).map(move |to| (from, to)));
    let between = pairs.filter(|(from, to)| from != to);
    between
        .map(|(from, to)| fabric.path(from, to).latency_ns)
        .collect()
}

#[test]
fn links_twice_as_fast_are_so_on_every_path() {
    for text in [
        ALL,
        &ALL.replace("uplink = \"0.2 Gbit/s\"", "oversubscription = 4"),
    ] {
        let slow = topology(text);
        let fast = slow.scaled(Scale {
            rates: 2.0,
            ..Scale::default()
        });
        assert_eq!(latencies(&fast), latencies(&slow));
        let way = latencies(&slow);
        for ((fast, slow), way) in times(&fast).iter().zip(times(&slow)).zip(way) {
            assert!((2 * (fast - way)).abs_diff(slow - way) <= 2);
        }
        assert_eq!(fast.devices, slow.devices);
    }
}

#[test]
fn half_the_latency_is_so_on_every_path() {
    let far = topology(ALL);
    let near = far.scaled(Scale {
        latencies: 0.5,
        ..Scale::default()
    });
    let halves: Vec<u64> = latencies(&far).iter().map(|ns| ns / 2).collect();
    assert_eq!(latencies(&near), halves);
    assert_eq!(far.scaled(Scale::default()), far);
}

#[test]
fn devices_twice_as_fast_launch_in_half_the_time() {
    let slow = topology(ALL);
    let fast = slow.scaled(Scale {
        devices: 2.0,
        ..Scale::default()
    });
    let (one, other) = (&slow.devices[0], &fast.devices[0]);
    assert_eq!(other.flops, 2.0 * one.flops);
    assert_eq!(other.memory_bytes_per_s, 2.0 * one.memory_bytes_per_s);
    assert_eq!((one.launch_ns, other.launch_ns), (4000, 2000));
    assert_eq!(times(&fast), times(&slow));
}

#[test]
fn a_preset_is_known_by_what_it_says_not_by_its_name() {
    let own = topology(
        "name = \"loopback\"\n[[host]]\ncount = 4\nslots = 1\n[tier.rack]\nlatency = \"9 ms\"\nbandwidth = \"1 Gbit/s\"\n",
    );
    assert_eq!(own.name, "loopback");
    assert!(!own.is_preset("loopback"));
    let preset = Topology::preset("loopback").unwrap();
    assert!(preset.is_preset("loopback") && !preset.is_preset("lab"));
    assert!(!preset.is_preset("nonsense"));
}
