//! Steps of a cluster that is not there: the decisions of a real coordinator, and the exchange under
//! an event clock.
//!
//! A [`Simulation`] is made of layers, each a [`Rehearsal`] that gates and admits and a
//! [`Simulator`] that does the rest. [`Simulation::run`] gives a [`Run`] like that of a real drive: from
//! the same seed its ledgers are the same, byte for byte, and its times are computed. [`Answers`] say
//! what they mean.

mod answers;
mod model;
#[cfg(test)]
mod tests;

pub use answers::{Answers, WorkerLoad};
pub use model::{ModelPreset, Stage};

use expertmesh_coordinator::{CoordinatorError, Decided, Rehearsal, Replayed, StepInput};
use expertmesh_simulator::{
    EndpointUse, Fault, PortUse, SimError, SimRun, SimStep, Simulator, Standing,
    StepInput as SimInput,
};
use expertmesh_telemetry::{
    ExpertOverflow, Identity, Lane, Load, Run, RunRecorder, Shape, Source, StepRecord,
    TelemetryError, Trace,
};
use ndarray::Array2;
use sha2::{Digest as _, Sha256};

use crate::dispatch::{events, overflow};
use crate::drive::{DriveError, hex, identity};
use crate::workload::{ScoredWorkload, Workload, WorkloadShape};

/// Where the tokens of a simulated step come from.
#[derive(Debug, Clone)]
pub enum SimLoad {
    /// Hidden states, multiplied with the gate as in a real run.
    Rows(Workload),
    /// Scores, which the gate chooses by.
    Scores(ScoredWorkload),
}

/// One layer.
pub struct SimLayer {
    /// Gates and admits.
    pub rehearsal: Rehearsal,
    /// Does the rest.
    pub simulator: Simulator,
    /// What is computed besides the experts, attention for example, ns: behind this layer, the last
    /// one too, so that a stack has it as often as it has layers.
    pub between_ns: u64,
}

/// What is simulated.
pub struct Simulation {
    /// The layers, in order. Each draws tokens of its own: what a layer makes of its input is not
    /// computed.
    pub layers: Vec<SimLayer>,
    /// The tokens.
    pub load: SimLoad,
    /// Batches under way at the same time; 1 for one after the other.
    pub overlap: usize,
    /// Steps, the last ones, whose lanes are kept.
    pub lane_steps: u64,
    /// What the times are.
    pub source: Source,
}

/// What a simulation gave.
#[derive(Debug, Clone)]
pub struct Simulated {
    /// For a report.
    pub run: Run,
    /// What endpoints did when, in the last steps.
    pub trace: Trace,
    /// By endpoint id, summed over steps and layers.
    pub endpoints: Vec<EndpointUse>,
    /// By port of the topology, summed over steps and layers.
    pub ports: Vec<PortUse>,
    /// Steps by the endpoint on their critical path.
    pub critical: Vec<u64>,
    /// `[workers]` choices that each computed, the replicas of an expert apart.
    pub choices: Vec<u64>,
    /// What steps spent behind layers, waiting for each other there included; their sum, ns.
    pub between_ns: u64,
    /// From the first step's begin to the last one's end, ns.
    pub elapsed_ns: u64,
    /// Events.
    pub events: u64,
    /// SHA-256 over the digests of all event logs, in order.
    pub log_digest: String,
    /// The event logs, where the simulators were told to keep them.
    pub log: Option<String>,
    /// Faults of the configuration that were to come after the last step.
    pub faults_to_come: Vec<Fault>,
}

/// A simulation that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// A decision that a real coordinator would refuse, too.
    #[error(transparent)]
    Decide(#[from] CoordinatorError),
    /// A step that fails.
    #[error(transparent)]
    Simulate(#[from] SimError),
    /// Records that do not fit together.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// A configuration that no report can name.
    #[error(transparent)]
    Identity(#[from] DriveError),
    /// Nothing to simulate.
    #[error("`{field}` holds 0, expected at least 1")]
    Nothing {
        /// Name of the field.
        field: &'static str,
    },
    /// A layer on other machines than the first: no sums over layers exist.
    #[error("layer {layer} has {held}, expected {expected} as the first layer")]
    Machines {
        /// Position of the layer.
        layer: usize,
        /// Its workers and its topology.
        held: String,
        /// Those of the first.
        expected: String,
    },
}

/// Sums over steps.
struct Sums {
    /// The overflow policy, as the report names it.
    policy: Option<String>,
    recorder: RunRecorder,
    trace: Trace,
    endpoints: Vec<EndpointUse>,
    ports: Vec<PortUse>,
    critical: Vec<u64>,
    choices: Vec<u64>,
    between_ns: u64,
    events: u64,
    digest: Sha256,
    log: Option<String>,
    /// Simulated time from the first step's begin to the last one's end.
    clock_ns: u64,
    /// What each layer's simulator leaves to the next.
    standing: Standing,
}

/// One batch on its way through the layers.
struct Batch {
    /// When its next layer begins.
    at_ns: u64,
    /// The sum over its layers so far.
    record: StepRecord,
}

// === impl SimLoad ===

impl SimLoad {
    /// Dimensions of a step.
    pub fn shape(&self) -> WorkloadShape {
        match self {
            Self::Rows(workload) => workload.shape(),
            Self::Scores(workload) => workload.shape(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Rows(workload) => workload.name().to_owned(),
            Self::Scores(workload) => workload.name(),
        }
    }

    /// What the gate makes of draw number `step`.
    pub(crate) fn decide_by(
        &self,
        rehearsal: &Rehearsal,
        step: u64,
    ) -> Result<Decided, CoordinatorError> {
        let at_step = Some(step);
        match self {
            Self::Rows(workload) => {
                let batch = workload.batch(step);
                let hidden = rehearsal.config().source.spec().hidden;
                let rows = Array2::from_shape_vec((batch.tokens, hidden), workload.rows(step));
                let rows = rows.map_err(|error| CoordinatorError::Internal(error.to_string()))?;
                let input = StepInput {
                    padding: batch.padding.map(<[bool]>::to_vec),
                    token_ids: (rehearsal.gate().config().needs().token_ids)
                        .then(|| workload.token_ids(step, batch.tokens)),
                    sequence: workload.sequence(),
                    replay: batch.replay.map(|step| Replayed {
                        experts: step.experts.clone(),
                        weights: step.weights.clone(),
                    }),
                    at_step,
                    ..StepInput::default()
                };
                rehearsal.decide(step, rows.into_shared(), input)
            }
            Self::Scores(workload) => {
                let input = StepInput {
                    padding: workload.padding().map(<[bool]>::to_vec),
                    at_step,
                    ..StepInput::default()
                };
                let tokens = workload.shape().tokens;
                rehearsal.decide_scored(step, workload.logits(step), tokens, input)
            }
        }
    }
}

// === impl Simulation ===

impl Simulation {
    /// Simulates `steps` steps, numbered from 0 as those of a real drive. `model` names it, with its
    /// dimensions, for the report's identity.
    ///
    /// # Errors
    /// [`SimulateError`]: nothing to do, layers on different machines, a step that a real cluster
    /// would refuse, or one that fails.
    pub fn run(
        &mut self,
        steps: u64,
        seed: u64,
        model: (&str, Option<Shape>),
        mut on_step: impl FnMut(),
    ) -> Result<Simulated, SimulateError> {
        if steps == 0 {
            return Err(SimulateError::Nothing { field: "steps" });
        }
        if self.overlap == 0 {
            return Err(SimulateError::Nothing { field: "overlap" });
        }
        let Some(first) = self.layers.first() else {
            return Err(SimulateError::Nothing { field: "layers" });
        };
        let expected = machines(first);
        for (layer, one) in self.layers.iter().enumerate() {
            let held = machines(one);
            if held != expected {
                let [held, expected] =
                    [held, expected].map(|(workers, of)| format!("{workers} workers of {of}"));
                return Err(SimulateError::Machines {
                    layer,
                    held,
                    expected,
                });
            }
        }
        let (name, shape) = model;
        let cluster = first.rehearsal.cluster();
        let identity = identity(&cluster, seed, name, shape, &self.load.name())?;
        let mut sums = Sums::new(&first.simulator, crate::drive::policy(&cluster));
        let mut step = 0;
        while step < steps {
            let group = step..(step + self.overlap as u64).min(steps);
            step = group.end;
            self.group(group, steps, &mut sums)?;
            on_step();
        }
        let faults = &self.layers[0].simulator.config().faults;
        Ok(sums.finish(identity, self.source, steps, faults))
    }

    /// Batches that begin together, through all layers.
    fn group(
        &mut self,
        steps: std::ops::Range<u64>,
        end: u64,
        sums: &mut Sums,
    ) -> Result<(), SimulateError> {
        let depth = self.layers.len() as u64;
        let mut batches: Vec<Batch> = steps.clone().map(|_| Batch::at(sums.clock_ns)).collect();
        for (number, layer) in (0..).zip(&mut self.layers) {
            std::mem::swap(layer.simulator.standing(), &mut sums.standing);
            let draws = steps.clone().map(|step| step * depth + number);
            let decided = draws.map(|draw| self.load.decide_by(&layer.rehearsal, draw));
            let decided = decided.collect::<Result<Vec<Decided>, _>>()?;
            let inputs = decided.iter().zip(&batches).map(|(one, batch)| SimInput {
                route: &one.route,
                admission: &one.admission,
                begins_ns: batch.at_ns,
            });
            let inputs: Vec<SimInput<'_>> = inputs.collect();
            let run = layer.simulator.run(&inputs)?;
            std::mem::swap(layer.simulator.standing(), &mut sums.standing);
            sums.uses(&run);
            let outcomes = run.steps.iter().zip(&decided).zip(&mut batches);
            for (step, ((outcome, decided), batch)) in steps.clone().zip(outcomes) {
                sums.overflow(&layer.rehearsal, decided, outcome)?;
                if end - step <= self.lane_steps {
                    sums.lanes(outcome, step);
                }
                sums.critical[outcome.critical_endpoint as usize] += 1;
                batch.at_ns += outcome.record.step_ns;
                batch.add(&outcome.record);
            }
            sums.between_ns += one_after_the_other(&mut batches, layer.between_ns);
        }
        for batch in &batches {
            sums.choices(&batch.record.choices_per_worker);
            sums.recorder.record(&batch.record)?;
            sums.clock_ns = sums.clock_ns.max(batch.at_ns);
        }
        Ok(())
    }
}

/// What is computed behind a layer keeps devices busy, so that batches wait for each other; gives
/// what that took them together.
fn one_after_the_other(batches: &mut [Batch], between_ns: u64) -> u64 {
    let mut order: Vec<&mut Batch> = batches.iter_mut().collect();
    order.sort_by_key(|batch| batch.at_ns);
    let (mut free_ns, mut sum_ns) = (0, 0);
    for batch in order {
        free_ns = batch.at_ns.max(free_ns) + between_ns;
        let took_ns = free_ns - batch.at_ns;
        batch.record.step_ns += took_ns;
        batch.at_ns = free_ns;
        sum_ns += took_ns;
    }
    sum_ns
}

/// Workers of a layer, and the name of their topology.
fn machines(layer: &SimLayer) -> (usize, &str) {
    let fabric = layer.simulator.fabric();
    (fabric.endpoints() - 1, &fabric.topology().name)
}

// === impl Batch ===

impl Batch {
    fn at(at_ns: u64) -> Self {
        let record = StepRecord::default();
        Self { at_ns, record }
    }

    /// Adds a layer to the step.
    fn add(&mut self, layer: &StepRecord) {
        let sum = &mut self.record;
        sum.step_ns += layer.step_ns;
        sum.exchange_ns += layer.exchange_ns;
        sum.dispatch_ns += layer.dispatch_ns;
        sum.combine_ns += layer.combine_ns;
        for (sum, ns) in sum.phases_ns.iter_mut().zip(layer.phases_ns) {
            *sum += ns;
        }
        sum.longest_experts_ns += layer.longest_experts_ns;
        sum.payload_bytes += layer.payload_bytes;
        sum.local_bytes += layer.local_bytes;
        sum.resent_bytes += layer.resent_bytes;
        sum.saved_by_dedup_bytes += layer.saved_by_dedup_bytes;
        sum.messages += layer.messages;
        if sum.matrix.is_empty() {
            sum.matrix.clone_from(&layer.matrix);
            sum.choices_per_worker.clone_from(&layer.choices_per_worker);
            return;
        }
        let cells = sum.matrix.iter_mut().flatten();
        for (sum, bytes) in cells.zip(layer.matrix.iter().flatten()) {
            *sum += bytes;
        }
        let workers = sum.choices_per_worker.iter_mut();
        for (sum, choices) in workers.zip(&layer.choices_per_worker) {
            *sum += choices;
        }
    }
}

// === impl Sums ===

impl Sums {
    fn new(simulator: &Simulator, policy: Option<String>) -> Self {
        let (names, fabric) = (simulator.names(), simulator.fabric());
        Self {
            policy,
            recorder: RunRecorder::new(names),
            trace: Trace::new(names),
            endpoints: vec![EndpointUse::default(); names.len()],
            ports: vec![PortUse::default(); fabric.ports()],
            critical: vec![0; names.len()],
            choices: vec![0; names.len() - 1],
            between_ns: 0,
            events: 0,
            digest: Sha256::new(),
            log: None,
            clock_ns: 0,
            standing: Standing::default(),
        }
    }

    fn uses(&mut self, run: &SimRun) {
        for (sum, one) in self.endpoints.iter_mut().zip(&run.endpoints) {
            sum.io_ns += one.io_ns;
            sum.compute_ns += one.compute_ns;
            sum.waited_ns += one.waited_ns;
            sum.sent_bytes += one.sent_bytes;
            sum.received_bytes += one.received_bytes;
        }
        for (sum, one) in self.ports.iter_mut().zip(&run.ports) {
            sum.bytes += one.bytes;
            sum.busy_ns += one.busy_ns;
            sum.queued_ns += one.queued_ns;
        }
        self.events += run.events;
        self.digest.update(&run.digest);
        if let Some(text) = &run.log {
            self.log.get_or_insert_default().push_str(text);
        }
    }

    fn overflow(
        &mut self,
        rehearsal: &Rehearsal,
        decided: &Decided,
        outcome: &SimStep,
    ) -> Result<(), SimulateError> {
        let ledger = rehearsal.tally(decided, &outcome.fates)?;
        let per_expert: Vec<ExpertOverflow> = ledger.per_expert.iter().map(overflow).collect();
        let smallest = ledger.smallest_sufficient_capacity_factor;
        self.recorder
            .overflow(&per_expert, ledger.capacity_factor, Some(smallest))?;
        self.recorder.overflow_events(&events(&ledger));
        Ok(())
    }

    fn choices(&mut self, of_step: &[u64]) {
        for (sum, choices) in self.choices.iter_mut().zip(of_step) {
            *sum += choices;
        }
    }

    fn lanes(&mut self, outcome: &SimStep, step: u64) {
        let lanes = outcome.lanes.iter().map(|lane| Lane { step, ..*lane });
        self.trace.lanes.extend(lanes);
    }

    fn finish(self, identity: Identity, source: Source, steps: u64, faults: &[Fault]) -> Simulated {
        let to_come = |(at, fault): &(usize, &Fault)| {
            matches!(fault, Fault::Lost { .. }) && !self.standing.happened(*at)
        };
        let faults = faults.iter().enumerate().filter(to_come);
        let faults_to_come = faults.map(|(_, fault)| *fault).collect();
        let load = Load::closed(steps, 0, self.clock_ns as f64 / 1e9);
        let mut run = self.recorder.finish(identity, load, source, None);
        run.overflow.policy = self.policy;
        // What is counted follows from the same code as in a real run; it was still not sent.
        run.source.values_mut().for_each(|one| *one = source);
        Simulated {
            run,
            trace: self.trace,
            endpoints: self.endpoints,
            ports: self.ports,
            critical: self.critical,
            choices: self.choices,
            between_ns: self.between_ns,
            elapsed_ns: self.clock_ns,
            events: self.events,
            log_digest: hex(&self.digest.finalize()),
            log: self.log,
            faults_to_come,
        }
    }
}
