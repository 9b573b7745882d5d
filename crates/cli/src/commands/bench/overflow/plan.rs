//! The flags of `bench overflow`, checked before a process is started.

use expertmesh_bench::overflow::{OverflowBatch, OverflowPlan, every_policy};
use expertmesh_bench::workload::Workload;
use expertmesh_coordinator::{CoordinatorConfig, StepInput};
use expertmesh_exchange::OnLoss;
use expertmesh_placement::Placement;
use expertmesh_routing::{CapacityConfig, Overflow};
use ndarray::ArcArray2;

use super::OverflowArgs;
use super::replay::{Replay, replay};
use crate::args::load::STEPS;
use crate::args::model::Model;
use crate::args::step::StepOptions;
use crate::args::values::PlacementChoice;
use crate::cluster::WorkerOptions;
use crate::commands::launch::load;
use crate::error::Failure;
use crate::logging::LogFormat;

/// Factors, unless told otherwise: no room to spare, and a quarter.
const FACTORS: [f64; 2] = [1.0, 1.25];
/// Distinct batches of a workload that are used in turn.
const BATCHES: u64 = 8;

/// Everything that the flags ask for.
pub(super) struct Plan {
    pub(super) workers: WorkerOptions,
    pub(super) model: Model,
    pub(super) step: StepOptions,
    pub(super) workload: String,
    pub(super) rounds: OverflowPlan,
    /// What readers of the table should know.
    pub(super) notes: Vec<String>,
}

pub(super) fn plan(args: &OverflowArgs, log_format: LogFormat) -> Result<Plan, Failure> {
    refuse(args)?;
    let factors = factors(args);
    let mut capacity = args.step.capacity.clone();
    capacity.capacity_factor = factors.first().copied();
    capacity.overflow = Some(Overflow::DropPosition);
    let base = capacity.resolve()?;
    let rules = every_policy(&base, &factors);
    for rule in &rules {
        rule.validate()?;
    }
    let workers = args.processes.options(log_format)?;
    let steps = args.load.steps.unwrap_or(STEPS);
    let Replay {
        model,
        batches,
        name,
        mut notes,
    } = match &args.load.trace {
        Some(file) => replay(file, args.load.trace_layer, &args.model, steps)?,
        None => made(args, steps, workers.count.get())?,
    };
    let spec = model.source.spec();
    if spec.capacity.is_some() {
        return Err(Failure::input(format!(
            "--model names {}, whose layers have a capacity rule of their own, expected one that \
             is dropless without --capacity-factor",
            spec.family
        )));
    }
    let mut step = args.step.clone();
    step.capacity = crate::args::capacity::CapacityArgs::default();
    let mut step = step.resolve(
        spec.routed_experts(),
        workers.count.get(),
        model.dtype,
        model.seed,
    )?;
    step.capacity.training = base.training;
    notes.insert(0, place(args, &mut step)?);
    Ok(Plan {
        workers,
        model,
        step,
        workload: name,
        rounds: OverflowPlan {
            rounds: steps,
            warmup: args.load.warmup(),
            batches,
            rules,
        },
        notes,
    })
}

/// Flags that other commands have a use for.
fn refuse(args: &OverflowArgs) -> Result<(), Failure> {
    let capacity = &args.step.capacity;
    let wrong = if let Some(policy) = capacity.overflow {
        format!("--overflow is {policy}, expected none, because every policy is measured")
    } else if let Some(factor) = capacity.eval_capacity_factor {
        format!("--eval-capacity-factor is {factor}, expected none; --factors lists the factors")
    } else if args.step.on_loss == Some(OnLoss::Drop) {
        "--on-loss is drop, expected fail, because outputs are compared".to_owned()
    } else if let (Some(gate), Some(_)) = (&args.model.gate, &args.load.trace) {
        format!("--gate is {gate}, expected none with --trace, whose choices replace a gate's")
    } else if args.load.steps.unwrap_or(STEPS) == 0 {
        "--steps is 0, expected at least 1".to_owned()
    } else if let Some(factor) = factors(args).iter().find(|f| !f.is_finite() || **f <= 0.0) {
        format!("--factors holds {factor}, expected finite numbers above 0")
    } else {
        return Ok(());
    };
    Err(Failure::input(wrong))
}

/// In the order given, each once.
fn factors(args: &OverflowArgs) -> Vec<f64> {
    let given = match (args.step.capacity.capacity_factor, &*args.factors) {
        (Some(one), _) => vec![one],
        (None, []) => FACTORS.to_vec(),
        (None, many) => many.to_vec(),
    };
    let mut factors: Vec<f64> = Vec::new();
    for factor in given {
        if !factors.contains(&factor) {
            factors.push(factor);
        }
    }
    factors
}

/// Batches of a workload or of a file of hidden states.
fn made(args: &OverflowArgs, steps: u64, workers: usize) -> Result<Replay, Failure> {
    let model = args.model.resolve()?;
    let workload = load(&args.load, model.source.spec(), model.seed, workers)?.workload;
    let count = match args.load.input {
        Some(_) => 1,
        None => BATCHES.min(steps),
    };
    let batches = (0..count).map(|step| batch(&workload, step));
    Ok(Replay {
        batches: batches.collect::<Result<_, _>>()?,
        name: workload.name().to_owned(),
        notes: Vec::new(),
        model,
    })
}

fn batch(workload: &Workload, step: u64) -> Result<OverflowBatch, Failure> {
    let shape = workload.shape();
    let rows = ArcArray2::from_shape_vec((shape.tokens, shape.hidden), workload.rows(step));
    Ok(OverflowBatch {
        rows: rows.map_err(Failure::run)?,
        input: StepInput {
            token_ids: Some(workload.token_ids(step, shape.tokens)),
            sequence: workload.sequence(),
            ..StepInput::padded(workload.padding().map(<[bool]>::to_vec))
        },
    })
}

/// Gives experts a second replica where no file says who holds them; tells who does.
fn place(args: &OverflowArgs, step: &mut StepOptions) -> Result<String, Failure> {
    let workers = step.placement.workers();
    if let Some(PlacementChoice::File(path)) = &args.step.placement {
        return Ok(format!("placement: {}", path.display()));
    }
    if workers < 2 {
        let note = "placement: 1 worker, so there is no other replica to reroute to";
        return Ok(note.to_owned());
    }
    let after = |worker: u32| (worker + 1) % u32::try_from(workers).unwrap_or(u32::MAX);
    let entries = step.placement.entries();
    let table = entries.map(|entry| match entry {
        [one] => vec![*one, after(*one)],
        many => many.to_vec(),
    });
    step.placement = Placement::from_table(table.collect(), workers)?;
    let note = "placement: each expert has a second replica, on the worker after its first";
    Ok(note.to_owned())
}

// === impl Plan ===

impl Plan {
    /// Tokens of a step; of the largest, where they differ.
    pub(super) fn tokens(&self) -> usize {
        let tokens = self.rounds.batches.iter().map(|batch| batch.rows.nrows());
        tokens.max().unwrap_or_default()
    }

    pub(super) fn title(&self) -> String {
        format!(
            "overflow: {}, {} workers, {}, {} rounds of {} tokens after {} of warm-up",
            self.workload,
            self.workers.count,
            self.step.exchange,
            self.rounds.rounds,
            self.tokens(),
            self.rounds.warmup,
        )
    }

    /// A coordinator that drops nothing to begin with.
    pub(super) fn config(&self, workers: Vec<String>) -> CoordinatorConfig {
        CoordinatorConfig {
            capacity: CapacityConfig {
                training: self.step.capacity.training,
                ..CapacityConfig::default()
            },
            threads: self.workers.threads.get(),
            ..self.step.coordinator(&self.model, workers)
        }
    }
}
