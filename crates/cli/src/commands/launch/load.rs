//! What a launch drives through its layer.

use expertmesh_bench::workload::{Pattern, ReplayShape, Workload, WorkloadShape};
use expertmesh_checkpoint::LayerSpec;
use expertmesh_experts::synthetic_gate;

use crate::args::load::{LoadArgs, STEPS};
use crate::args::memory::check_memory;
use crate::error::Failure;
use crate::tensors::Hidden;
use crate::traces::replay;

/// A load, and how many steps of it are recorded.
pub(crate) struct Load {
    pub(crate) workload: Workload,
    pub(crate) steps: u64,
}

/// The load that `args` ask for, over `workers` workers.
///
/// # Errors
/// [`Failure::Input`] for files, patterns and traces that do not fit the layer.
pub(crate) fn load(
    args: &LoadArgs,
    spec: &LayerSpec,
    seed: u64,
    workers: usize,
) -> Result<Load, Failure> {
    let mut usual_steps = STEPS;
    let workload = if args.trace.is_some() {
        let (workload, steps) = replayed(args, spec, seed)?;
        usual_steps = steps;
        workload
    } else if let Some(file) = &args.input {
        let hidden = Hidden::read(file)?;
        hidden.check_hidden(spec.hidden)?;
        let mut shape = shape(args, spec);
        shape.tokens = hidden.tokens;
        let name = file.display().to_string();
        let (sequence, ids) = (hidden.sequence(), hidden.token_ids.clone());
        Workload::fixed(name, shape, hidden.rows, hidden.padding)?.of_sequences(sequence, ids)
    } else {
        drawn(args, spec, seed, workers)?
    };
    Ok(Load {
        workload,
        steps: args.steps.unwrap_or(usual_steps),
    })
}

fn shape(args: &LoadArgs, spec: &LayerSpec) -> WorkloadShape {
    WorkloadShape {
        tokens: args.tokens(),
        hidden: spec.hidden,
        experts: spec.experts,
        top_k: spec.top_k,
    }
}

/// How tokens spread over the experts: asked for, or evenly where the gate can be made to.
pub(crate) fn pattern(args: &LoadArgs, spec: &LayerSpec) -> Pattern {
    let usual = match spec.family == "synthetic" {
        true => Pattern::Balanced,
        false => Pattern::Normal,
    };
    args.workload.unwrap_or(usual)
}

fn drawn(
    args: &LoadArgs,
    spec: &LayerSpec,
    seed: u64,
    workers: usize,
) -> Result<Workload, Failure> {
    let is_synthetic = spec.family == "synthetic";
    let pattern = pattern(args, spec);
    let gate = (is_synthetic && pattern != Pattern::Normal)
        .then(|| synthetic_gate(spec.experts, spec.hidden, seed, spec.layer));
    let shape = shape(args, spec);
    let values = shape.tokens as f64 * (shape.hidden + shape.top_k) as f64;
    let rows = format!("the rows of --tokens {}", shape.tokens);
    check_memory(&rows, 4.0 * values)?;
    let workload = Workload::new(pattern, shape, seed, gate)?;
    match pattern.asks_for_ranks() {
        true => Ok(workload.over_ranks(workers)?),
        false => Ok(workload),
    }
}

/// A trace whose choices are replayed, and its steps.
fn replayed(args: &LoadArgs, spec: &LayerSpec, seed: u64) -> Result<(Workload, u64), Failure> {
    let shape = ReplayShape {
        experts: spec.experts,
        top_k: spec.top_k,
        layer: spec.layer,
        from: args.trace_layer,
    };
    let file = args.trace.clone().unwrap_or_default();
    let replay = replay(&file, &shape, spec.family == "synthetic")?;
    let steps = replay.steps() as u64;
    Ok((Workload::replayed(replay, shape, spec.hidden, seed), steps))
}
