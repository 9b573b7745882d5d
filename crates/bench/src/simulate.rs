//! Steps of a cluster that is not there: the decisions of a real coordinator, and the exchange under
//! an event clock.
//!
//! A [`Simulation`] is made of layers, each a [`Rehearsal`] that gates and admits, and a
//! [`Simulator`] that does the rest of all of them. [`Simulation::run`] gives a [`Run`] like that of a
//! real drive: from the same seed its ledgers are the same, byte for byte, and its times are computed.
//! [`Answers`] say what they mean.

mod answers;
mod model;
mod sums;
#[cfg(test)]
mod tests;

pub use answers::{Answers, WorkerLoad};
pub use model::{ModelPreset, Stage};

use std::collections::BTreeMap;

use expertmesh_coordinator::{CoordinatorError, Decided, Rehearsal, Replayed, StepInput};
use expertmesh_exchange::ExchangeKind;
use expertmesh_simulator::{
    EndpointUse, Fault, PortUse, SimError, Simulator, StepInput as SimInput,
};
use expertmesh_telemetry::{Run, Shape, Source, TelemetryError, Trace};
use ndarray::Array2;

use crate::drive::{DriveError, identity};
use crate::simulate::sums::{Batch, Sums};
use crate::workload::{ScoredWorkload, Workload, WorkloadShape};

/// Where the tokens of a simulated step come from.
#[derive(Debug, Clone)]
pub enum SimLoad {
    /// Hidden states, multiplied with the gate as in a real run.
    Rows(Workload),
    /// Scores, which the gate chooses by.
    Scores(ScoredWorkload),
}

/// What is simulated.
pub struct Simulation {
    /// Who gates and admits in each of the layers, in order. Each layer draws tokens of its own: what
    /// one makes of its input is not computed.
    pub layers: Vec<Rehearsal>,
    /// Does the rest, in every layer: they have one shape, and their experts one placement.
    pub simulator: Simulator,
    /// What every worker computes besides the experts, attention for example, ns: behind each layer,
    /// the last one too, so that a stack has it as often as it has layers.
    pub between_ns: u64,
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
    /// Steps by the endpoint on their critical path, and by the home whose results came last there.
    pub critical_homes: BTreeMap<(u32, u32), u64>,
    /// `[workers]` choices that each computed, the replicas of an expert apart.
    pub choices: Vec<u64>,
    /// What steps spent behind layers, waiting for devices there included; their sum, ns.
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
    /// A layer that the simulator does not simulate.
    #[error("layer {layer} has {held}, expected {expected} as the simulator")]
    Layer {
        /// Position of the layer.
        layer: usize,
        /// Its experts, workers and exchange.
        held: String,
        /// Those of the simulator.
        expected: String,
    },
}

/// Choices, and links between endpoints, that are simulated in one run at most, unless one layer has
/// more: beyond, memory is what would be short.
const MOST_CHOICES: usize = 1 << 22;

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
    /// [`SimulateError`]: nothing to do, a layer that the simulator does not simulate, a step that a
    /// real cluster would refuse, or one that fails.
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
        for (layer, one) in self.layers.iter().enumerate() {
            fits(layer, one, &self.simulator)?;
        }
        let (name, shape) = model;
        let cluster = first.cluster();
        let identity = identity(&cluster, seed, name, shape, &self.load.name())?;
        let mut sums = Sums::new(&self.simulator, crate::drive::policy(&cluster));
        let mut step = 0;
        while step < steps {
            let group = step..(step + self.overlap as u64).min(steps);
            step = group.end;
            self.group(group, steps, &mut sums)?;
            on_step();
        }
        Ok(sums.finish(identity, self.source, steps, self.faults_to_come()))
    }

    /// Batches that begin together, through all layers: as many of these in one run as memory allows,
    /// so that a batch finds ports and devices as the others left them, whatever layer they are in.
    fn group(
        &mut self,
        steps: std::ops::Range<u64>,
        end: u64,
        sums: &mut Sums,
    ) -> Result<(), SimulateError> {
        let depth = self.layers.len();
        let mut batches: Vec<Batch> = steps.clone().map(|_| Batch::at(sums.clock_ns)).collect();
        let window = self.window(batches.len());
        for first in (0..depth).step_by(window) {
            let layers = first..depth.min(first + window);
            self.layers(layers, steps.clone(), end, &mut batches, sums)?;
        }
        for batch in &batches {
            sums.choices(&batch.record.choices_per_worker);
            sums.recorder.record(&batch.record)?;
            sums.clock_ns = sums.clock_ns.max(batch.at_ns);
        }
        Ok(())
    }

    /// Layers that are simulated in one run, for so many batches: one for a batch alone, which finds
    /// everything at rest.
    fn window(&self, batches: usize) -> usize {
        if batches == 1 {
            return 1;
        }
        let shape = self.load.shape();
        let choices = batches * shape.tokens * shape.top_k;
        // A step counts what goes from each endpoint to each.
        let links = batches * self.simulator.fabric().endpoints().pow(2);
        (MOST_CHOICES / choices.max(links).max(1)).max(1)
    }

    /// Some layers of the batches, in one run.
    fn layers(
        &mut self,
        layers: std::ops::Range<usize>,
        steps: std::ops::Range<u64>,
        end: u64,
        batches: &mut [Batch],
        sums: &mut Sums,
    ) -> Result<(), SimulateError> {
        let (depth, count) = (self.layers.len() as u64, batches.len());
        let all = layers.flat_map(|layer| steps.clone().map(move |step| (layer, step)));
        let all: Vec<(usize, u64)> = all.collect();
        let decided = all.iter().map(|(layer, step)| {
            let draw = step * depth + *layer as u64;
            let mut decided = self.load.decide_by(&self.layers[*layer], draw)?;
            // Nobody asks for them any more, and they are most of it.
            decided.route.logits = Vec::new();
            Ok(decided)
        });
        let decided = decided.collect::<Result<Vec<Decided>, CoordinatorError>>()?;
        let inputs = decided.iter().enumerate().map(|(at, one)| SimInput {
            follows: at.checked_sub(count),
            behind_ns: self.between_ns,
            ..SimInput::at(batches[at % count].at_ns, &one.route, &one.admission)
        });
        let inputs: Vec<SimInput<'_>> = inputs.collect();
        let run = self.simulator.run(&inputs)?;
        sums.uses(&run);
        let outcomes = run.steps.iter().zip(&decided).zip(&all).enumerate();
        for (at, ((outcome, decided), (layer, step))) in outcomes {
            sums.overflow(&self.layers[*layer], decided, outcome)?;
            if end - step <= self.lane_steps {
                sums.lanes(outcome, *step);
            }
            sums.critical[outcome.critical_endpoint as usize] += 1;
            let pair = (outcome.critical_endpoint, outcome.critical_home);
            *sums.critical_homes.entry(pair).or_default() += 1;
            sums.between_ns += batches[at % count].passes(outcome);
        }
        Ok(())
    }

    /// Faults that were to come after the last step.
    fn faults_to_come(&self) -> Vec<Fault> {
        let standing = self.simulator.standing();
        let to_come = |(at, fault): &(usize, &Fault)| {
            matches!(fault, Fault::Lost { .. }) && !standing.happened(*at)
        };
        let faults = self.simulator.config().faults.iter().enumerate();
        faults.filter(to_come).map(|(_, fault)| *fault).collect()
    }
}

/// Checks that `simulator` simulates what `rehearsal` decides.
fn fits(layer: usize, rehearsal: &Rehearsal, simulator: &Simulator) -> Result<(), SimulateError> {
    let (one, other) = (rehearsal.config(), simulator.config());
    let (experts, of) = (one.source.spec().routed_experts(), other.layer.experts);
    let held = (experts, &one.placement, one.exchange);
    if held == (of, &other.placement, other.exchange) {
        return Ok(());
    }
    let words = |experts: usize, workers: usize, exchange: ExchangeKind| {
        format!("{experts} experts on {workers} workers in {exchange}")
    };
    let sizes = (experts, one.placement.workers(), one.exchange);
    if sizes == (of, other.placement.workers(), other.exchange) {
        return Err(SimulateError::Layer {
            layer,
            held: "a placement of its own".to_owned(),
            expected: "the same one".to_owned(),
        });
    }
    Err(SimulateError::Layer {
        layer,
        held: words(experts, one.placement.workers(), one.exchange),
        expected: words(of, other.placement.workers(), other.exchange),
    })
}
