//! The exchange beside its floor.
//!
//! Each round forwards a batch through the cluster, then sends messages of the same sizes in the
//! same pattern over the same streams to the same workers, answered without any work
//! ([`Coordinator::floor`]). Both see the same machine in the same minute, so their ratio says what
//! our logic costs; the absolute figures belong to the machine and the hour.

use expertmesh_coordinator::{Coordinator, CoordinatorError, StepInput, StepOutput};
use expertmesh_telemetry::{ExpertOverflow, OverflowEvents, RunRecorder, TelemetryError};
use ndarray::ArcArray2;

/// What to measure at one number of tokens.
#[derive(Debug, Clone)]
pub struct DispatchPlan {
    /// Rounds that count.
    pub rounds: usize,
    /// Rounds before them.
    pub warmup: usize,
    /// Batches `[tokens, hidden]` with whatever else their gate asks for, used in turn.
    pub batches: Vec<(ArcArray2<f32>, StepInput)>,
    /// Rounds, the last ones, whose steps come with their lanes.
    pub lane_rounds: usize,
}

/// An error of the dispatch bench.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// A step or a floor round failed.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    /// Records of two steps do not fit together.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// There is nothing to measure.
    #[error("`{field}` holds 0, expected at least 1")]
    Nothing {
        /// Name of the field.
        field: &'static str,
    },
}

/// Measures `plan` on a cluster that is up; the recorder holds exchanges and floors. `on_step` is
/// shown every step that counts, when its round is over.
///
/// # Errors
/// [`DispatchError`]: an empty plan, or a worker lost on the way.
pub async fn measure(
    coordinator: &Coordinator,
    plan: &DispatchPlan,
    mut on_step: impl FnMut(&StepOutput),
) -> Result<RunRecorder, DispatchError> {
    let mut recorder = RunRecorder::new(&coordinator.endpoint_names());
    if plan.rounds == 0 {
        return Err(DispatchError::Nothing { field: "rounds" });
    }
    let mut batches = plan.batches.iter().cycle();
    for round in 0..plan.warmup + plan.rounds {
        let (rows, input) = batches
            .next()
            .ok_or(DispatchError::Nothing { field: "batches" })?
            .clone();
        let input = StepInput {
            want_lanes: plan.warmup + plan.rounds - round <= plan.lane_rounds,
            ..input
        };
        let step = coordinator.forward_in(rows, input).await?;
        let floor_ns = coordinator.floor(&step.traffic.ledger).await?;
        if round >= plan.warmup {
            recorder.record(&step.record)?;
            recorder.floor(floor_ns);
            let ledger = &step.overflow;
            let per_expert: Vec<ExpertOverflow> = ledger.per_expert.iter().map(overflow).collect();
            let smallest = ledger.smallest_sufficient_capacity_factor;
            recorder.overflow(&per_expert, ledger.capacity_factor, Some(smallest))?;
            on_step(&step);
        }
        coordinator.recycle(step.output);
    }
    Ok(recorder)
}

/// What the policy did besides, as the report has it.
pub(crate) fn events(ledger: &expertmesh_routing::OverflowLedger) -> OverflowEvents {
    OverflowEvents {
        tokens_without_expert: ledger.tokens_without_expert,
        spilled: ledger.spilled,
        waves: u64::from(ledger.waves),
        replays: ledger.replays,
        dropped_by_slot: ledger.dropped_by_slot.clone(),
    }
}

/// A count of the overflow ledger as the report has it.
pub(crate) fn overflow(count: &expertmesh_routing::ExpertCount) -> ExpertOverflow {
    ExpertOverflow {
        assigned: count.assigned,
        computed: count.computed,
        rerouted: count.rerouted,
        dropped: count.dropped,
        skipped: count.skipped,
        lost: count.lost,
        assigned_gate_weight: count.assigned_weight,
        lost_gate_weight: count.dropped_weight + count.lost_weight,
        received: count.received,
    }
}
