//! `expertmesh topology`: what a topology file says, and where workers would sit.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;

use clap::Args;
use expertmesh_topology::{Device, Fabric, LinkOverride, Path, Topology, show_rate, show_time};

use crate::args::values::at_least_one;
use crate::error::Failure;
use crate::output::print;

/// Flags of `topology`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  expertmesh topology 10gbe
  expertmesh topology h100 --workers 64
  expertmesh topology --presets
  expertmesh topology lab.toml --workers 6 && expertmesh launch --topology lab.toml --workers 6

A short file, four hosts at one switch:
  [[host]]
  count = 4
  cores = 16
  [tier.rack]
  latency = \"25 us\"
  bandwidth = \"10 Gbit/s\"")]
pub(crate) struct TopologyArgs {
    /// A TOML file, or the name of a preset
    #[arg(value_name = "FILE|PRESET", required_unless_present = "presets")]
    topology: Option<String>,
    /// Workers to place
    #[arg(long, value_name = "N", default_value = "4")]
    #[arg(value_parser = at_least_one::<NonZeroUsize>)]
    workers: NonZeroUsize,
    /// List the presets
    #[arg(long, conflicts_with = "topology")]
    presets: bool,
}

/// Hosts that are listed one by one.
const MOST_HOSTS: usize = 16;
/// Endpoints whose paths are compared, unless the file names their host.
const MOST_ENDS: usize = 512;

/// Prints the topology.
///
/// # Errors
/// [`Failure::Input`] for a file that cannot be used or has no room for the workers.
pub(crate) fn run(args: &TopologyArgs) -> Result<(), Failure> {
    let Some(name) = &args.topology else {
        let names: Vec<&str> = Topology::preset_names().collect();
        return print(&format!("{}\n", names.join("\n")));
    };
    let topology = Topology::read(name)?;
    let fabric = Fabric::new(&topology, args.workers.get())?;
    let mut page = format!("{} with {} workers\n", topology.name, args.workers);
    hosts(&fabric, &mut page);
    paths(&fabric, &mut page);
    devices(&fabric, &mut page);
    print(&page)
}

fn hosts(fabric: &Fabric, page: &mut String) {
    let by_host = fabric.workers_by_host();
    let _ = writeln!(page, "\nhosts");
    let used = fabric.hosts().iter().zip(&by_host).zip(0u32..);
    for ((host, workers), at) in used.take(MOST_HOSTS) {
        let mut who: Vec<String> = Vec::new();
        if fabric.host_of(0) == at {
            who.push("coordinator".to_owned());
        }
        who.extend(span(workers));
        if who.is_empty() {
            who.push("nobody".to_owned());
        }
        let _ = writeln!(
            page,
            "  {:<12}  rack {:<3}  {:>3} cores  {:>2} of {:<2} slots  {} × {}  {}",
            host.name,
            host.rack,
            host.cores,
            workers.len(),
            host.slots,
            host.nics,
            show_rate(host.bytes_per_ns),
            who.join(", "),
        );
    }
    if let Some(more) = by_host
        .len()
        .checked_sub(MOST_HOSTS)
        .filter(|more| *more > 0)
    {
        let _ = writeln!(page, "  … and {more} more");
    }
}

/// Workers of a host, which need not follow each other.
fn span(workers: &[u32]) -> Option<String> {
    let name = |endpoint: u32| format!("worker-{}", endpoint - 1);
    let (first, last) = (*workers.first()?, *workers.last()?);
    let is_run = (first..=last).count() == workers.len();
    Some(match (workers.len(), is_run) {
        (1, _) => name(first),
        (_, true) => format!("{} to {}", name(first), name(last)),
        (_, false) => workers
            .iter()
            .map(|one| name(*one))
            .collect::<Vec<_>>()
            .join(", "),
    })
}

/// Each kind of path once, by its first pair.
fn paths(fabric: &Fabric, page: &mut String) {
    let _ = writeln!(page, "\npaths, one way");
    let some = &representatives(fabric);
    let mut seen: Vec<Path> = Vec::new();
    let pairs = some
        .iter()
        .flat_map(|from| some.iter().map(|to| (*from, *to)));
    for (from, to) in pairs {
        let path = fabric.path(from, to);
        let same = |other: &Path| {
            let figures = |path: &Path| {
                (
                    path.latency_ns,
                    path.jitter_ns,
                    path.per_message_ns,
                    path.len,
                )
            };
            other.tier == path.tier
                && figures(other) == figures(&path)
                && other.bytes_per_ns() == path.bytes_per_ns()
                && other.loss == path.loss
        };
        if from == to || seen.iter().any(same) {
            continue;
        }
        seen.push(path);
        let ports: Vec<String> = path
            .hops()
            .iter()
            .map(|hop| fabric.port_name(hop.port))
            .collect();
        let _ = writeln!(
            page,
            "  {:<6}  {:>9} + bytes / {}{}  ({})",
            path.tier.name(),
            show_time(path.latency_ns),
            show_rate(path.bytes_per_ns()),
            extras(&path),
            ports.join(" → "),
        );
    }
}

/// Endpoints whose paths are looked at: two of each host, of hosts of a rack that are alike two, and
/// all that a link of its own names.
fn representatives(fabric: &Fabric) -> Vec<u32> {
    let overrides = &fabric.topology().overrides;
    let mut some = vec![0];
    let mut alike: BTreeMap<(u32, u32, u32, u64), u32> = BTreeMap::new();
    for (host, workers) in fabric.hosts().iter().zip(fabric.workers_by_host()) {
        let kind = (
            host.rack,
            host.nics,
            host.device,
            host.bytes_per_ns.to_bits(),
        );
        let seen = alike.entry(kind).or_default();
        *seen += 1;
        let usual = *seen <= 2 && some.len() < MOST_ENDS;
        let named = |own: &LinkOverride| [&own.from, &own.to].contains(&&host.name);
        if usual || overrides.iter().any(named) {
            some.extend(workers.iter().take(2));
        }
    }
    some
}

fn extras(path: &Path) -> String {
    let mut text = String::new();
    if path.jitter_ns > 0 {
        let _ = write!(text, ", jitter to {}", show_time(path.jitter_ns));
    }
    if path.loss > 0.0 {
        let _ = write!(text, ", loss {} %", 100.0 * path.loss);
    }
    if path.per_message_ns > 0 {
        let _ = write!(text, ", {} a message", show_time(path.per_message_ns));
    }
    if path.per_peer_ns > 0 {
        let _ = write!(text, ", {} a peer", show_time(path.per_peer_ns));
    }
    text
}

fn devices(fabric: &Fabric, page: &mut String) {
    let _ = writeln!(page, "\ndevices, one a worker");
    let mut seen: Vec<&Device> = Vec::new();
    for host in fabric.hosts() {
        let Some(device) = fabric.topology().devices.get(host.device as usize) else {
            continue;
        };
        if seen.contains(&device) {
            continue;
        }
        seen.push(device);
        let _ = writeln!(
            page,
            "  {:<6}  {} GFLOP/s, {} of it reached, memory {:.1} GB/s, {} a product\n          ({})",
            device.name,
            device.flops / 1e9,
            device.efficiency,
            device.memory_bytes_per_s / 1e9,
            show_time(device.launch_ns),
            device.source,
        );
    }
}
