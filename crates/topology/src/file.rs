//! The TOML form: every field is checked by hand, so that an error says line, field, what it held and
//! what was expected.

mod cells;
mod links;

use serde::Deserialize;
use toml::Spanned;

use crate::error::TopologyError;
use crate::file::cells::{Cell, Reader};
use crate::file::links::{OverrideText, TierText, overrides, tiers};
use crate::model::{Device, Grows, Host, Origin, Tiers, Topology};
use crate::units;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    name: Cell,
    seed: Cell,
    coordinator: Cell,
    workers: Cell,
    #[serde(default)]
    host: Vec<Spanned<HostText>>,
    #[serde(default)]
    device: Vec<Spanned<DeviceText>>,
    tier: Option<TierText>,
    #[serde(default, rename = "override")]
    overrides: Vec<Spanned<OverrideText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostText {
    name: Cell,
    count: Cell,
    rack: Cell,
    per_rack: Cell,
    cores: Cell,
    slots: Cell,
    nics: Cell,
    bandwidth: Cell,
    device: Cell,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceText {
    name: Cell,
    flops: Cell,
    memory: Cell,
    efficiency: Cell,
    launch: Cell,
    source: Cell,
}

/// Hosts that a file may list.
const MOST_HOSTS: u32 = 1 << 16;
/// Network ports of a host.
const MOST_NICS: u32 = 64;

// === impl Topology ===

impl Topology {
    /// Reads a topology; `file_name` is how errors call it.
    ///
    /// # Errors
    /// [`TopologyError`] with the line: text that is no TOML, a field that there is not, a value of
    /// another kind or out of range, and fields that contradict each other.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, TopologyError> {
        let reader = Reader {
            file: file_name,
            text,
        };
        let file: FileText = toml::from_str(text).map_err(|error| reader.syntax(&error))?;
        let devices = devices(&reader, &file.device)?;
        let tiers = tiers(&reader, file.tier.as_ref(), is_alone(&file))?;
        let mut hosts = Vec::new();
        let mut grows = None;
        for (at, host) in file.host.iter().enumerate() {
            let is_last = at + 1 == file.host.len();
            grows = read_host(&reader, host, is_last, &devices, &tiers, &mut hosts)?;
            if hosts.len() > MOST_HOSTS as usize {
                let held = format!("makes {} hosts", hosts.len());
                let expected = format!("at most {MOST_HOSTS} in all");
                return Err(reader.field(host.span().start, "host.count", &held, &expected));
            }
        }
        let Some(last) = file.host.last() else {
            return Err(reader.field(0, "host", "is missing", "at least one [[host]]"));
        };
        let mut topology = Self {
            name: reader
                .text_of("name", &file.name)?
                .unwrap_or_else(|| stem(file_name)),
            seed: reader.whole("seed", &file.seed)?.unwrap_or(0),
            coordinator: reader.text_of("coordinator", &file.coordinator)?,
            workers: reader.names("workers", &file.workers)?,
            origin: Origin {
                file: file_name.to_owned(),
                hosts_line: reader.line(last.span().start),
                workers_line: reader.line(match &file.workers {
                    Some(cell) => cell.span().start,
                    None => last.span().start,
                }),
                text: text.to_owned(),
            },
            overrides: overrides(&reader, &file.overrides)?,
            hosts,
            grows,
            tiers,
            devices,
        };
        check(&reader, &file, &mut topology)?;
        Ok(topology)
    }
}

/// Whether the file has one host and no more, or none at all, which is told later.
fn is_alone(file: &FileText) -> bool {
    let one = |host: &Spanned<HostText>| host.get_ref().count.is_none();
    file.host.len() <= 1 && file.host.iter().all(one)
}

fn stem(file_name: &str) -> String {
    let path = std::path::Path::new(file_name);
    let stem = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    stem.unwrap_or_else(|| file_name.to_owned())
}

/// What a worker computes on where the file names no device: one core with two 256-bit FMA units at
/// 3 GHz (2 · 2 · 8 operations a cycle) and one channel of DDR4-2666.
fn usual_device() -> Device {
    Device {
        name: "cpu".to_owned(),
        flops: 96e9,
        memory_bytes_per_s: 21.3e9,
        efficiency: 0.8,
        launch_ns: 0,
        source: "default: one core, 3 GHz, two 256-bit FMA units; one channel of DDR4-2666"
            .to_owned(),
    }
}

fn devices(
    reader: &Reader<'_>,
    texts: &[Spanned<DeviceText>],
) -> Result<Vec<Device>, TopologyError> {
    let mut devices: Vec<Device> = Vec::new();
    for text in texts {
        let at = text.span().start;
        let device = text.get_ref();
        let required = |field: &str| reader.field(at, field, "is missing", "a value");
        let name = reader.text_of("device.name", &device.name)?;
        let name = name.ok_or_else(|| required("device.name"))?;
        if devices.iter().any(|other| other.name == name) {
            let held = format!("holds \"{name}\" a second time");
            return Err(reader.field(at, "device.name", &held, "another name"));
        }
        let efficiency = reader
            .number("device.efficiency", &device.efficiency)?
            .unwrap_or(1.0);
        if !(efficiency > 0.0 && efficiency <= 1.0) {
            let held = format!("holds {efficiency}");
            return Err(reader.field(at, "device.efficiency", &held, "above 0 and at most 1"));
        }
        devices.push(Device {
            name,
            flops: reader
                .quantity(
                    "device.flops",
                    &device.flops,
                    units::flops,
                    units::FLOP_RATE,
                )?
                .ok_or_else(|| required("device.flops"))?,
            memory_bytes_per_s: 1e9
                * reader
                    .quantity("device.memory", &device.memory, units::rate, units::RATE)?
                    .ok_or_else(|| required("device.memory"))?,
            efficiency,
            launch_ns: reader.time("device.launch", &device.launch)?.unwrap_or(0),
            source: reader
                .text_of("device.source", &device.source)?
                .ok_or_else(|| required("device.source"))?,
        });
    }
    if devices.is_empty() {
        devices.push(usual_device());
    }
    Ok(devices)
}

/// Adds the hosts of one table; says how it grows if it stands for any number.
fn read_host(
    reader: &Reader<'_>,
    text: &Spanned<HostText>,
    is_last: bool,
    devices: &[Device],
    tiers: &Tiers,
    hosts: &mut Vec<Host>,
) -> Result<Option<Grows>, TopologyError> {
    let (at, host) = (text.span().start, text.get_ref());
    let any = host
        .count
        .as_ref()
        .filter(|cell| cell.get_ref().as_str() == Some("any"));
    let count = match any {
        Some(_) => 1,
        None => reader
            .count("host.count", &host.count, MOST_HOSTS)?
            .unwrap_or(1),
    };
    if let (Some(any), false) = (any, is_last) {
        let expected = "a number; only the last [[host]] may stand for any number";
        return Err(reader.field(any.span().start, "host.count", "holds \"any\"", expected));
    }
    let rack = reader.whole("host.rack", &host.rack)?;
    let per_rack = reader.count("host.per_rack", &host.per_rack, MOST_HOSTS)?;
    if let (Some(_), Some(cell)) = (rack, &host.per_rack) {
        let held = "stands beside `rack`";
        let expected =
            "one of them: `rack` puts all hosts of the table into one rack, `per_rack` fills racks";
        return Err(reader.field(cell.span().start, "host.per_rack", held, expected));
    }
    let first_rack = match (rack, hosts.last()) {
        (Some(rack), _) => u32::try_from(rack)
            .ok()
            .filter(|rack| *rack < MOST_HOSTS)
            .ok_or_else(|| {
                let held = format!("holds {rack}");
                let line = host.rack.as_ref().map_or(at, |cell| cell.span().start);
                reader.field(
                    line,
                    "host.rack",
                    &held,
                    &format!("0 to {}", MOST_HOSTS - 1),
                )
            })?,
        (None, Some(before)) if per_rack.is_some() => before.rack + 1,
        (None, _) => 0,
    };
    let wanted = reader.text_of("host.device", &host.device)?;
    let device = match &wanted {
        None => 0,
        Some(name) => devices
            .iter()
            .position(|one| one.name == *name)
            .ok_or_else(|| {
                let known: Vec<&str> = devices.iter().map(|one| one.name.as_str()).collect();
                let held = format!("holds \"{name}\"");
                let line = host.device.as_ref().map_or(at, |cell| cell.span().start);
                reader.field(
                    line,
                    "host.device",
                    &held,
                    &format!("one of {}", known.join(", ")),
                )
            })?,
    };
    let name = reader
        .host_name(&host.name)?
        .unwrap_or_else(|| "host".to_owned());
    let is_many = any.is_some() || count > 1;
    let one = Host {
        name: String::new(),
        rack: first_rack,
        cores: reader
            .count("host.cores", &host.cores, u32::MAX)?
            .unwrap_or(1),
        device: u32::try_from(device).unwrap_or(0),
        slots: reader
            .count("host.slots", &host.slots, MOST_HOSTS)?
            .unwrap_or(1),
        nics: reader
            .count("host.nics", &host.nics, MOST_NICS)?
            .unwrap_or(1),
        bytes_per_ns: reader
            .quantity("host.bandwidth", &host.bandwidth, units::rate, units::RATE)?
            .unwrap_or(tiers.rack.bytes_per_ns),
    };
    for number in 0..count {
        hosts.push(Host {
            name: if is_many {
                format!("{name}{number}")
            } else {
                name.clone()
            },
            rack: first_rack + per_rack.map_or(0, |per_rack| number / per_rack),
            ..one.clone()
        });
    }
    Ok(any.map(|_| Grows {
        stem: name,
        per_rack: per_rack.unwrap_or(u32::MAX),
    }))
}

/// What fields say together.
fn check(
    reader: &Reader<'_>,
    file: &FileText,
    topology: &mut Topology,
) -> Result<(), TopologyError> {
    let hosts_at = file.host.last().map_or(0, |host| host.span().start);
    let mut names: Vec<&str> = topology
        .hosts
        .iter()
        .map(|host| host.name.as_str())
        .collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let held = format!("holds \"{}\" a second time", pair[0]);
        let expected = "another name for each [[host]]";
        return Err(reader.field(hosts_at, "host.name", &held, expected));
    }
    let racks = topology
        .hosts
        .iter()
        .any(|host| host.rack != topology.hosts[0].rack);
    let many = (topology.grows.as_ref()).is_some_and(|grows| grows.per_rack < u32::MAX);
    match (racks || many, topology.tiers.spine.is_some()) {
        (true, false) => {
            let expected = "a table, for hosts that sit in several racks";
            return Err(reader.field(hosts_at, "tier.spine", "is missing", expected));
        }
        (false, true) => {
            let expected = "`rack` or `per_rack` in a [[host]]: all hosts sit in one rack";
            let spine_at = file.tier.as_ref().and_then(TierText::spine_at);
            let spine_at = spine_at.unwrap_or(hosts_at);
            return Err(reader.field(spine_at, "tier.spine", "leads nowhere", expected));
        }
        _ => {}
    }
    let known = |name: &str| {
        let grown = topology
            .grows
            .as_ref()
            .is_some_and(|grows| grows.makes(name));
        grown || topology.hosts.iter().any(|host| host.name == name)
    };
    let missing = |at: usize, field: &str, name: &str| {
        let first: Vec<&str> = topology
            .hosts
            .iter()
            .take(4)
            .map(|host| host.name.as_str())
            .collect();
        let dots = if topology.hosts.len() > 4 {
            ", …"
        } else {
            ""
        };
        let expected = format!("a host of the file ({}{dots})", first.join(", "));
        reader.field(at, field, &format!("names host \"{name}\""), &expected)
    };
    for (own, text) in topology.overrides.iter().zip(&file.overrides) {
        for (field, name) in [("override.from", &own.from), ("override.to", &own.to)] {
            if name != "*" && !known(name) {
                return Err(missing(text.span().start, field, name));
            }
        }
    }
    let at = |cell: &Cell| cell.as_ref().map_or(0, |cell| cell.span().start);
    if let Some(name) = topology.coordinator.iter().find(|name| !known(name)) {
        return Err(missing(at(&file.coordinator), "coordinator", name));
    }
    if let Some(name) = topology.workers.iter().flatten().find(|name| !known(name)) {
        return Err(missing(at(&file.workers), "workers", name));
    }
    Ok(())
}
