//! What a simulation means, in sentences.

use expertmesh_placement::Placement;
use expertmesh_telemetry::Phase;

use crate::simulate::Simulated;

/// A load above the mean by this factor is worth a sentence.
const STANDS_OUT: f64 = 1.1;

/// What one worker carried, beside the mean of all.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerLoad {
    /// Name of the endpoint.
    pub name: String,
    /// Share of the steps whose critical path goes through it.
    pub critical_share: f64,
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
    /// Phases of the critical path with their shares of the step, the longest first.
    pub path: Vec<(Phase, f64)>,
    /// The port that messages waited for longest, and nanoseconds waited a step.
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
        let run = &simulated.run;
        let step = run.latency_us.step.mean.max(f64::MIN_POSITIVE);
        let mut path: Vec<(Phase, f64)> = Phase::ALL
            .iter()
            .filter(|phase| **phase != Phase::Shared)
            .filter_map(|phase| {
                let latency = run.latency_us.phases.get(&phase.to_string())?;
                Some((*phase, latency.mean / step))
            })
            .filter(|(_, share)| *share > 0.0)
            .collect();
        path.sort_by(|a, b| b.1.total_cmp(&a.1));
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
        let steps = run.load.steps.max(1) as f64;
        Self {
            slowest: slowest(simulated, placement),
            path,
            busiest_port: worst.map(|(port, ns)| (port_name(port), ns as f64 / steps)),
        }
    }

    /// One sentence each.
    pub fn sentences(&self) -> Vec<String> {
        let mut all = Vec::new();
        match &self.slowest {
            Some(worker) => all.push(worker.sentence()),
            None => all.push("no worker computes anything".to_owned()),
        }
        let path = self.path.iter().take(4);
        let path: Vec<String> = path
            .map(|(phase, share)| format!("{phase} {:.0} %", 100.0 * share))
            .collect();
        if !path.is_empty() {
            all.push(format!("critical path: {}", path.join(", ")));
        }
        if let Some((port, ns)) = &self.busiest_port {
            let us = ns / 1e3;
            all.push(format!(
                "messages wait {us:.1} µs a step for {port}, longer than for any other port"
            ));
        }
        all
    }
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
    let of_worker = |id: usize| -> f64 {
        let held = (0..placement.experts())
            .filter(|expert| placement.replicas(*expert).first() == Some(&(id as u32 - 1)));
        held.map(|expert| demand(expert) as f64).sum()
    };
    Some(WorkerLoad {
        name: format!("worker-{}", at - 1),
        critical_share: simulated.critical[at] as f64 / total.max(1) as f64,
        received: over_mean(&|id| simulated.endpoints[id].received_bytes as f64),
        computed: over_mean(&|id| simulated.endpoints[id].compute_ns as f64),
        choices: over_mean(&of_worker),
        hottest: hottest
            .filter(|_| mean > 0.0)
            .map(|expert| (expert, demand(expert) as f64 / mean)),
    })
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
            why.push("its loads are within 10 % of the mean: who is last is chance".to_owned());
        }
        format!(
            "{} ends {:.0} % of the steps: {}",
            self.name,
            100.0 * self.critical_share,
            why.join("; ")
        )
    }
}
