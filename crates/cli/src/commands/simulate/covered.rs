//! What of a simulation a calibration never varied: everything that is not in its domain.

use expertmesh_bench::workload::Pattern;
use expertmesh_coordinator::CoordinatorConfig;
use expertmesh_simulator::SimConfig;
use expertmesh_topology::Fabric;

use crate::args::step::StepArgs;
use crate::args::values::GateChoice;
use crate::commands::simulate::SimulateArgs;
use crate::commands::simulate::subject::Subject;
use crate::commands::simulate::trust::Trust;
use crate::error::Failure;

/// A simulation, as far as it may differ from a launch that `calibrate` would have made.
pub(super) struct Setting<'a> {
    pub(super) args: &'a SimulateArgs,
    pub(super) subject: &'a Subject,
    pub(super) fabric: &'a Fabric,
    pub(super) coordinator: &'a CoordinatorConfig,
    pub(super) simulated: &'a SimConfig,
    pub(super) pattern: Option<Pattern>,
    pub(super) tokens: usize,
    pub(super) layers: u32,
}

// === impl Setting ===

impl Setting<'_> {
    /// Why a profile says nothing certain about this, in one sentence; `None` where it was held
    /// against launches like it. Its machine would give each worker `threads` threads.
    ///
    /// # Errors
    /// [`Failure::Input`] for a placement that the layer does not have.
    pub(super) fn outside(&self, trust: &Trust, threads: usize) -> Result<Option<String>, Failure> {
        if let Some(locked) = &trust.locked {
            return Ok(Some(locked.clone()));
        }
        let workers = self.fabric.endpoints() - 1;
        let exchange = self.simulated.exchange;
        let layer = &self.simulated.layer;
        let mut reasons = Vec::new();
        reasons.extend(trust.domain.outside(workers, self.tokens, layer, exchange));
        reasons.extend(trust.elsewhere());
        let unlike = self.unlike(threads)?;
        if !unlike.is_empty() {
            reasons.push(format!("not calibrated with {}", unlike.join(", ")));
        }
        Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
    }

    /// What no launch of a calibration has: it takes defaults for everything but workers, tokens,
    /// layer and exchange.
    fn unlike(&self, threads: usize) -> Result<Vec<&'static str>, Failure> {
        let (args, step, sim) = (self.args, self.coordinator, self.simulated);
        let workers = self.fabric.endpoints() - 1;
        let model = &self.subject.model;
        let routed = model.source.spec().routed_experts();
        let usual = StepArgs::default().resolve(routed, workers, model.dtype, model.seed)?;
        let usual_gate = |GateChoice(gate): &GateChoice| gate.to_string() == "topk";
        let all = [
            (args.model.model.is_some(), "a model's own layers"),
            (!args.model.gate.iter().all(usual_gate), "this gate"),
            (self.layers > 1, "several layers"),
            (args.overlap.is_some_and(|many| many.get() > 1), "--overlap"),
            (self.pattern != Some(Pattern::Balanced), "this workload"),
            (step.force.is_some(), "routes that are forced"),
            (step.capacity != usual.capacity, "a capacity"),
            (step.bias_update != usual.bias_update, "a moving bias"),
            (step.placement != usual.placement, "this placement"),
            (sim.chunk_bytes != usual.chunk_bytes, "--chunk-bytes"),
            (sim.credits != usual.credits, "--credits"),
            (sim.threads != threads, "--threads"),
            (sim.resident, "--resident"),
            (!sim.faults.is_empty(), "--fault"),
        ];
        let unlike = all.into_iter().filter(|(differs, _)| *differs);
        Ok(unlike.map(|(_, what)| what).collect())
    }
}
