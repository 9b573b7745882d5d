use super::{RACKS, fabric, topology};
use crate::Topology;
use crate::{Fabric, PortId, Tier};

#[test]
fn workers_fill_hosts_in_order_and_the_coordinator_sits_on_the_first() {
    let fabric = fabric(RACKS, 7);
    assert_eq!(fabric.host_of(0), 0);
    assert_eq!(
        fabric.workers_by_host(),
        [vec![1, 2], vec![3, 4], vec![5, 6], vec![7]]
    );
    assert_eq!(fabric.cores_of_host(2), 4);
    assert_eq!(fabric.device_of(3).name, "cpu");
    let moved = format!("coordinator = \"a2\"\nworkers = [\"a3\", \"a0\"]\n{RACKS}");
    let moved = Fabric::new(&topology(&moved), 2).unwrap();
    assert_eq!([0, 1, 2].map(|one| moved.host_of(one)), [2, 3, 0]);
}

#[test]
fn tiers_follow_from_hosts_and_racks() {
    let fabric = fabric(RACKS, 8);
    let tiers = [1, 2, 3, 5].map(|to| fabric.path(1, to).tier);
    assert_eq!(tiers, [Tier::SelfSame, Tier::Host, Tier::Rack, Tier::Spine]);
    assert_eq!(fabric.path(1, 1).hops(), []);
    assert_eq!(fabric.path(1, 1).idle_ns(1000), 0);
    let names = |from, to| {
        let path = fabric.path(from, to);
        let names = path.hops().iter().map(|hop| fabric.port_name(hop.port));
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(1, 2), ["worker-0 out", "worker-1 in"]);
    assert_eq!(names(1, 3), ["a0.nic0 out", "a1.nic0 in"]);
    assert_eq!(
        names(3, 8),
        ["a1.nic0 out", "rack0 up", "rack1 down", "a3.nic0 in"]
    );
    // Two hosts of 1 GB/s, four times oversubscribed.
    assert_eq!(fabric.path(3, 8).bytes_per_ns(), 0.5);
}

#[test]
fn workers_of_a_host_share_its_ports_by_turns() {
    let text = RACKS.replace("slots = 2", "slots = 4\nnics = 2");
    let fabric = fabric(&text, 8);
    let port = |from: u32| fabric.path(from, 8).hops()[0].port;
    assert_eq!([1, 2, 3, 4].map(|one| fabric.nic_of(one)), [0, 1, 0, 1]);
    assert_eq!((port(1), port(2)), (port(3), port(4)));
    assert_ne!(port(1), port(2));
}

#[test]
fn every_port_has_one_name() {
    let text = format!("{RACKS}[[override]]\nfrom = \"a0\"\nto = \"a3\"\nbandwidth = \"1 MB/s\"\n");
    let fabric = fabric(&text, 8);
    let ports = u32::try_from(fabric.ports()).unwrap();
    let mut names: Vec<String> = (0..ports)
        .map(|port| fabric.port_name(PortId(port)))
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), fabric.ports());
    for (from, to) in (0..9).flat_map(|from| (0..9).map(move |to| (from, to))) {
        let path = fabric.path(from, to);
        assert!(path.hops().iter().all(|hop| hop.port.0 < ports));
        assert_eq!(path.tier, fabric.path(to, from).tier);
    }
}

#[test]
fn overrides_change_pairs_and_the_last_one_holds() {
    let text = format!(
        "{RACKS}[[override]]\nfrom = \"a1\"\nto = \"*\"\nlatency = \"5 ms\"\n\
         [[override]]\nfrom = \"a0\"\nto = \"a1\"\none_way = true\nlatency = \"7 ms\"\nbandwidth = \"1 MB/s\"\n"
    );
    let fabric = fabric(&text, 8);
    let latency = |from, to| fabric.path(from, to).latency_ns;
    assert_eq!(latency(1, 3), 7_000_000);
    assert_eq!(
        (latency(3, 1), latency(3, 5), latency(5, 3)),
        (5_000_000, 5_000_000, 5_000_000)
    );
    assert_eq!(latency(1, 5), 300_000);
    // A link of its own between the two ports.
    assert_eq!(fabric.path(1, 3).hops().len(), 3);
    assert_eq!(fabric.path(1, 3).bytes_per_ns(), 0.001);
    assert_eq!(
        fabric.path(2, 4).hops()[1].port,
        fabric.path(1, 3).hops()[1].port
    );
}

#[test]
fn dilation_stretches_time_and_keeps_proportions() {
    let topology = topology(RACKS);
    let slow = Fabric::new(&topology.dilated(10.0), 8).unwrap();
    let fast = Fabric::new(&topology, 8).unwrap();
    for to in 2..9 {
        let bytes = 1_000_000;
        assert_eq!(
            slow.path(1, to).idle_ns(bytes),
            10 * fast.path(1, to).idle_ns(bytes)
        );
    }
}

#[test]
fn hosts_that_grow_keep_the_name_of_the_file() {
    let text = r#"
        [[host]]
        name = "rack1-h100"
        count = "any"
        slots = 8
        [[override]]
        from = "rack1-h1002"
        to = "*"
        latency = "7 ms"
        [tier.rack]
        latency = "25 us"
        bandwidth = "10 Gbit/s"
    "#;
    let topology = Topology::parse(text, "grow.toml").unwrap();
    let fabric = Fabric::new(&topology, 24).unwrap();
    let names: Vec<&str> = fabric
        .hosts()
        .iter()
        .map(|host| host.name.as_str())
        .collect();
    assert_eq!(names, ["rack1-h1000", "rack1-h1001", "rack1-h1002"]);
    assert_eq!(fabric.path(1, 24).latency_ns, 7_000_000);
    // A number is written in one way.
    let error = Topology::parse(&text.replace("h1002", "h10002"), "grow.toml");
    let error = error.unwrap_err().to_string();
    assert!(error.contains("names host \"rack1-h10002\""), "{error}");
}

#[test]
fn sizes_past_all_reason_are_refused() {
    let many = "[[host]]\nname = \"a\"\ncount = 40000\n[[host]]\nname = \"b\"\ncount = 40000\n";
    let nics = "[[host]]\nname = \"a\"\nnics = 1024\n";
    let slow =
        "[[host]]\nname = \"a\"\n[tier.host]\nlatency = \"1 us\"\nbandwidth = \"0.00001 bit/s\"\n";
    for (text, said) in [
        (
            many,
            "`host.count` makes 80000 hosts, expected at most 65536",
        ),
        (nics, "host.nics"),
        (slow, "at least 1 kbit/s"),
    ] {
        let rack = "[tier.rack]\nlatency = \"1 us\"\nbandwidth = \"1 Gbit/s\"\n";
        let error = Topology::parse(&format!("{text}{rack}"), "big.toml")
            .unwrap_err()
            .to_string();
        assert!(error.contains(said), "{error}");
    }
}
