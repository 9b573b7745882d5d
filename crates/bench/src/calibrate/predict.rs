//! What costs make of a point.

use std::collections::BTreeMap;

use expertmesh_coordinator::{Decided, Rehearsal};
use expertmesh_simulator::{Costs, SimConfig, Simulator};
use expertmesh_telemetry::{Phase, Run, StepRecord};
use expertmesh_topology::Topology;

use crate::simulate::{SimLoad, SimulateError};

/// A point whose decisions are made: only times are left to be computed.
pub struct Predictor {
    config: SimConfig,
    topology: Topology,
    decided: Vec<Decided>,
}

// === impl Predictor ===

impl Predictor {
    /// Decides about the first `steps` steps of `load`.
    ///
    /// # Errors
    /// [`SimulateError`] for a step that a cluster would refuse.
    pub fn new(
        config: SimConfig,
        topology: Topology,
        rehearsal: &Rehearsal,
        load: &SimLoad,
        steps: u64,
    ) -> Result<Self, SimulateError> {
        let decided = (0..steps).map(|step| load.decide_by(rehearsal, step));
        Ok(Self {
            config,
            topology,
            decided: decided.collect::<Result<_, _>>()?,
        })
    }

    /// Median figures under `costs`, µs; `change` may alter the links first.
    ///
    /// # Errors
    /// [`SimulateError`] for a step that fails.
    pub fn figures(
        &self,
        costs: &Costs,
        change: impl Fn(&mut Topology),
    ) -> Result<BTreeMap<String, f64>, SimulateError> {
        let mut topology = self.topology.clone();
        change(&mut topology);
        let mut simulator = Simulator::new(&topology, costs.clone(), self.config.clone())?;
        let records = self.decided.iter().map(|decided| {
            let step = simulator.step(&decided.route, &decided.admission)?;
            Ok(step.record)
        });
        Ok(medians(
            &records.collect::<Result<Vec<_>, SimulateError>>()?,
        ))
    }
}

/// Medians by figure, µs: `step`, `exchange`, `dispatch`, `combine`, `phases.<name>`.
fn medians(records: &[StepRecord]) -> BTreeMap<String, f64> {
    let median = |of: &dyn Fn(&StepRecord) -> u64| {
        let mut all: Vec<u64> = records.iter().map(of).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or(0) as f64 / 1e3
    };
    let mut figures = BTreeMap::from([
        ("step".to_owned(), median(&|one| one.step_ns)),
        ("exchange".to_owned(), median(&|one| one.exchange_ns)),
        ("dispatch".to_owned(), median(&|one| one.dispatch_ns)),
        ("combine".to_owned(), median(&|one| one.combine_ns)),
    ]);
    for phase in Phase::ALL {
        let ns = median(&|one| one.phases_ns[phase.index()]);
        figures.insert(format!("phases.{phase}"), ns);
    }
    figures
}

/// The same of a run's report; a median that too few steps leave unknown is their mean.
pub fn figures_of(run: &Run) -> BTreeMap<String, f64> {
    let latency = &run.latency_us;
    let named = [
        ("step", latency.step),
        ("exchange", latency.exchange),
        ("dispatch", latency.dispatch),
        ("combine", latency.combine),
    ];
    let named = named.map(|(name, figure)| (name.to_owned(), figure));
    let phases = latency.phases.iter();
    let phases = phases.map(|(name, figure)| (format!("phases.{name}"), *figure));
    let median = |figure: expertmesh_telemetry::Latency| figure.p50.unwrap_or(figure.mean);
    named
        .into_iter()
        .chain(phases)
        .map(|(name, figure)| (name, median(figure)))
        .collect()
}

/// The first figure of two runs' ledgers that differs: what was sent to whom, and what became of whose
/// choices. `None` if they are equal, byte for byte.
pub fn ledger_difference(real: &Run, simulated: &Run) -> Option<String> {
    let (one, other) = (&real.communication, &simulated.communication);
    let sums = [
        ("payload_bytes", one.payload_bytes, other.payload_bytes),
        ("messages", one.messages, other.messages),
        ("local_bytes", one.local_bytes, other.local_bytes),
        (
            "saved_by_dedup_bytes",
            one.saved_by_dedup_bytes,
            other.saved_by_dedup_bytes,
        ),
        (
            "assigned",
            real.overflow.assigned,
            simulated.overflow.assigned,
        ),
        (
            "computed",
            real.overflow.computed,
            simulated.overflow.computed,
        ),
    ];
    if let Some((name, one, other)) = sums.into_iter().find(|(_, one, other)| one != other) {
        return Some(format!("{name}: {one} measured, {other} simulated"));
    }
    if one.matrix_bytes != other.matrix_bytes {
        return Some("matrix_bytes: the same sum between other endpoints".to_owned());
    }
    let differs = real.overflow.per_expert != simulated.overflow.per_expert;
    differs.then(|| "per_expert: the same sums for other experts".to_owned())
}
