use crate::{Fabric, Topology};

const HOSTS: &str = "[[host]]\ncount = 2\n";
const RACK: &str = "[tier.rack]\nlatency = \"2 ms\"\nbandwidth = \"1 Gbit/s\"\n";

fn refused(text: &str) -> String {
    Topology::parse(text, "lab.toml").unwrap_err().to_string()
}

#[test]
fn every_bad_file_is_one_sentence_with_its_line() {
    let cases = [
        ("", "lab.toml:1: `host` is missing"),
        ("[[host]\n", "lab.toml:1: "),
        (
            &format!("{HOSTS}color = \"red\"\n{RACK}"),
            "lab.toml:3: unknown field `color`",
        ),
        (
            &format!("{RACK}{HOSTS}slots = 0\n"),
            "lab.toml:6: `host.slots` holds 0, expected a whole number from 1",
        ),
        (
            &format!("{RACK}{HOSTS}count = 3\n"),
            "lab.toml:6: duplicate key",
        ),
        (
            &format!("{HOSTS}[tier.rack]\nlatency = 25\nbandwidth = \"1 Gbit/s\"\n"),
            "lab.toml:4: `tier.rack.latency` holds 25, expected a time with its unit",
        ),
        (
            &format!("{HOSTS}[tier.rack]\nlatency = \"25 us\"\nbandwidth = \"0 Gbit/s\"\n"),
            "lab.toml:5: `tier.rack.bandwidth` holds \"0 Gbit/s\", expected a rate of at least 1 kbit/s",
        ),
        (
            &format!("{HOSTS}[tier.rack]\nlatency = \"25 us\"\n"),
            "lab.toml:3: `tier.rack.bandwidth` is missing",
        ),
        (
            &format!("{HOSTS}{RACK}loss = \"60 %\"\n"),
            "lab.toml:6: `tier.rack.loss` holds \"60 %\"",
        ),
        (
            &format!(
                "{HOSTS}{RACK}[[override]]\nfrom = \"host0\"\nto = \"host7\"\nlatency = \"1 ms\"\n"
            ),
            "lab.toml:6: `override.to` names host \"host7\", expected a host of the file (host0, host1)",
        ),
        (
            &format!("{HOSTS}{RACK}[[override]]\nfrom = \"host0\"\nto = \"host1\"\n"),
            "lab.toml:6: `override` changes nothing",
        ),
        (
            &format!(
                "{HOSTS}{RACK}[[override]]\nfrom = \"host0\"\nto = \"host0\"\nlatency = \"1 ms\"\n"
            ),
            "`override.to` holds \"host0\" at both ends",
        ),
        (
            &format!("{HOSTS}{RACK}[tier.spine]\nlatency = \"1 ms\"\nuplink = \"1 Gbit/s\"\n"),
            "`tier.spine` leads nowhere",
        ),
        (
            &format!("{HOSTS}per_rack = 1\n{RACK}"),
            "`tier.spine` is missing",
        ),
        (
            &format!("{HOSTS}per_rack = 1\nrack = 0\n{RACK}"),
            "lab.toml:3: `host.per_rack` stands beside `rack`",
        ),
        (
            &format!("{HOSTS}per_rack = 1\n{RACK}[tier.spine]\nlatency = \"1 ms\"\n"),
            "`tier.spine.uplink` is missing, expected either",
        ),
        (
            &format!("{HOSTS}device = \"tpu\"\n{RACK}"),
            "lab.toml:3: `host.device` holds \"tpu\", expected one of cpu",
        ),
        (
            &format!("[[host]]\ncount = \"any\"\n{HOSTS}{RACK}"),
            "lab.toml:2: `host.count` holds \"any\"",
        ),
        (
            &format!("{HOSTS}{HOSTS}{RACK}"),
            "`host.name` holds \"host0\" a second time",
        ),
        (
            &format!("coordinator = \"x\"\n{HOSTS}{RACK}"),
            "lab.toml:1: `coordinator` names host \"x\"",
        ),
        (
            &format!("seed = -1\n{HOSTS}{RACK}"),
            "lab.toml:1: `seed` holds -1",
        ),
        (
            &format!(
                "{HOSTS}{RACK}[[device]]\nname = \"d\"\nflops = \"1 TFLOP/s\"\nmemory = \"1 GB/s\"\n"
            ),
            "lab.toml:6: `device.source` is missing",
        ),
        (
            &format!("{HOSTS}{RACK}[tier.spine]\nlatency = \"1 ms\"\nuplink = \"1 Gbit/s\"\n"),
            "lab.toml:6: `tier.spine` leads nowhere",
        ),
        (
            &format!("{HOSTS}rack = 70000\n{RACK}"),
            "lab.toml:3: `host.rack` holds 70000",
        ),
        (
            &format!("{RACK}[host]\ncount = 2\n"),
            "lab.toml:4: `[host]` is one table, expected a list of them: `[[host]]`",
        ),
        (
            &format!("seed = 18446744073709551615\n{HOSTS}{RACK}"),
            "in `seed = 18446744073709551615`",
        ),
        (
            &format!("{HOSTS}name = \"a\\u001b\\nb\"\n{RACK}"),
            "lab.toml:3: `host.name` holds",
        ),
        (
            &format!("{HOSTS}name = \"*\"\n{RACK}"),
            "lab.toml:3: `host.name` holds \"*\", expected a name of one line",
        ),
        (
            &format!("workers = []\n{HOSTS}{RACK}"),
            "lab.toml:1: `workers` holds an empty list",
        ),
    ];
    for (text, beginning) in cases {
        let said = refused(text);
        assert!(said.contains(beginning), "{text}\nsaid {said}");
        assert!(!said.contains(char::is_control), "{said:?}");
    }
}

#[test]
fn more_workers_than_slots_name_the_line_of_the_hosts() {
    let topology = Topology::parse(&format!("{RACK}{HOSTS}slots = 2\n"), "lab.toml").unwrap();
    let said = Fabric::new(&topology, 5).unwrap_err().to_string();
    assert_eq!(
        said,
        "lab.toml:4: 5 workers asked for, expected at most 4, the slots of its 2 hosts; raise \
         `slots` or `count` of a host"
    );
    assert!(Fabric::new(&topology, 0).is_err());
    let listed = format!("workers = [\"host1\", \"host1\"]\n{HOSTS}{RACK}");
    let listed = Topology::parse(&listed, "lab.toml").unwrap();
    let said = Fabric::new(&listed, 2).unwrap_err().to_string();
    assert!(
        said.starts_with("lab.toml:1: 2 workers")
            && said.contains("at most 1 of them on host \"host1\""),
        "{said}"
    );
    let said = Fabric::new(&listed, 3).unwrap_err().to_string();
    assert!(
        said.starts_with("lab.toml:1: 3 workers")
            && said.contains("expected 2, the entries of `workers`"),
        "{said}"
    );
}

#[test]
fn unknown_presets_and_absent_files_say_what_there_is() {
    let said = Topology::read("infiniband").unwrap_err().to_string();
    assert!(
        said.contains("loopback, 10gbe, 25gbe, 100gbe, lab, wan, h100, h800"),
        "{said}"
    );
    let said = Topology::read("absent.toml").unwrap_err().to_string();
    assert!(
        said.starts_with("topology absent.toml cannot be read"),
        "{said}"
    );
}

#[test]
fn files_are_read_by_their_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.toml");
    std::fs::write(&path, format!("{HOSTS}{RACK}")).unwrap();
    let topology = Topology::read(path.to_str().unwrap()).unwrap();
    assert_eq!(topology.name, "lab");
    assert_eq!(topology.hosts.len(), 2);
}

#[test]
fn presets_grow_to_any_number_of_workers_and_state_their_sources() {
    for name in Topology::preset_names() {
        let topology = Topology::preset(name).unwrap();
        let fabric = Fabric::new(&topology, 64).unwrap();
        assert_eq!(fabric.endpoints(), 65, "{name}");
        assert_eq!(
            topology.tiers.host_is_usual,
            !name.starts_with('h'),
            "{name}"
        );
        assert!(
            topology
                .devices
                .iter()
                .all(|device| !device.source.is_empty()),
            "{name}"
        );
    }
    let fabric = Fabric::new(&Topology::preset("h100").unwrap(), 4096).unwrap();
    assert_eq!(fabric.hosts().len(), 512);
    assert_eq!(fabric.hosts()[511].rack, 15);
}
