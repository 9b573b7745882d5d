//! What steps of a simulation add up to.

use std::collections::BTreeMap;

use expertmesh_coordinator::{Decided, Rehearsal};
use expertmesh_simulator::{EndpointUse, Fault, PortUse, SimRun, SimStep, Simulator};
use expertmesh_telemetry::{
    ExpertOverflow, Identity, Lane, Load, RunRecorder, Source, StepRecord, Trace,
};
use sha2::{Digest as _, Sha256};

use super::{SimulateError, Simulated};
use crate::dispatch::{events, overflow};
use crate::drive::hex;

/// Sums over steps.
pub(super) struct Sums {
    /// The overflow policy, as the report names it.
    pub(super) policy: Option<String>,
    pub(super) recorder: RunRecorder,
    pub(super) trace: Trace,
    pub(super) endpoints: Vec<EndpointUse>,
    pub(super) ports: Vec<PortUse>,
    pub(super) critical: Vec<u64>,
    pub(super) critical_homes: BTreeMap<(u32, u32), u64>,
    pub(super) choices: Vec<u64>,
    pub(super) between_ns: u64,
    pub(super) events: u64,
    pub(super) digest: Sha256,
    pub(super) log: Option<String>,
    /// Simulated time from the first step's begin to the last one's end.
    pub(super) clock_ns: u64,
}

/// One batch on its way through the layers.
pub(super) struct Batch {
    /// When its next layer begins.
    pub(super) at_ns: u64,
    /// The sum over its layers so far.
    pub(super) record: StepRecord,
}

// === impl Batch ===

impl Batch {
    pub(super) fn at(at_ns: u64) -> Self {
        let record = StepRecord::default();
        Self { at_ns, record }
    }

    /// A layer is behind it, and what lies behind that; gives what the latter took, ns.
    pub(super) fn passes(&mut self, outcome: &SimStep) -> u64 {
        self.add(&outcome.record);
        let over_ns = self.at_ns + outcome.record.step_ns;
        let behind_ns = outcome.left_ns - over_ns;
        self.record.step_ns += behind_ns;
        self.at_ns = outcome.left_ns;
        behind_ns
    }

    /// Adds a layer to the step.
    pub(super) fn add(&mut self, layer: &StepRecord) {
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
    pub(super) fn new(simulator: &Simulator, policy: Option<String>) -> Self {
        let (names, fabric) = (simulator.names(), simulator.fabric());
        Self {
            policy,
            recorder: RunRecorder::new(names),
            trace: Trace::new(names),
            endpoints: vec![EndpointUse::default(); names.len()],
            ports: vec![PortUse::default(); fabric.ports()],
            critical: vec![0; names.len()],
            critical_homes: BTreeMap::new(),
            choices: vec![0; names.len() - 1],
            between_ns: 0,
            events: 0,
            digest: Sha256::new(),
            log: None,
            clock_ns: 0,
        }
    }

    pub(super) fn uses(&mut self, run: &SimRun) {
        for (sum, one) in self.endpoints.iter_mut().zip(&run.endpoints) {
            sum.io_ns += one.io_ns;
            sum.compute_ns += one.compute_ns;
            sum.behind_ns += one.behind_ns;
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

    pub(super) fn overflow(
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

    pub(super) fn choices(&mut self, of_step: &[u64]) {
        for (sum, choices) in self.choices.iter_mut().zip(of_step) {
            *sum += choices;
        }
    }

    pub(super) fn lanes(&mut self, outcome: &SimStep, step: u64) {
        let lanes = outcome.lanes.iter().map(|lane| Lane { step, ..*lane });
        self.trace.lanes.extend(lanes);
    }

    pub(super) fn finish(
        self,
        identity: Identity,
        source: Source,
        steps: u64,
        faults_to_come: Vec<Fault>,
    ) -> Simulated {
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
            critical_homes: self.critical_homes,
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
