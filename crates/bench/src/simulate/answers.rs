//! What a simulation means, in sentences.

use expertmesh_placement::Placement;
use expertmesh_telemetry::Phase;

use crate::simulate::Simulated;

#[cfg(test)]
mod tests;

/// A load above the mean by this factor is worth a sentence.
const STANDS_OUT: f64 = 1.1;
/// Whoever ends more than this share of the steps does not do so by chance.
const BY_CHANCE: f64 = 0.5;
/// A part of the path below this share of the step is not told.
const TOLD: f64 = 0.01;
/// What a step spends behind its layers, and where no phase is.
const BETWEEN: &str = "between layers";
const REST: &str = "in no phase";

/// What one worker carried, beside the mean of all.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerLoad {
    /// Name of the endpoint.
    pub name: String,
    /// Share of the steps whose critical path goes through it.
    pub critical_share: f64,
    /// The worker whose tokens it ends most of these steps with, where that is another one.
    pub home: Option<String>,
    /// Bytes that reached it, over the mean of the workers.
    pub received: f64,
    /// Time of its compute threads, over the mean.
    pub computed: f64,
    /// Choices that it computed, over the mean.
    pub choices: f64,
    /// Its most chosen expert, and that expert's demand over the mean of all experts.
    pub hottest: Option<(usize, f64)>,
}

/// The answers to "what takes so long, and why".
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// The worker that is most often on the critical path.
    pub slowest: Option<WorkerLoad>,
    /// Parts of the critical path with their shares of the step, the longest first: phases, what lies
    /// between layers, and what is in no phase.
    pub path: Vec<(&'static str, f64)>,
    /// The port that messages waited for longest, and the share of the time in which bits passed it.
    pub busiest_port: Option<(String, f64)>,
}

// === impl Answers ===

impl Answers {
    /// Reads `simulated` for a cluster with `placement`; `port_name` names its ports.
    pub fn of(
        simulated: &Simulated,
        placement: &Placement,
        port_name: impl Fn(usize) -> String,
    ) -> Self {
        let queued = simulated
            .ports
            .iter()
            .map(|port| port.queued_ns)
            .enumerate();
        // The first of equals.
        let worst = queued
            .rev()
            .max_by_key(|(_, ns)| *ns)
            .filter(|(_, ns)| *ns > 0);
        let elapsed = simulated.elapsed_ns.max(1) as f64;
        let share = |port: usize| simulated.ports[port].busy_ns as f64 / elapsed;
        Self {
            slowest: slowest(simulated, placement),
            path: path(simulated),
            busiest_port: worst.map(|(port, _)| (port_name(port), share(port))),
        }
    }

    /// One sentence each.
    pub fn sentences(&self) -> Vec<String> {
        let mut all = Vec::new();
        match &self.slowest {
            Some(worker) => all.push(worker.sentence()),
            None => all.push("no worker computes anything".to_owned()),
        }
        let path = self.path.iter().filter(|(_, share)| *share >= TOLD).take(4);
        let path: Vec<String> = path
            .map(|(part, share)| format!("{part} {:.0} %", 100.0 * share))
            .collect();
        if !path.is_empty() {
            all.push(format!("critical path: {}", path.join(", ")));
        }
        if let Some((port, share)) = &self.busiest_port {
            all.push(format!(
                "messages wait longer for {port} than for any other port; it is busy {:.0} % of the \
                 time",
                100.0 * share
            ));
        }
        all
    }
}

/// The parts of the critical path, the longest first.
fn path(simulated: &Simulated) -> Vec<(&'static str, f64)> {
    let latency = &simulated.run.latency_us;
    let step = latency.step.mean.max(f64::MIN_POSITIVE);
    let steps = simulated.run.load.steps.max(1) as f64;
    let phases = Phase::ALL.iter().filter(|phase| phase.on_critical_path());
    let mut path: Vec<(&str, f64)> = phases
        .filter_map(|phase| Some((phase.name(), latency.phases.get(phase.name())?.mean / step)))
        .collect();
    path.push((BETWEEN, simulated.between_ns as f64 / steps / 1e3 / step));
    let told: f64 = path.iter().map(|(_, share)| share).sum();
    path.push((REST, 1.0 - told));
    path.retain(|(_, share)| *share > 0.0);
    path.sort_by(|a, b| b.1.total_cmp(&a.1));
    path
}

fn slowest(simulated: &Simulated, placement: &Placement) -> Option<WorkerLoad> {
    let workers = 1..simulated.critical.len();
    let at = workers
        .clone()
        .rev()
        .max_by_key(|id| simulated.critical[*id])
        .filter(|id| simulated.critical[*id] > 0)?;
    let total: u64 = simulated.critical.iter().sum();
    let over_mean = |of: &dyn Fn(usize) -> f64| {
        let mean = workers.clone().map(of).sum::<f64>() / workers.len() as f64;
        if mean > 0.0 { of(at) / mean } else { 1.0 }
    };
    let run = &simulated.run;
    let demand = |expert: usize| {
        run.overflow
            .per_expert
            .get(expert)
            .map_or(0, |one| one.computed + one.rerouted)
    };
    let mine = |expert: &usize| placement.replicas(*expert).contains(&(at as u32 - 1));
    let hottest = (0..placement.experts())
        .filter(mine)
        .rev()
        .max_by_key(|expert| demand(*expert));
    let all: u64 = (0..placement.experts()).map(demand).sum();
    let mean = all as f64 / placement.experts().max(1) as f64;
    Some(WorkerLoad {
        name: name(at),
        home: home_of(simulated, at).map(name),
        critical_share: simulated.critical[at] as f64 / total.max(1) as f64,
        received: over_mean(&|id| simulated.endpoints[id].received_bytes as f64),
        computed: over_mean(&|id| {
            let one = &simulated.endpoints[id];
            (one.compute_ns - one.behind_ns) as f64
        }),
        choices: over_mean(&|id| simulated.choices[id - 1] as f64),
        hottest: hottest
            .filter(|_| mean > 0.0)
            .map(|expert| (expert, demand(expert) as f64 / mean)),
    })
}

fn name(endpoint: usize) -> String {
    format!("worker-{}", endpoint - 1)
}

/// The home whose tokens are last in more than half of the steps that `at` ends, unless it is `at` or
/// the coordinator.
fn home_of(simulated: &Simulated, at: usize) -> Option<usize> {
    let ended = simulated.critical[at] as f64;
    let pairs = simulated.critical_homes.iter();
    let often = |steps: u64| steps as f64 > BY_CHANCE * ended;
    let home = pairs
        .filter(|((host, _), _)| *host as usize == at)
        .find(|(_, steps)| often(**steps))
        .map(|((_, home), _)| *home as usize)?;
    (home != 0 && home != at).then_some(home)
}

// === impl WorkerLoad ===

impl WorkerLoad {
    /// Why it is slow, as far as its loads say.
    fn sentence(&self) -> String {
        let mut why = Vec::new();
        let loads = [
            (self.received, "the mean bytes arrive on its port"),
            (self.computed, "the mean compute time"),
            (self.choices, "the mean choices"),
        ];
        for (over, what) in loads {
            if over >= STANDS_OUT {
                why.push(format!("{over:.1} × {what}"));
            }
        }
        if let Some((expert, over)) = self.hottest
            && over >= STANDS_OUT
        {
            why.push(format!("expert {expert} is hot, {over:.1} × the mean"));
        }
        if why.is_empty() {
            let reason = match (self.critical_share > BY_CHANCE, &self.home) {
                (true, Some(home)) => format!(
                    "the tokens of {home} come last there: host, links or turn among equals of the two \
                     decide, not load"
                ),
                (true, None) => {
                    "its host, its links or its turn among equals decide, not its load".to_owned()
                }
                (false, _) => "who is last is chance".to_owned(),
            };
            why.push(format!("its loads are within 10 % of the mean: {reason}"));
        }
        format!(
            "{} ends {:.0} % of the steps: {}",
            self.name,
            100.0 * self.critical_share,
            why.join("; ")
        )
    }
}
