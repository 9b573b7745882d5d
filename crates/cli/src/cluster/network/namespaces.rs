//! Processes with networks of their own, and a switch of packets between them.
//!
//! A namespace of the kernel holds one endpoint: its only way out is a device of the launcher's
//! switch, whose thread makes all of them. The launcher's main thread moves to the coordinator's, to
//! reach it, and starts each child from within the child's.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use expertmesh_transport::{Emulation, Switch, SwitchShaping};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::process::{getgid, getuid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::error::Failure;

/// The namespaces of a cluster's endpoints. They end with this process and those within them.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// By endpoint.
    places: Vec<Place>,
    shaping: SwitchShaping,
}

/// A namespace that processes can be started in.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    namespace: Arc<File>,
    /// Where this process is otherwise.
    home: Arc<File>,
}

/// What the thread of the switch says when it has made everything, or could not.
type Made = Result<Vec<File>, Failure>;

/// Where devices come from.
const TUN: &str = "/dev/net/tun";
/// How TCP behaves in a namespace, which its thread writes. A connection that paused would begin slowly
/// again, and steps are bursts with pauses. Reno (RFC 5681) is the one congestion control that every
/// kernel has and gives to everybody, so that runs on different machines compare.
const TCP: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv4/tcp_slow_start_after_idle", "0"),
    ("/proc/sys/net/ipv4/tcp_congestion_control", "reno"),
];

// === impl Namespaces ===

impl Namespaces {
    /// Makes a namespace for every endpoint of `emulation`, and moves the calling thread, which must
    /// be the only one unless the process may make namespaces without, to that of endpoint 0.
    ///
    /// # Errors
    /// [`Failure::Input`] where this machine or its kernel does not give them.
    pub(crate) fn new(emulation: Emulation) -> Result<Self, Failure> {
        let ip = preflight()?;
        if !may_make_networks() {
            become_root_of_nothing()?;
        }
        let endpoints = emulation.fabric().endpoints();
        if endpoints > Switch::MOST_ENDPOINTS {
            return Err(Failure::input(format!(
                "--links namespaces has addresses for {} endpoints, and there are {endpoints}",
                Switch::MOST_ENDPOINTS
            )));
        }
        let switch = Switch::new(emulation);
        let shaping = switch.shaping();
        let (say, made) = mpsc::channel();
        let thread = std::thread::Builder::new().name("switch".to_owned());
        let refused = |error| Failure::run(format!("cannot start the switch: {error}"));
        thread
            .spawn(move || be_switch(switch, endpoints, &ip, &say))
            .map_err(refused)?;
        let ended = |_| Failure::run("the switch ended before it was ready");
        let files = made.recv().map_err(ended)??;
        let files: Vec<Arc<File>> = files.into_iter().map(Arc::new).collect();
        let home = files.first().ok_or_else(|| Failure::run("no endpoint"))?;
        enter(home).map_err(|error| missing(&error))?;
        let place = |namespace: &Arc<File>| Place {
            namespace: Arc::clone(namespace),
            home: Arc::clone(home),
        };
        let places = files.iter().map(place).collect();
        Ok(Self { places, shaping })
    }

    /// Where `endpoint` is.
    pub(crate) fn place(&self, endpoint: usize) -> Option<Place> {
        self.places.get(endpoint).cloned()
    }

    pub(crate) fn shaping(&self) -> &SwitchShaping {
        &self.shaping
    }
}

// === impl Place ===

impl Place {
    /// Does `work`, which starts a process, in this namespace.
    ///
    /// # Errors
    /// [`Failure::Run`] if the kernel does not let this thread in, or out again.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> Result<T, Failure> {
        let refused = |error| Failure::run(format!("cannot change the namespace: {error}"));
        enter(&self.namespace).map_err(refused)?;
        let done = work();
        enter(&self.home).map_err(refused)?;
        Ok(done)
    }
}

fn enter(namespace: &File) -> Result<(), nix::Error> {
    setns(namespace, CloneFlags::CLONE_NEWNET)
}

/// What can be known before anything is tried; where the command `ip` is.
fn preflight() -> Result<PathBuf, Failure> {
    let device = File::options().read(true).write(true).open(TUN);
    if let Err(error) = device {
        return Err(missing(&format!("{TUN} cannot be opened ({error})")));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(system);
    let ip = folders.map(|folder| folder.join("ip"));
    let found = ip.into_iter().find(|ip| ip.is_file());
    found.ok_or_else(|| missing(&"there is no command `ip` (iproute2)"))
}

fn missing(what: &dyn std::fmt::Display) -> Failure {
    Failure::input(format!(
        "--links namespaces is not available here: {what}; leave it out, and the processes shape their \
         own links"
    ))
}

fn may_make_networks() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    capabilities(None).is_ok_and(|held| held.effective.contains(needed))
}

/// Enters a user namespace in which an ordinary user has the rights that networks of one's own need,
/// and no right outside of it.
fn become_root_of_nothing() -> Result<(), Failure> {
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let refused = |error: nix::Error| missing(&format!("no user namespace ({error})"));
    unshare(CloneFlags::CLONE_NEWUSER).map_err(refused)?;
    let maps = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {user} 1")),
        ("gid_map", format!("0 {group} 1")),
    ];
    for (file, text) in maps {
        let written = std::fs::write(format!("/proc/self/{file}"), text);
        written.map_err(|error| missing(&format!("/proc/self/{file} refuses ({error})")))?;
    }
    Ok(())
}

/// The thread of the switch, from its devices to the end of the process.
fn be_switch(switch: Switch, endpoints: usize, ip: &std::path::Path, say: &Sender<Made>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            // Whoever waits reads it, or has given up.
            let _ = say.send(Err(Failure::run(format!("no runtime: {error}"))));
            return;
        }
    };
    let made = {
        let _inside = runtime.enter();
        connect_all(switch, endpoints, ip)
    };
    let switch = match made {
        Ok((switch, places)) => {
            let _ = say.send(Ok(places));
            switch
        }
        Err(failure) => {
            let _ = say.send(Err(failure));
            return;
        }
    };
    let error = runtime.block_on(switch.run());
    tracing::error!(%error, "the links of the cluster are gone");
}

/// A namespace for each endpoint, with a device of the switch in it. This thread ends up in the last.
fn connect_all(
    mut switch: Switch,
    endpoints: usize,
    ip: &std::path::Path,
) -> Result<(Switch, Vec<File>), Failure> {
    let mut places = Vec::with_capacity(endpoints);
    for _ in 0..endpoints {
        let refused = |error: nix::Error| missing(&format!("no network namespace ({error})"));
        unshare(CloneFlags::CLONE_NEWNET).map_err(refused)?;
        // An endpoint reaches itself, too.
        let up = Command::new(ip)
            .args(["link", "set", "lo", "up"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        if !up.is_ok_and(|status| status.success()) {
            return Err(missing(&"`ip link set lo up` failed"));
        }
        for (file, value) in TCP {
            if let Err(error) = std::fs::write(file, value) {
                // The probe tells whether it matters.
                tracing::warn!(%error, file, value, "cannot be written");
            }
        }
        let connected = switch.connect_here();
        connected.map_err(|error| missing(&error))?;
        let place = File::open("/proc/thread-self/ns/net");
        places.push(place.map_err(|error| missing(&error))?);
    }
    Ok((switch, places))
}
