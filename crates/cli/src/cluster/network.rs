//! The emulated network of a cluster on this machine.
//!
//! The launcher makes a file that has no name: the words that all endpoints share, and behind them
//! the topology as it was read, so that every process sees the same. Children open it through the
//! launcher's descriptor; it is gone when the last of them is, however they end.

mod namespaces;
mod probe;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use expertmesh_kernels::SharedWords;
use expertmesh_telemetry::{self as telemetry, Environment, Run};
use expertmesh_topology::{Fabric, Topology};
use expertmesh_transport::{Emulation, LinkOptions, Switch, monotonic_ns};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::cluster::network::namespaces::Namespaces;
pub(crate) use crate::cluster::network::namespaces::Place;

use crate::args::network::Links;
use crate::error::Failure;
use crate::output::print;

/// A network, as its launcher holds it.
#[derive(Debug)]
pub(crate) struct Network {
    /// Keeps the descriptor open that children find the network through.
    file: File,
    /// As the topology says, in its own time.
    asked: Fabric,
    dilation: f64,
    /// Share by which a probe may be off.
    tolerance: f64,
    /// Of the launcher, in the coordinator's place.
    options: LinkOptions,
    /// Whether the links of a cluster of this network were told.
    told: AtomicBool,
    /// Where the endpoints are, if a switch between them shapes the links.
    namespaces: Option<Namespaces>,
}

/// Where a child finds the network, and who it is in it: `PATH:ENDPOINT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Emulated {
    path: PathBuf,
    endpoint: u32,
}

/// Name of the flag that holds an [`Emulated`].
const FLAG: &str = "--emulated";
/// Bytes behind the topology's text: its length, the number of workers, the dilation, and whether a
/// switch shapes the links.
const TRAILER: usize = 32;

// === impl Network ===

impl Network {
    /// # Errors
    /// [`Failure::Input`] for a topology that does not fit `workers` workers or that links cannot
    /// honour, [`Failure::Run`] if the system gives no memory.
    pub(crate) fn new(
        topology: Topology,
        dilation: f64,
        tolerance: f64,
        workers: usize,
        links: Links,
    ) -> Result<Self, Failure> {
        let asked = Fabric::new(&topology, workers)?;
        refuse_field(&topology, "per_peer", topology.tiers.has_per_peer(), links)?;
        let is_switched = links == Links::Namespaces;
        if is_switched {
            let costs = topology.has_per_message();
            refuse_field(&topology, "per_message", costs, links)?;
        }
        let fabric = Fabric::new(&topology.dilated(dilation), workers)?;
        let refused = |error| Failure::run(format!("cannot share a network: {error}"));
        let needed = Emulation::words_for(&fabric);
        let made = memfd_create("expertmesh-network", MemfdFlags::CLOEXEC);
        let file = File::from(made.map_err(|error| refused(error.into()))?);
        let mut rest = topology.origin.text.clone().into_bytes();
        let fields = [
            rest.len() as u64,
            workers as u64,
            dilation.to_bits(),
            u64::from(is_switched),
        ];
        rest.extend(fields.into_iter().flat_map(u64::to_le_bytes));
        let written = file.write_all_at(&rest, 8 * needed as u64);
        written.map_err(refused)?;
        let words = SharedWords::map(&file, needed).map_err(refused)?;
        // Tells this network from others of the machine; never 0, which no clock shows.
        words.as_ref()[0].store(monotonic_ns().max(1), Ordering::Release);
        let emulation = Emulation::new(fabric, 0, Arc::new(words))?.dilated(dilation);
        let namespaces = match is_switched {
            true => Some(Namespaces::new(emulation.clone())?),
            false => None,
        };
        Ok(Self {
            options: options(emulation, is_switched),
            namespaces,
            file,
            asked,
            dilation,
            tolerance,
            told: AtomicBool::new(false),
        })
    }

    /// The flags that make a child endpoint `endpoint` of this network.
    pub(crate) fn flags(&self, endpoint: usize) -> [OsString; 2] {
        let (pid, fd) = (std::process::id(), self.file.as_raw_fd());
        [
            FLAG.into(),
            format!("/proc/{pid}/fd/{fd}:{endpoint}").into(),
        ]
    }

    /// Whether nobody outside of the cluster reaches its processes.
    pub(crate) fn is_closed(&self) -> bool {
        self.namespaces.is_some()
    }

    /// Where the process of `endpoint` is to be started; `None` for where this one is.
    pub(crate) fn place(&self, endpoint: usize) -> Option<Place> {
        self.namespaces.as_ref()?.place(endpoint)
    }

    /// Address of `endpoint` at which the system chooses a free port.
    pub(crate) fn any_port(&self, endpoint: usize) -> Option<String> {
        self.namespaces.as_ref()?;
        let endpoint = u32::try_from(endpoint).ok()?;
        Some(format!("{}:0", Switch::address(endpoint)))
    }

    /// Links of this process, which is then the coordinator.
    pub(crate) fn options(&self) -> LinkOptions {
        self.options.clone()
    }

    /// Probes the links of a cluster that has just come up, and tells what they do unless a cluster
    /// before it was told of.
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub(crate) async fn check(&self, addresses: &[&str]) -> Result<(), Failure> {
        let page = self.probe(addresses).await?;
        match self.told.swap(true, Ordering::Relaxed) {
            false => print(&page),
            true => Ok(()),
        }
    }

    /// Leaves the probe of clusters untold: whoever launches many tells of them in a table of its own.
    pub(crate) fn hush(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// Says that `run` was taken over these links, and turns its times into the topology's.
    pub(crate) fn mark(&self, run: &mut Run) {
        run.emulate(self.dilation);
    }

    /// Says the same of the place.
    pub(crate) fn mark_place(&self, environment: &mut Environment) {
        environment.network = telemetry::Network::Emulated;
        environment.topology = Some(self.describe());
    }

    /// "h100, 2 hosts, dilation 50".
    fn describe(&self) -> String {
        let mut text = machines(&self.asked);
        if self.dilation > 1.0 {
            text.push_str(&format!(", dilation {}", self.dilation));
        }
        if self.namespaces.is_some() {
            text.push_str(", network namespaces");
        }
        text
    }
}

/// "h100, 2 hosts": a topology and how many of its hosts have workers, as reports tell it.
pub(crate) fn machines(fabric: &Fabric) -> String {
    let used = fabric.workers_by_host();
    let used = used.iter().filter(|workers| !workers.is_empty()).count();
    let hosts = if used == 1 { "host" } else { "hosts" };
    format!("{}, {used} {hosts}", fabric.topology().name)
}

fn options(emulation: Emulation, is_switched: bool) -> LinkOptions {
    let emulation = match is_switched {
        true => emulation.switched(),
        false => emulation,
    };
    LinkOptions {
        emulation: Some(emulation),
        ..LinkOptions::default()
    }
}

/// Refuses a cost that links of that kind do not see, with its line.
fn refuse_field(
    topology: &Topology,
    field: &str,
    is_there: bool,
    links: Links,
) -> Result<(), Failure> {
    if !is_there {
        return Ok(());
    }
    let why = match links {
        Links::Emulated => {
            "is a cost of whole exchanges, which links of a real cluster do not see; expected \
             `per_message`"
        }
        Links::Namespaces => {
            "is a cost that packets do not see; leave it out, or leave out --links namespaces"
        }
    };
    let names_it = |line: &str| line.split('#').next().unwrap_or(line).contains(field);
    let line = topology.origin.text.lines().position(names_it);
    Err(Failure::input(format!(
        "{}:{}: `{field}` {why}",
        topology.origin.file,
        line.map_or(1, |line| line + 1)
    )))
}

// === impl Emulated ===

impl Emulated {
    /// Links of the process that was given `flag`; the machine's own without one.
    ///
    /// # Errors
    /// [`Failure::Run`] if the launcher's network cannot be opened.
    pub(crate) fn options(flag: Option<&Self>) -> Result<LinkOptions, Failure> {
        match flag {
            Some(flag) => flag.open(),
            None => Ok(LinkOptions::default()),
        }
    }

    fn open(&self) -> Result<LinkOptions, Failure> {
        let at = self.path.display();
        let refused = |error| Failure::run(format!("cannot open the network at {at}: {error}"));
        let broken = || Failure::run(format!("{at} holds no network"));
        let all = std::fs::read(&self.path).map_err(refused)?;
        let (rest, trailer) = all.split_last_chunk::<TRAILER>().ok_or_else(broken)?;
        let field = |at: usize| {
            let bytes = trailer.get(8 * at..8 * at + 8)?.try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        let count = |at: usize| usize::try_from(field(at)?).ok();
        let (length, workers) = count(0).zip(count(1)).ok_or_else(broken)?;
        let dilation = field(2).map(f64::from_bits).ok_or_else(broken)?;
        let is_switched = field(3).ok_or_else(broken)? == 1;
        let start = rest.len().checked_sub(length).ok_or_else(broken)?;
        let text = std::str::from_utf8(&rest[start..]).map_err(|_| broken())?;
        let topology = Topology::parse(text, "topology")?;
        let fabric = Fabric::new(&topology.dilated(dilation), workers)?;
        let file = File::options()
            .read(true)
            .write(true)
            .open(&self.path)
            .map_err(refused)?;
        let words = SharedWords::map(&file, Emulation::words_for(&fabric)).map_err(refused)?;
        let emulation = Emulation::new(fabric, self.endpoint, Arc::new(words))?;
        Ok(options(emulation.dilated(dilation), is_switched))
    }
}

impl FromStr for Emulated {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected PATH:ENDPOINT, as a launcher gives it".to_owned();
        let (path, endpoint) = text.rsplit_once(':').ok_or_else(expected)?;
        Ok(Self {
            path: path.into(),
            endpoint: endpoint.parse().map_err(|_| expected())?,
        })
    }
}
