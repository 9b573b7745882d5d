//! What a topology file says, read and checked.

/// Hosts, what connects them, and what computes on them.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// Name for reports.
    pub name: String,
    /// Hosts in the order in which workers fill them. Where [`Self::grows`] says so, the last one
    /// stands for as many as are needed.
    pub hosts: Vec<Host>,
    /// How the last host repeats as often as workers need it (`count = "any"`). `None`: the hosts are
    /// those that are listed.
    pub grows: Option<Grows>,
    /// Links by how far two endpoints are apart.
    pub tiers: Tiers,
    /// Pairs of hosts whose link differs; of several that fit a pair the last one holds.
    pub overrides: Vec<LinkOverride>,
    /// What computes; [`Host::device`] is an index into these.
    pub devices: Vec<Device>,
    /// Host of the coordinator; `None`: the first.
    pub coordinator: Option<String>,
    /// Host of each worker, where the file lists them; `None`: hosts are filled in order.
    pub workers: Option<Vec<String>>,
    /// Seed of jitter and loss.
    pub seed: u64,
    /// Where all of this was read.
    pub origin: Origin,
}

/// A file, and the lines that later errors are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file, as it was named.
    pub file: String,
    /// Line of the last table of hosts, from 1.
    pub hosts_line: usize,
    /// Line of the list of workers; that of the hosts where there is none.
    pub workers_line: usize,
    /// The text, so that every process of a cluster reads the same.
    pub text: String,
}

/// A host that stands for as many as are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grows {
    /// What its name begins with; a number follows.
    pub stem: String,
    /// Hosts of a rack; `u32::MAX` for a rack without bound.
    pub per_rack: u32,
}

/// A machine. Its endpoints share its cores and its ports.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Name in paths and tables.
    pub name: String,
    /// Rack, numbered from 0 as the file does.
    pub rack: u32,
    /// Cores that its workers share.
    pub cores: u32,
    /// Index into [`Topology::devices`]: what each of its workers computes on.
    pub device: u32,
    /// Workers that fit.
    pub slots: u32,
    /// Network ports; the i-th worker of the host uses port i modulo this.
    pub nics: u32,
    /// Rate of each of them, each way, in bytes per nanosecond.
    pub bytes_per_ns: f64,
}

/// What one worker computes on: the roofline of its experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Name that hosts refer to.
    pub name: String,
    /// Peak, in floating-point operations a second.
    pub flops: f64,
    /// Peak of its memory, in bytes a second.
    pub memory_bytes_per_s: f64,
    /// Share of `flops` that real work reaches; what it reaches of the memory's rate is a cost
    /// (`experts.bandwidth_share`).
    pub efficiency: f64,
    /// Fixed cost of one product, in nanoseconds.
    pub launch_ns: u64,
    /// Where these figures come from.
    pub source: String,
}

/// A link between two endpoints of a tier, one way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// From the first bit's departure to its arrival.
    pub latency_ns: u64,
    /// Rate of the ports at its ends, in bytes per nanosecond; of the spine, of a rack's uplink.
    pub bytes_per_ns: f64,
    /// Largest jitter, added to the latency.
    pub jitter_ns: u64,
    /// Share of packets that are lost and sent again.
    pub loss: f64,
    /// Time that each message holds its sender's port besides its bytes.
    pub per_message_ns: u64,
    /// Time that each peer costs a sender once in an exchange; cost models charge it, and links in
    /// real clusters refuse it.
    pub per_peer_ns: u64,
}

/// The links of a topology.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tiers {
    /// Between two endpoints of one host: loopback, or NVLink. Each endpoint has ports of its own.
    pub host: Link,
    /// Whether the file says nothing about [`Self::host`], which then has the figures of a usual
    /// loopback, and links in a real cluster stay the machine's own.
    pub host_is_usual: bool,
    /// Between two hosts of a rack: their network ports.
    pub rack: Link,
    /// Between two racks; `None` where there is one rack.
    pub spine: Option<Spine>,
}

/// What lies between racks. Network ports at both ends are those of the hosts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spine {
    /// Its rate is the uplink's where [`Uplink::Rate`] states it.
    pub link: Link,
    /// What the hosts of a rack share on their way out, and on their way in.
    pub uplink: Uplink,
}

/// Rate of a rack's uplink and downlink.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Uplink {
    /// In bytes per nanosecond.
    Rate(f64),
    /// Sum of the rack's network ports, divided by this.
    Oversubscription(f64),
}

/// A pair of hosts whose link differs from its tier.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkOverride {
    /// Name of a host; `*` is every host.
    pub from: String,
    /// Name of a host; `*` is every host.
    pub to: String,
    /// Whether the way back keeps its tier.
    pub one_way: bool,
    /// What differs; `None` is as in the tier.
    pub latency_ns: Option<u64>,
    /// A link of its own with this rate, which every pair of this entry shares each way and which
    /// does not pass the racks' uplinks; in bytes per nanosecond.
    pub bytes_per_ns: Option<f64>,
    /// See [`Link::jitter_ns`].
    pub jitter_ns: Option<u64>,
    /// See [`Link::loss`].
    pub loss: Option<f64>,
    /// See [`Link::per_message_ns`].
    pub per_message_ns: Option<u64>,
    /// Its line in the file, from 1.
    pub line: usize,
}

// === impl Tiers ===

impl Tiers {
    /// Whether a link has a cost of a peer, which whole exchanges have and messages do not.
    #[must_use]
    pub fn has_per_peer(&self) -> bool {
        self.links().any(|link| link.per_peer_ns > 0)
    }

    fn links(&self) -> impl Iterator<Item = Link> {
        let spine = self.spine.map(|spine| spine.link);
        [Some(self.host), Some(self.rack), spine]
            .into_iter()
            .flatten()
    }
}

// === impl Grows ===

impl Grows {
    /// Name of its host `number`, from 0.
    pub(crate) fn name(&self, number: u32) -> String {
        format!("{}{number}", self.stem)
    }

    /// Whether a host of this name comes with enough workers.
    pub(crate) fn makes(&self, name: &str) -> bool {
        let number = name.strip_prefix(&self.stem).map(str::parse);
        matches!(number, Some(Ok(number)) if self.name(number) == name)
    }
}

// === impl Topology ===

impl Topology {
    /// Whether a link has a cost of a message besides its bytes.
    #[must_use]
    pub fn has_per_message(&self) -> bool {
        let own = self.overrides.iter().filter_map(|one| one.per_message_ns);
        let all = self.tiers.links().map(|link| link.per_message_ns);
        all.chain(own).any(|cost| cost > 0)
    }

    /// The same machines with time stretched by `factor`: latencies, jitter and overheads times it,
    /// rates divided by it. Devices stay: who computes is stretched elsewhere.
    #[must_use]
    pub fn dilated(&self, factor: f64) -> Self {
        let mut slow = self.clone();
        slow.tiers.host.dilate(factor);
        slow.tiers.rack.dilate(factor);
        if let Some(spine) = &mut slow.tiers.spine {
            spine.link.dilate(factor);
            if let Uplink::Rate(rate) = &mut spine.uplink {
                *rate /= factor;
            }
        }
        for host in &mut slow.hosts {
            host.bytes_per_ns /= factor;
        }
        for one in &mut slow.overrides {
            for time in [
                &mut one.latency_ns,
                &mut one.jitter_ns,
                &mut one.per_message_ns,
            ] {
                *time = time.map(|ns| stretched(ns, factor));
            }
            one.bytes_per_ns = one.bytes_per_ns.map(|rate| rate / factor);
        }
        slow
    }
}

// === impl Link ===

impl Link {
    fn dilate(&mut self, factor: f64) {
        self.bytes_per_ns /= factor;
        for time in [
            &mut self.latency_ns,
            &mut self.jitter_ns,
            &mut self.per_message_ns,
            &mut self.per_peer_ns,
        ] {
            *time = stretched(*time, factor);
        }
    }
}

/// Rounded to a nanosecond; factors are checked where they are read.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn stretched(ns: u64, factor: f64) -> u64 {
    (ns as f64 * factor).round() as u64
}
