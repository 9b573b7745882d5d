//! Every overflow policy on the same batches, beside dropless.
//!
//! One coordinator runs all of them over one set of workers, which know nothing of capacity, by
//! changing its rule between steps ([`Coordinator::swap_capacity`]). A round forwards one batch
//! under dropless, then under each rule, and under dropless again; the rules take turns at being
//! first. A rule's latency is compared with the two dropless steps of its own round, so that the
//! machine's drift meets both sides.
//!
//! Where a rule refused no choice its result, outputs must have the bits of dropless
//! ([`must_be_exact`]): spilling, growing and another replica change when and where a choice is
//! computed, not what it gives. A step that says otherwise ends the bench.

mod error;
mod rules;
#[cfg(test)]
mod tests;

pub use error::OutputError;
pub use rules::{every_policy, must_be_exact, policy_name};

use std::fmt::Write as _;

use expertmesh_coordinator::{CapacityState, Coordinator, CoordinatorError, StepInput, StepOutput};
use expertmesh_routing::{CapacityConfig, Overflow, RoutingError};
use expertmesh_telemetry::{
    ExpertOverflow, Identity, Load, Run, RunRecorder, Source, TelemetryError,
};
use ndarray::{ArcArray2, Array2};
use sha2::{Digest as _, Sha256};

/// One batch, and what its steps are given besides.
#[derive(Debug, Clone)]
pub struct OverflowBatch {
    /// Hidden states `[tokens, hidden]`.
    pub rows: ArcArray2<f32>,
    /// Padding, choices to replay, and so on. The number of the step is the bench's to set.
    pub input: StepInput,
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct OverflowPlan {
    /// Rounds that count.
    pub rounds: u64,
    /// Rounds before them.
    pub warmup: u64,
    /// Used in turn.
    pub batches: Vec<OverflowBatch>,
    /// The rules that are held against dropless.
    pub rules: Vec<CapacityConfig>,
}

/// What the steps under one rule gave.
#[derive(Debug, Clone)]
pub struct RuleRun {
    /// The rule.
    pub rule: CapacityConfig,
    /// One record for each round.
    pub recorder: RunRecorder,
    /// SHA-256 over the outputs of all rounds, hex.
    pub digest: String,
    /// Duration of each step, ascending, ns.
    pub steps_ns: Vec<u64>,
    /// Each step over the mean of its round's dropless steps, ascending.
    pub ratios: Vec<f64>,
    /// How far outputs are from those of dropless.
    pub error: OutputError,
}

/// An error of the overflow bench.
#[derive(Debug, thiserror::Error)]
pub enum OverflowError {
    /// A step failed.
    #[error("{rule}: {source}")]
    Step {
        /// The rule that it ran under.
        rule: String,
        /// Why.
        source: Box<CoordinatorError>,
    },
    /// A rule contradicts itself.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// Records of two steps do not fit together.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// There is nothing to measure.
    #[error("`{field}` holds 0, expected at least 1")]
    Nothing {
        /// Name of the field.
        field: &'static str,
    },
    /// The coordinator is not dropless to begin with.
    #[error("`capacity` holds {held}, expected dropless, which the rules are held against")]
    NotDropless {
        /// The rule in force.
        held: String,
    },
    /// A rule that lost nothing changed an output.
    #[error(
        "{rule}: round {round}, token {token}, element {element} is {held}, expected the bits of \
         dropless, {expected}"
    )]
    Bits {
        /// The rule.
        rule: String,
        /// Number of the round, warm-up included.
        round: u64,
        /// Row of the output.
        token: usize,
        /// Column of the output.
        element: usize,
        /// What the rule gave.
        held: f32,
        /// What dropless gave.
        expected: f32,
    },
}

/// One rule while it is measured.
struct Seat {
    rule: CapacityConfig,
    state: CapacityState,
    recorder: RunRecorder,
    digest: Sha256,
    steps_ns: Vec<u64>,
    ratios: Vec<f64>,
    error: OutputError,
}

/// Measures `plan` on a cluster that is up and dropless; `on_round` is told after each round
/// whether it was recorded. The first of the answers is dropless itself, then the rules in order.
///
/// # Errors
/// [`OverflowError`]: an empty plan, a rule that the gate does not go with, a worker lost on the
/// way, or bits that changed where they must not.
pub async fn measure(
    coordinator: &mut Coordinator,
    plan: &OverflowPlan,
    mut on_round: impl FnMut(bool),
) -> Result<Vec<RuleRun>, OverflowError> {
    let dropless = *coordinator.capacity();
    if dropless.overflow != Overflow::Dropless {
        let held = policy_name(&dropless);
        return Err(OverflowError::NotDropless { held });
    }
    if plan.rounds == 0 {
        return Err(OverflowError::Nothing { field: "rounds" });
    }
    let names = coordinator.endpoint_names();
    let mut base = Seat::new(dropless, &names)?;
    let seats = plan.rules.iter().map(|rule| Seat::new(*rule, &names));
    let mut seats = seats.collect::<Result<Vec<_>, _>>()?;
    let mut batches = plan.batches.iter().cycle();
    for round in 0..plan.warmup + plan.rounds {
        let batch = batches.next();
        let batch = batch.ok_or(OverflowError::Nothing { field: "batches" })?;
        if round == plan.warmup {
            // A capacity that has grown in warm-up would hide that it had to.
            for seat in &mut seats {
                seat.state = CapacityState::new(seat.rule)?;
            }
        }
        let recorded = round >= plan.warmup;
        one_round(coordinator, batch, round, recorded, &mut base, &mut seats).await?;
        on_round(recorded);
    }
    let all = std::iter::once(base).chain(seats);
    Ok(all.map(Seat::finish).collect())
}

async fn one_round(
    coordinator: &mut Coordinator,
    batch: &OverflowBatch,
    round: u64,
    recorded: bool,
    base: &mut Seat,
    seats: &mut [Seat],
) -> Result<(), OverflowError> {
    let before = base.step(coordinator, batch, round).await?;
    let mut steps = Vec::with_capacity(seats.len());
    for turn in 0..seats.len() {
        // Whoever is first follows the lightest step, so everybody is in turn.
        let at = (turn + round as usize) % seats.len();
        let seat = &mut seats[at];
        let step = seat.step(coordinator, batch, round).await?;
        if must_be_exact(&seat.rule, &step.overflow) {
            seat.check_bits(round, &step.output, &before.output)?;
        }
        if recorded {
            seat.record(&step, &before.output)?;
        }
        steps.push((at, step.record.step_ns));
        coordinator.recycle(step.output);
    }
    let after = base.step(coordinator, batch, round).await?;
    base.check_bits(round, &after.output, &before.output)?;
    if recorded {
        base.record(&before, &after.output)?;
        let dropless_ns = (before.record.step_ns as f64 + after.record.step_ns as f64) / 2.0;
        let ratio = |step_ns: u64| step_ns as f64 / dropless_ns.max(1.0);
        base.ratios.push(ratio(before.record.step_ns));
        for (at, step_ns) in steps {
            seats[at].ratios.push(ratio(step_ns));
        }
    }
    coordinator.recycle(before.output);
    coordinator.recycle(after.output);
    Ok(())
}

// === impl Seat ===

impl Seat {
    fn new(rule: CapacityConfig, endpoints: &[String]) -> Result<Self, RoutingError> {
        Ok(Self {
            rule,
            state: CapacityState::new(rule)?,
            recorder: RunRecorder::new(endpoints),
            digest: Sha256::new(),
            steps_ns: Vec::new(),
            ratios: Vec::new(),
            error: OutputError::default(),
        })
    }

    /// One step under this rule, drawing the same numbers as any other rule's step of the round.
    async fn step(
        &mut self,
        coordinator: &mut Coordinator,
        batch: &OverflowBatch,
        round: u64,
    ) -> Result<StepOutput, OverflowError> {
        let input = StepInput {
            at_step: Some(round),
            ..batch.input.clone()
        };
        coordinator.swap_capacity(&mut self.state);
        let step = coordinator.forward_in(batch.rows.clone(), input).await;
        coordinator.swap_capacity(&mut self.state);
        step.map_err(|source| OverflowError::Step {
            rule: policy_name(&self.rule),
            source: Box::new(source),
        })
    }

    fn record(&mut self, step: &StepOutput, reference: &Array2<f32>) -> Result<(), TelemetryError> {
        let ledger = &step.overflow;
        let count = crate::dispatch::overflow;
        let per_expert: Vec<ExpertOverflow> = ledger.per_expert.iter().map(count).collect();
        let smallest = ledger.smallest_sufficient_capacity_factor;
        self.recorder.record(&step.record)?;
        self.recorder
            .overflow(&per_expert, ledger.capacity_factor, Some(smallest))?;
        self.recorder
            .overflow_events(&crate::dispatch::events(ledger));
        self.steps_ns.push(step.record.step_ns);
        self.error.add(&step.output, reference);
        for value in &step.output {
            self.digest.update(value.to_le_bytes());
        }
        Ok(())
    }

    fn check_bits(
        &self,
        round: u64,
        output: &Array2<f32>,
        reference: &Array2<f32>,
    ) -> Result<(), OverflowError> {
        let pairs = output.indexed_iter().zip(reference);
        let mut differing =
            pairs.filter(|((_, held), dropless)| held.to_bits() != dropless.to_bits());
        match differing.next() {
            None => Ok(()),
            Some((((token, element), held), expected)) => Err(OverflowError::Bits {
                rule: policy_name(&self.rule),
                round,
                token,
                element,
                held: *held,
                expected: *expected,
            }),
        }
    }

    fn finish(mut self) -> RuleRun {
        self.steps_ns.sort_unstable();
        self.ratios.sort_by(f64::total_cmp);
        let hash = self.digest.finalize();
        RuleRun {
            rule: self.rule,
            recorder: self.recorder,
            digest: hash.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
            steps_ns: self.steps_ns,
            ratios: self.ratios,
            error: self.error,
        }
    }
}

// === impl RuleRun ===

impl RuleRun {
    /// The run of a report: the policy beside its counts, the output error among the losses.
    pub fn to_run(&self, identity: Identity, warmup: u64) -> Run {
        let elapsed_s = self.steps_ns.iter().map(|ns| *ns as f64 / 1e9).sum();
        let load = Load::closed(self.steps_ns.len() as u64, warmup, elapsed_s);
        let digest = Some(self.digest.clone());
        let mut run = self
            .recorder
            .finish(identity, load, Source::Measured, digest);
        run.overflow.policy = Some(policy_name(&self.rule));
        let errors = [
            ("output_error", self.error.relative()),
            ("output_error_worst_token", self.error.worst_token()),
        ];
        for (name, error) in errors {
            if let Some(error) = error {
                run.losses.insert(name.to_owned(), error);
                let path = format!("losses.{name}");
                run.source.insert(path, Source::Measured);
            }
        }
        run
    }

    /// Median duration of a step, µs; the lower one of an even number.
    pub fn step_p50_us(&self) -> Option<f64> {
        let middle = self.steps_ns.len().checked_sub(1)? / 2;
        self.steps_ns.get(middle).map(|ns| *ns as f64 / 1e3)
    }

    /// Quartiles of the ratios to dropless: lower, median, upper; of an even split the lower.
    pub fn ratio_quartiles(&self) -> Option<[f64; 3]> {
        let last = self.ratios.len().checked_sub(1)?;
        Some([1, 2, 3].map(|quarter| self.ratios[last * quarter / 4]))
    }
}

// === impl OverflowError ===

impl OverflowError {
    /// Whether the caller's input is at fault: exit code 2.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Step { source, .. } => source.is_input(),
            Self::Routing(_) | Self::Nothing { .. } | Self::NotDropless { .. } => true,
            Self::Telemetry(_) | Self::Bits { .. } => false,
        }
    }
}
