//! A topology with endpoints on its hosts: who sits where, every port, every path.

use crate::error::TopologyError;
use crate::model::{Device, Host, Link, LinkOverride, Topology, Uplink};
use crate::path::{Hop, Path, PortId, Tier};

/// Endpoints 0 (the coordinator) and 1..=N (workers) on the hosts of a topology.
///
/// A path is computed when it is asked for, so a fabric of thousands of endpoints stays small.
#[derive(Debug, Clone)]
pub struct Fabric {
    topology: Topology,
    hosts: Vec<Host>,
    places: Vec<Place>,
    /// Racks in order of their numbers, and the index of each host's.
    racks: Vec<Rack>,
    rack_of: Vec<u32>,
    /// Ends of the overrides, in their order.
    ends: Vec<Ends>,
    /// First port of each host's network ports.
    nic_ports: Vec<u32>,
    /// First port of the uplinks, and of the links that pairs have to themselves.
    rack_ports: u32,
    own_ports: u32,
    ports: u32,
}

/// Where an endpoint sits.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    host: u32,
    nic: u32,
}

/// The hosts at both ends of an override; `None` is every host.
#[derive(Debug, Clone, Copy)]
struct Ends {
    from: Option<u32>,
    to: Option<u32>,
    one_way: bool,
}

#[derive(Debug, Clone, Copy)]
struct Rack {
    number: u32,
    /// Rate of its uplink and of its downlink.
    bytes_per_ns: f64,
}

// === impl Fabric ===

impl Fabric {
    /// Puts `workers` workers on the hosts of `topology`: where its file says, else in order, each
    /// host filled before the next. The coordinator sits on the first host unless the file says
    /// otherwise, and takes no slot.
    ///
    /// # Errors
    /// [`TopologyError::Workers`] for no worker or more than fit; [`TopologyError::Field`] for a host
    /// that is named and not there.
    pub fn new(topology: &Topology, workers: usize) -> Result<Self, TopologyError> {
        let hosts = hosts_for(topology, workers)?;
        let places = places(topology, &hosts, workers)?;
        let racks = racks(topology, &hosts);
        let number = |host: &Host| index(racks.partition_point(|rack| rack.number < host.rack));
        let rack_of = hosts.iter().map(number).collect();
        let ends = topology.overrides.iter().map(|own| Ends::of(own, &hosts));

        let mut next = 2 * index(places.len());
        let mut nic_ports = Vec::with_capacity(hosts.len());
        for host in &hosts {
            nic_ports.push(next);
            next += 2 * host.nics;
        }
        let rack_ports = next;
        let own_ports = rack_ports + 2 * index(racks.len());
        Ok(Self {
            ports: own_ports + 2 * index(topology.overrides.len()),
            topology: topology.clone(),
            ends: ends.collect(),
            hosts,
            places,
            racks,
            rack_of,
            nic_ports,
            rack_ports,
            own_ports,
        })
    }

    /// The topology that this was made from.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Endpoints, the coordinator included.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        self.places.len()
    }

    /// The hosts in use or listed.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Index of the host of `endpoint` in [`Self::hosts`].
    #[must_use]
    pub fn host_of(&self, endpoint: u32) -> u32 {
        self.place(endpoint).host
    }

    /// Which network port of its host `endpoint` uses.
    #[must_use]
    pub fn nic_of(&self, endpoint: u32) -> u32 {
        self.place(endpoint).nic
    }

    /// Cores that the endpoints of `host` share.
    #[must_use]
    pub fn cores_of_host(&self, host: u32) -> u32 {
        self.hosts.get(host as usize).map_or(1, |host| host.cores)
    }

    /// What `endpoint` computes on.
    #[must_use]
    pub fn device_of(&self, endpoint: u32) -> &Device {
        // Every host's device is an index into a list that is never empty: the reader checked.
        &self.topology.devices[self.host(endpoint).device as usize]
    }

    /// Workers of each host, as endpoint numbers.
    #[must_use]
    pub fn workers_by_host(&self) -> Vec<Vec<u32>> {
        let mut by_host = vec![Vec::new(); self.hosts.len()];
        for (place, endpoint) in self.places.iter().zip(0u32..).skip(1) {
            by_host[place.host as usize].push(endpoint);
        }
        by_host
    }

    /// `[workers]` which of the hosts that have workers each is on, counted from 0 in the order of
    /// the hosts.
    #[must_use]
    pub fn groups_of_workers(&self) -> Vec<u32> {
        let mut groups = vec![0; self.places.len() - 1];
        let by_host = self.workers_by_host();
        for (group, workers) in (0..).zip(by_host.iter().filter(|of| !of.is_empty())) {
            for worker in workers {
                groups[*worker as usize - 1] = group;
            }
        }
        groups
    }

    /// Ports; those of [`Path::hops`] are below this.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.ports as usize
    }

    /// A name for people: `worker-2 out`, `node3.nic0 in`, `rack1 up`, `node0 - node3 there`.
    #[must_use]
    pub fn port_name(&self, port: PortId) -> String {
        let side = |offset: u32, names: [&'static str; 2]| names[(offset % 2) as usize];
        let PortId(port) = port;
        let first_nic = 2 * index(self.places.len());
        if port < first_nic {
            let name = endpoint_name(port / 2);
            return format!("{name} {}", side(port, ["out", "in"]));
        }
        if port < self.rack_ports {
            let host = self.nic_ports.partition_point(|first| *first <= port) - 1;
            let offset = port - self.nic_ports[host];
            let name = &self.hosts[host].name;
            return format!("{name}.nic{} {}", offset / 2, side(offset, ["out", "in"]));
        }
        if port < self.own_ports {
            let offset = port - self.rack_ports;
            let rack = self.racks[(offset / 2) as usize].number;
            return format!("rack{rack} {}", side(offset, ["up", "down"]));
        }
        let offset = port - self.own_ports;
        match self.topology.overrides.get((offset / 2) as usize) {
            Some(own) => format!(
                "{} - {} {}",
                own.from,
                own.to,
                side(offset, ["there", "back"])
            ),
            None => format!("port {port}"),
        }
    }

    /// The way from endpoint `from` to endpoint `to`.
    #[must_use]
    pub fn path(&self, from: u32, to: u32) -> Path {
        if from == to {
            return Path::default();
        }
        let tiers = &self.topology.tiers;
        let (source, target) = (self.host_of(from), self.host_of(to));
        if source == target {
            let rate = tiers.host.bytes_per_ns;
            let ports = [(2 * from, rate), (2 * to + 1, rate), NONE, NONE];
            return path(Tier::Host, &tiers.host, 2, ports);
        }
        let one = (self.nic_port(from), self.host(from).bytes_per_ns);
        let other = (self.nic_port(to) + 1, self.host(to).bytes_per_ns);
        let (up, down) = (self.rack_of(source), self.rack_of(target));
        let spine = tiers.spine.filter(|_| up != down);
        let tier = if spine.is_some() {
            Tier::Spine
        } else {
            Tier::Rack
        };
        let mut link = spine.map_or(tiers.rack, |spine| spine.link);

        let own = self.override_of(source, target);
        if let Some((_, _, own)) = own {
            replace(&mut link, own);
        }
        if let Some((at, way, rate)) =
            own.and_then(|(at, way, own)| Some((at, way, own.bytes_per_ns?)))
        {
            let between = (self.own_ports + 2 * at + way, rate);
            return path(tier, &link, 3, [one, between, other, NONE]);
        }
        if spine.is_none() {
            return path(tier, &link, 2, [one, other, NONE, NONE]);
        }
        let uplink = |rack: u32, side: u32| {
            let port = self.rack_ports + 2 * rack + side;
            (port, self.racks[rack as usize].bytes_per_ns)
        };
        path(tier, &link, 4, [one, uplink(up, 0), uplink(down, 1), other])
    }

    fn place(&self, endpoint: u32) -> Place {
        self.places
            .get(endpoint as usize)
            .copied()
            .unwrap_or_default()
    }

    fn host(&self, endpoint: u32) -> &Host {
        &self.hosts[self.place(endpoint).host as usize]
    }

    fn nic_port(&self, endpoint: u32) -> u32 {
        let place = self.place(endpoint);
        self.nic_ports[place.host as usize] + 2 * place.nic
    }

    /// Index of a host's rack in the order of their numbers.
    fn rack_of(&self, host: u32) -> u32 {
        self.rack_of.get(host as usize).copied().unwrap_or_default()
    }

    /// The last entry that holds from one host to another: its index, which way, and itself.
    fn override_of(&self, from: u32, to: u32) -> Option<(u32, u32, &LinkOverride)> {
        let entries = self.topology.overrides.iter().zip(&self.ends).enumerate();
        let mut fitting = entries
            .rev()
            .filter_map(|(at, (own, ends))| Some((index(at), ends.direction(from, to)?, own)));
        fitting.next()
    }
}

// === impl Ends ===

impl Ends {
    fn of(own: &LinkOverride, hosts: &[Host]) -> Self {
        let find = |name: &str| {
            let at = hosts.iter().position(|host| host.name == name);
            // A host that is not in use has an index that no host has.
            (name != "*").then(|| at.map_or(u32::MAX, index))
        };
        Self {
            from: find(&own.from),
            to: find(&own.to),
            one_way: own.one_way,
        }
    }

    /// Which way the entry holds from host `from` to host `to`: 0 as it is written, 1 on the way
    /// back, `None` not at all.
    fn direction(self, from: u32, to: u32) -> Option<u32> {
        let fits = |end: Option<u32>, host: u32| end.is_none_or(|end| end == host);
        if fits(self.from, from) && fits(self.to, to) {
            return Some(0);
        }
        (!self.one_way && fits(self.from, to) && fits(self.to, from)).then_some(1)
    }
}

/// Name of an endpoint, as coordinators give it.
fn endpoint_name(endpoint: u32) -> String {
    match endpoint.checked_sub(1) {
        None => "coordinator".to_owned(),
        Some(worker) => format!("worker-{worker}"),
    }
}

/// No port.
const NONE: (u32, f64) = (0, 0.0);

/// A way of `len` ports: numbers and rates, those that are not there last.
fn path(tier: Tier, link: &Link, len: u8, ports: [(u32, f64); 4]) -> Path {
    let mut hops = ports.map(|(port, bytes_per_ns)| Hop {
        port: PortId(port),
        bytes_per_ns,
        hold_ns: 0,
    });
    hops[0].hold_ns = link.per_message_ns;
    Path {
        tier,
        hops,
        len,
        latency_ns: link.latency_ns,
        jitter_ns: link.jitter_ns,
        loss: link.loss,
        per_message_ns: link.per_message_ns,
        per_peer_ns: link.per_peer_ns,
    }
}

fn replace(link: &mut Link, own: &LinkOverride) {
    link.latency_ns = own.latency_ns.unwrap_or(link.latency_ns);
    link.jitter_ns = own.jitter_ns.unwrap_or(link.jitter_ns);
    link.loss = own.loss.unwrap_or(link.loss);
    link.per_message_ns = own.per_message_ns.unwrap_or(link.per_message_ns);
}

/// The listed hosts, the last one as often as `workers` need it.
fn hosts_for(topology: &Topology, workers: usize) -> Result<Vec<Host>, TopologyError> {
    let refuse = |expected: String| TopologyError::Workers {
        file: topology.origin.file.clone(),
        line: topology.origin.hosts_line,
        workers,
        expected,
    };
    let mut hosts = topology.hosts.clone();
    let mut slots: usize = hosts.iter().map(|host| host.slots as usize).sum();
    if let (Some(grows), Some(last)) = (&topology.grows, topology.hosts.last()) {
        for number in 1u32.. {
            if slots >= workers || number >= MOST_ENDPOINTS {
                break;
            }
            hosts.push(Host {
                name: grows.name(number),
                rack: last.rack + number / grows.per_rack.max(1),
                ..last.clone()
            });
            slots += last.slots as usize;
        }
    }
    if workers == 0 || workers >= MOST_ENDPOINTS as usize {
        return Err(refuse(format!("1 to {}", MOST_ENDPOINTS - 1)));
    }
    if topology.workers.is_none() && slots < workers {
        let hosts = hosts.len();
        return Err(refuse(format!(
            "at most {slots}, the slots of its {hosts} hosts; raise `slots` or `count` of a host"
        )));
    }
    Ok(hosts)
}

/// More than any cluster that rows were ever traded in, and few enough for the numbers of ports.
const MOST_ENDPOINTS: u32 = 1 << 20;

fn places(
    topology: &Topology,
    hosts: &[Host],
    workers: usize,
) -> Result<Vec<Place>, TopologyError> {
    let missing = |field: &str, name: &str| TopologyError::Field {
        file: topology.origin.file.clone(),
        line: topology.origin.hosts_line,
        field: field.to_owned(),
        held: format!("names host \"{name}\""),
        expected: "a host of the file".to_owned(),
    };
    let find = |field: &str, name: &str| {
        let at = hosts.iter().position(|host| host.name == name);
        at.map(index).ok_or_else(|| missing(field, name))
    };
    let coordinator = match &topology.coordinator {
        Some(name) => find("coordinator", name)?,
        None => 0,
    };
    let of_workers: Vec<u32> = match &topology.workers {
        Some(names) if names.len() == workers => {
            let all = names.iter().map(|name| find("workers", name));
            all.collect::<Result<_, _>>()?
        }
        Some(names) => {
            return Err(TopologyError::Workers {
                file: topology.origin.file.clone(),
                line: topology.origin.workers_line,
                workers,
                expected: format!("{}, the entries of `workers`", names.len()),
            });
        }
        None => (0u32..)
            .zip(hosts)
            .flat_map(|(at, host)| std::iter::repeat_n(at, host.slots as usize))
            .take(workers)
            .collect(),
    };
    let mut taken = vec![0u32; hosts.len()];
    let mut places = vec![Place {
        host: coordinator,
        nic: 0,
    }];
    for host in of_workers {
        let at = host as usize;
        places.push(Place {
            host,
            nic: taken[at] % hosts[at].nics.max(1),
        });
        taken[at] += 1;
        if taken[at] > hosts[at].slots {
            return Err(TopologyError::Workers {
                file: topology.origin.file.clone(),
                line: topology.origin.workers_line,
                workers,
                expected: format!(
                    "at most {} of them on host \"{}\", its slots",
                    hosts[at].slots, hosts[at].name
                ),
            });
        }
    }
    Ok(places)
}

fn racks(topology: &Topology, hosts: &[Host]) -> Vec<Rack> {
    let mut numbers: Vec<u32> = hosts.iter().map(|host| host.rack).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let rate = |number: u32| match topology.tiers.spine.map(|spine| spine.uplink) {
        Some(Uplink::Rate(rate)) => rate,
        Some(Uplink::Oversubscription(factor)) => {
            let inside = hosts.iter().filter(|host| host.rack == number);
            let sum: f64 = inside
                .map(|host| f64::from(host.nics) * host.bytes_per_ns)
                .sum();
            sum / factor
        }
        None => f64::INFINITY,
    };
    let rack = |number| Rack {
        number,
        bytes_per_ns: rate(number),
    };
    numbers.into_iter().map(rack).collect()
}

/// Counts are bounded by [`MOST_ENDPOINTS`].
fn index(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
