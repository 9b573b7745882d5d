//! The probe before a run: every link as asked for, beside what it does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use expertmesh_topology::{Path, Tier, show_rate, show_time};
use expertmesh_transport::{
    LinkOptions, OneWay, ProbePlan, Probed, SwitchShaping, probe, probe_between,
};

use crate::cluster::network::Network;
use crate::error::Failure;

/// Bytes of the message whose time is the latency.
const SMALL: u32 = 256;
/// Times that it is sent each way; the median counts.
const SMALL_ROUNDS: u32 = 7;
/// How long the message of the rate should take, and its least and most bytes: long beside a
/// wake-up, short beside a user's patience.
const LARGE_NS: f64 = 10e6;
const LARGE: [u32; 2] = [64 << 10, 4 << 20];
const LARGE_ROUNDS: u32 = 3;
/// Probes of a link before it counts as missed: another process may have had the core.
const TRIES: usize = 4;
/// Sleep is no deeper after that.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Beyond this many seconds only a sample of the pairs is probed.
const PATIENCE_S: f64 = 20.0;

/// What the machine does below the links.
#[derive(Debug, Clone, Copy)]
struct Machine {
    /// A small message, one way: shorter latencies cannot be told from wake-ups.
    floor_ns: u64,
    /// What links may be off by, whatever the tolerance.
    slack_ns: u64,
    bytes_per_ns: f64,
}

/// One direction of one pair.
#[derive(Debug, Clone, Copy)]
struct Way {
    from: usize,
    to: usize,
    path: Path,
    latency: Figure,
    /// Of the large message beyond the small one.
    transfer: Figure,
    large: u32,
}

/// Nanoseconds in the cluster's time.
#[derive(Debug, Clone, Copy)]
struct Figure {
    asked: u64,
    got: u64,
}

// === impl Network ===

impl Network {
    /// Probes the links of the workers at `addresses`, one pair after another, and tells what they do.
    ///
    /// # Errors
    /// [`Failure::Gate`] for a link beyond the tolerance, and for a rate that this machine does not
    /// carry; whatever ends a probe.
    pub(super) async fn probe(&self, addresses: &[&str]) -> Result<String, Failure> {
        let page = self.probe_all(addresses).await;
        self.shape(SwitchShaping::full);
        page
    }

    async fn probe_all(&self, addresses: &[&str]) -> Result<String, Failure> {
        let Some(first) = addresses.first() else {
            return Ok(String::new());
        };
        self.shape(SwitchShaping::bare);
        let machine = self.machine(first).await?;
        self.shape(SwitchShaping::quiet);
        self.check_rates(addresses.len(), &machine)?;
        let (pairs, all) = self.pairs(addresses.len());
        let mut ways = Vec::new();
        let mut tries = TRIES;
        for (from, to) in &pairs {
            let both = self
                .probe_pair(*from, *to, addresses, &machine, tries)
                .await?;
            if both
                .iter()
                .any(|way| way.misses(self.tolerance, machine.slack_ns))
            {
                // The run is off; the others are probed for the table alone.
                tries = 1;
            }
            ways.extend(both);
        }
        let mut page = format!("links: {}\n", self.describe());
        if self.dilation > 1.0 {
            let _ = writeln!(
                page,
                "  Links and experts take {} times as long, all else does not; times are divided by it.",
                self.dilation
            );
        }
        let _ = writeln!(
            page,
            "  This machine carries {} between two processes, a small message in {}.\n  Shorter \
             latencies cannot be told from its wake-ups, and links may be off by {}.",
            show_rate(machine.bytes_per_ns),
            show_time(machine.floor_ns),
            match self.namespaces {
                Some(_) => show_time(machine.slack_ns),
                None => "as much".to_owned(),
            },
        );
        if pairs.len() < all {
            let _ = writeln!(page, "  Probed: {} of {all} pairs, evenly.", pairs.len());
        }
        self.table(&ways, &machine, &mut page);
        if all < addresses.len() * (addresses.len() + 1) / 2 {
            page.push_str(
                "  Links inside of a host are this machine's own: there is no [tier.host].\n",
            );
        }
        match ways
            .iter()
            .find(|way| way.misses(self.tolerance, machine.slack_ns))
        {
            Some(way) => {
                // The table says which link, and the sentence why the run did not begin.
                crate::output::print(&page)?;
                Err(Failure::Gate(self.miss(way)))
            }
            None => Ok(page),
        }
    }

    /// Has the switch, if there is one, shape packets otherwise.
    fn shape(&self, how: impl FnOnce(&SwitchShaping)) {
        if let Some(namespaces) = &self.namespaces {
            how(namespaces.shaping());
        }
    }

    async fn machine(&self, addr: &str) -> Result<Machine, Failure> {
        let plan = ProbePlan {
            small_bytes: SMALL,
            small_rounds: 2 * SMALL_ROUNDS,
            large_bytes: LARGE[1],
            large_rounds: LARGE_ROUNDS,
            pause: self.pause(),
            bare: true,
        };
        let transfer = |way: OneWay| way.large_ns.saturating_sub(way.small_ns).max(1);
        let mut machine = Machine {
            floor_ns: 0,
            slack_ns: 0,
            bytes_per_ns: 0.0,
        };
        for _ in 0..TRIES {
            let Probed { there, back } = probe(addr, &self.options, &plan).await?;
            let slower = transfer(there).max(transfer(back));
            let rate = f64::from(LARGE[1] - SMALL) / nanos(slower);
            machine.bytes_per_ns = machine.bytes_per_ns.max(rate);
            machine.floor_ns = machine.floor_ns.max(there.small_ns).max(back.small_ns);
        }
        // The floor has the wake-ups of a switch that hands on at once and of the receiver. A packet
        // that waits at the switch wakes it once more.
        machine.slack_ns = match self.namespaces {
            Some(_) => machine.floor_ns + machine.floor_ns / 2,
            None => machine.floor_ns,
        };
        Ok(machine)
    }

    /// How long the machine sleeps between messages when its floor is taken. Behind a switch a message
    /// wakes the switch twice and then the receiver, each as deeply asleep as the latency is long.
    fn pause(&self) -> Duration {
        if self.namespaces.is_none() {
            return Duration::ZERO;
        }
        let workers = self.asked.endpoints() - 1;
        let paths = self.pairs_of(workers).map(|(from, to)| self.path(from, to));
        let longest = paths.map(|path| path.latency_ns).max();
        Duration::from_nanos(longest.unwrap_or(0)).min(LONGEST_PAUSE)
    }

    /// Links may not ask for more than the machine carries.
    fn check_rates(&self, workers: usize, machine: &Machine) -> Result<(), Failure> {
        let paths = self.pairs_of(workers).map(|(from, to)| self.path(from, to));
        let fastest = paths.max_by(|a, b| a.bytes_per_ns().total_cmp(&b.bytes_per_ns()));
        let Some(fastest) = fastest.filter(|path| path.bytes_per_ns() > machine.bytes_per_ns)
        else {
            return Ok(());
        };
        let asked = fastest.bytes_per_ns() * self.dilation;
        // With room for what a busy machine loses.
        let enough = (2.0 * asked / machine.bytes_per_ns).ceil();
        Err(Failure::Gate(format!(
            "tier {} of topology {} has links of {}, and this machine carries {} between two \
             processes; stretch time with --dilation {enough}",
            fastest.tier.name(),
            self.asked.topology().name,
            show_rate(asked),
            show_rate(machine.bytes_per_ns),
        )))
    }

    /// The pairs to probe, and how many there are: all, or as many as patience allows, with the
    /// first of every kind among them.
    fn pairs(&self, workers: usize) -> (Vec<(usize, usize)>, usize) {
        let all: Vec<(usize, usize)> = self.pairs_of(workers).collect();
        let seconds = |(from, to): &(usize, usize)| {
            let path = self.path(*from, *to);
            let rounds = f64::from(2 * SMALL_ROUNDS + 4 * LARGE_ROUNDS);
            let transfer = f64::from(large(&path)) / path.bytes_per_ns();
            let links = rounds * nanos(path.latency_ns) + f64::from(2 * LARGE_ROUNDS) * transfer;
            links / 1e9 + 0.005
        };
        let needed: f64 = all.iter().map(seconds).sum();
        let count = all.len();
        if needed <= PATIENCE_S {
            return (all, count);
        }
        let every = stride(needed / PATIENCE_S);
        let mut seen = BTreeMap::new();
        let chosen = all.into_iter().enumerate().filter(|(at, (from, to))| {
            let is_new = seen.insert(kind(&self.path(*from, *to)), ()).is_none();
            is_new || at.is_multiple_of(every)
        });
        (chosen.map(|(_, pair)| pair).collect(), count)
    }

    async fn probe_pair(
        &self,
        from: usize,
        to: usize,
        addresses: &[&str],
        machine: &Machine,
        tries: usize,
    ) -> Result<[Way; 2], Failure> {
        let (there, back) = (self.path(from, to), self.path(to, from));
        let large = large(&there).min(large(&back));
        let plan = ProbePlan {
            small_bytes: SMALL,
            small_rounds: SMALL_ROUNDS,
            large_bytes: large,
            large_rounds: LARGE_ROUNDS,
            pause: Duration::ZERO,
            bare: false,
        };
        let mut best: Option<[Way; 2]> = None;
        for _ in 0..tries {
            let probed = probe_link(from, to, addresses, &self.options, &plan).await?;
            let ways = [
                Way::new((from, to), there, probed.there, large),
                Way::new((to, from), back, probed.back, large),
            ];
            // Each direction keeps its best.
            best = Some(match best {
                Some(before) => [ways[0].better(before[0]), ways[1].better(before[1])],
                None => ways,
            });
            let misses = |way: &Way| way.misses(self.tolerance, machine.slack_ns);
            if !best.iter().flatten().any(misses) {
                break;
            }
        }
        let ways = best.ok_or_else(|| Failure::run("a link was not probed"))?;
        for way in &ways {
            tracing::info!(link = %self.line(way), "probed");
        }
        Ok(ways)
    }

    /// A line for each kind of link, with its worst direction.
    fn table(&self, ways: &[Way], machine: &Machine, page: &mut String) {
        let mut kinds: BTreeMap<_, Vec<&Way>> = BTreeMap::new();
        for way in ways {
            kinds.entry(kind(&way.path)).or_default().push(way);
        }
        if !kinds.is_empty() {
            let _ = writeln!(
                page,
                "  tier   links      latency        got          rate          got  worst"
            );
        }
        for of_kind in kinds.values() {
            let worst = of_kind.iter().max_by(|a, b| {
                let badness = |way: &Way| way.badness(self.tolerance, machine.slack_ns);
                badness(a).total_cmp(&badness(b))
            });
            if let Some(worst) = worst {
                let [latency, got, rate, reached] = self.figures(worst);
                let _ = writeln!(
                    page,
                    "  {:<5}  {:>5}  {latency:>11}  {got:>9}  {rate:>12}  {reached:>11}  {} to {}",
                    worst.path.tier.name(),
                    of_kind.len(),
                    name(worst.from),
                    name(worst.to),
                );
            }
        }
    }

    /// Latency and rate, each as asked and as got, in the topology's own time. The latency is that of
    /// the small message, its bytes included.
    fn figures(&self, way: &Way) -> [String; 4] {
        let own = |ns: u64| show_time(self.own(ns));
        let rate = |ns: u64| f64::from(way.large - SMALL) / nanos(ns.max(1)) * self.dilation;
        [
            own(way.latency.asked),
            own(way.latency.got),
            show_rate(rate(way.transfer.asked)),
            show_rate(rate(way.transfer.got)),
        ]
    }

    fn line(&self, way: &Way) -> String {
        let [latency, got, rate, reached] = self.figures(way);
        format!(
            "{} to {}: {got} where {latency} were asked for, {reached} where {rate} were",
            name(way.from),
            name(way.to),
        )
    }

    fn miss(&self, way: &Way) -> String {
        format!(
            "a link is off by more than {} % ({}); free the machine, stretch time with --dilation, \
             or raise --probe-tolerance",
            100.0 * self.tolerance,
            self.line(way),
        )
    }

    /// Nanoseconds of the cluster's time in the topology's.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn own(&self, ns: u64) -> u64 {
        (nanos(ns) / self.dilation).round() as u64
    }

    /// Every pair of endpoints with links of the topology, once: a probe times both directions.
    fn pairs_of(&self, workers: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let all =
            (0..=workers).flat_map(move |from| (from + 1..=workers).map(move |to| (from, to)));
        all.filter(|(from, to)| !self.path(*from, *to).hops().is_empty())
    }

    /// As the cluster sees it.
    fn path(&self, from: usize, to: usize) -> Path {
        let narrow = |endpoint: usize| u32::try_from(endpoint).unwrap_or(u32::MAX);
        let emulation = self.options.emulation.as_ref();
        emulation.map_or(Path::default(), |emulation| {
            emulation.path(narrow(from), narrow(to))
        })
    }
}

async fn probe_link(
    from: usize,
    to: usize,
    addresses: &[&str],
    options: &LinkOptions,
    plan: &ProbePlan,
) -> Result<Probed, Failure> {
    // Endpoint 0 has no address: this process stands in its place.
    Ok(match from.checked_sub(1) {
        None => probe(addresses[to - 1], options, plan).await?,
        Some(worker) => probe_between(addresses[worker], addresses[to - 1], options, plan).await?,
    })
}

/// Links with equal figures are of one kind.
fn kind(path: &Path) -> (Tier, u64, u64) {
    (path.tier, path.latency_ns, path.bytes_per_ns().to_bits())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn large(path: &Path) -> u32 {
    // A float becomes an integer by saturation.
    ((path.bytes_per_ns() * LARGE_NS) as u32).clamp(LARGE[0], LARGE[1])
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn stride(factor: f64) -> usize {
    factor.ceil().max(1.0) as usize
}

#[allow(clippy::cast_precision_loss)]
fn nanos(ns: u64) -> f64 {
    ns as f64
}

fn name(endpoint: usize) -> String {
    match endpoint.checked_sub(1) {
        None => "coordinator".to_owned(),
        Some(worker) => format!("worker-{worker}"),
    }
}

// === impl Way ===

impl Way {
    fn new((from, to): (usize, usize), path: Path, got: OneWay, large: u32) -> Self {
        let small = path.idle_ns(SMALL.into());
        Self {
            from,
            to,
            path,
            large,
            latency: Figure {
                asked: small,
                got: got.small_ns,
            },
            transfer: Figure {
                asked: path.idle_ns(large.into()) - small,
                got: got.large_ns.saturating_sub(got.small_ns),
            },
        }
    }

    /// Distance from what was asked for, in tolerances.
    fn badness(&self, tolerance: f64, slack_ns: u64) -> f64 {
        let off = |figure: &Figure| {
            let allowed = (tolerance * nanos(figure.asked)).max(nanos(slack_ns));
            nanos(figure.got.abs_diff(figure.asked)) / allowed.max(1.0)
        };
        off(&self.latency).max(off(&self.transfer))
    }

    fn misses(&self, tolerance: f64, slack_ns: u64) -> bool {
        self.badness(tolerance, slack_ns) > 1.0
    }

    fn better(self, before: Self) -> Self {
        let badness = |way: &Self| way.badness(0.0, 1);
        match badness(&before) <= badness(&self) {
            true => before,
            false => self,
        }
    }
}
