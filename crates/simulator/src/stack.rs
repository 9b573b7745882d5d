//! Layers one after another.

use expertmesh_routing::{Admission, Route};
use expertmesh_telemetry::{Phase, StepRecord};
use expertmesh_topology::Device;

use crate::config::SimStep;
use crate::costs::{float, whole};
use crate::error::SimError;
use crate::simulator::Simulator;

/// What of a layer is not its mixture of experts: attention and dense projections, once for every
/// token of a worker.
///
/// `max(flops · T / (peak · efficiency), weight bytes / (memory rate · share))` on the device of one
/// worker, where T are the tokens of the worker that has most. Reading of a KV cache, and whatever
/// tensor parallelism would send, are the caller's to add to the two figures.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DensePart {
    /// Floating-point operations for one token.
    pub flops_per_token: f64,
    /// Bytes that are read once for all tokens.
    pub bytes: f64,
    /// Bytes that are read for each token, such as its KV cache.
    pub bytes_per_token: f64,
}

/// One layer of a stack.
#[derive(Debug)]
pub struct StackLayer {
    /// Its mixture of experts; `None` for a dense layer.
    pub experts: Option<Simulator>,
    /// The rest of it.
    pub dense: DensePart,
}

/// A model's layers in their order, each with machines of its own state, one after another in time.
#[derive(Debug)]
pub struct StackSim {
    /// The layers.
    pub layers: Vec<StackLayer>,
    /// What dense parts run on.
    pub device: Device,
    /// Share of the device's memory rate that they reach.
    pub bandwidth_share: f64,
}

/// What a stack's step gave.
#[derive(Debug, Clone)]
pub struct StackStep {
    /// The sum over the layers, dense parts in `step_ns` alone: they are in no phase.
    pub record: StepRecord,
    /// Of it, what dense parts took.
    pub dense_ns: u64,
    /// The steps of the layers that have experts.
    pub steps: Vec<SimStep>,
}

// === impl DensePart ===

impl DensePart {
    /// Its time for `tokens` tokens on `device`, nanoseconds.
    pub fn ns(&self, tokens: u64, device: &Device, bandwidth_share: f64) -> u64 {
        let flops = self.flops_per_token * float(tokens);
        let bytes = self.bytes + self.bytes_per_token * float(tokens);
        let compute = flops * 1e9 / (device.flops * device.efficiency);
        let memory = bytes * 1e9 / (device.memory_bytes_per_s * bandwidth_share);
        whole(compute.max(memory))
    }
}

// === impl StackSim ===

impl StackSim {
    /// One step of all layers. `routes` has a route and its admission for each layer with experts;
    /// `tokens` are those of the worker that has most.
    ///
    /// # Errors
    /// [`SimError::Field`] if routes and layers differ in number, and [`SimError::Step`] for the
    /// first layer that fails.
    pub fn step(
        &mut self,
        tokens: u64,
        routes: &[(Route, Admission)],
    ) -> Result<StackStep, SimError> {
        let with = self
            .layers
            .iter()
            .filter(|one| one.experts.is_some())
            .count();
        if with != routes.len() {
            let expected = format!("{with}, one for each layer with experts");
            return Err(SimError::field("routes", routes.len(), expected));
        }
        let mut routes = routes.iter();
        let mut step = StackStep {
            record: StepRecord::default(),
            dense_ns: 0,
            steps: Vec::with_capacity(with),
        };
        for layer in &mut self.layers {
            step.dense_ns += layer.dense.ns(tokens, &self.device, self.bandwidth_share);
            let Some(experts) = &mut layer.experts else {
                continue;
            };
            if let Some((route, admission)) = routes.next() {
                let one = experts.step(route, admission)?;
                add(&mut step.record, &one.record);
                step.steps.push(one);
            }
        }
        step.record.step_ns += step.dense_ns;
        Ok(step)
    }
}

/// The sum of two records, as the report of a real stack has it.
fn add(sum: &mut StepRecord, more: &StepRecord) {
    sum.step_ns += more.step_ns;
    sum.exchange_ns += more.exchange_ns;
    sum.dispatch_ns += more.dispatch_ns;
    sum.combine_ns += more.combine_ns;
    for phase in Phase::ALL {
        sum.phases_ns[phase.index()] += more.phases_ns[phase.index()];
    }
    sum.longest_experts_ns += more.longest_experts_ns;
    sum.clock_error_ns += more.clock_error_ns;
    sum.payload_bytes += more.payload_bytes;
    sum.local_bytes += more.local_bytes;
    sum.saved_by_dedup_bytes += more.saved_by_dedup_bytes;
    sum.messages += more.messages;
    if sum.matrix.is_empty() {
        sum.matrix.clone_from(&more.matrix);
    } else {
        for (row, more) in sum.matrix.iter_mut().zip(&more.matrix) {
            row.iter_mut()
                .zip(more)
                .for_each(|(sum, more)| *sum += more);
        }
    }
    sum.choices_per_worker
        .resize(more.choices_per_worker.len(), 0);
    for (sum, more) in sum
        .choices_per_worker
        .iter_mut()
        .zip(&more.choices_per_worker)
    {
        *sum += more;
    }
}
