//! What is driven through the simulated layer.

use std::str::FromStr;

use expertmesh_bench::simulate::SimLoad;
use expertmesh_bench::workload::{Pattern, ScoredWorkload, WorkloadShape};
use expertmesh_checkpoint::LayerSpec;
use expertmesh_routing::Kind;

use crate::args::memory::check_memory;
use crate::commands::launch::{load, pattern};
use crate::commands::simulate::SimulateArgs;
use crate::commands::simulate::subject::Subject;
use crate::error::Failure;

/// Steps, unless told otherwise: a simulation repeats itself but for its routes.
const STEPS: u64 = 20;
/// Values of a batch from which on scores are drawn, unless told otherwise.
const MANY_VALUES: usize = 4 << 20;
/// Tokens of a preset model's batch on each worker: decoding, and of a whole sequence.
const DECODED: usize = 128;
const PREFILLED: usize = 4096;

/// Where a gate's scores come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scores {
    Rows,
    Drawn,
}

/// What a batch of a preset model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StageFlag {
    Decode,
    Prefill,
}

/// The load of a simulation.
pub(super) struct Driven {
    pub(super) load: SimLoad,
    pub(super) scores: Scores,
    /// How tokens spread over the experts; `None` where a file says so.
    pub(super) pattern: Option<Pattern>,
    /// Steps of it that are simulated unless told otherwise.
    pub(super) usual_steps: u64,
}

/// Whether a file brings rows or choices of its own.
pub(super) fn is_from_file(args: &SimulateArgs) -> bool {
    args.load.input.is_some() || args.load.trace.is_some()
}

/// The load that the flags ask for.
///
/// # Errors
/// [`Failure::Input`] for files, patterns and scores that do not fit the layer.
pub(super) fn driven(
    args: &SimulateArgs,
    subject: &Subject,
    workers: usize,
) -> Result<Driven, Failure> {
    let tokens = tokens(args, subject, workers);
    let scores = scores(args, subject, tokens);
    let spec: &LayerSpec = subject.model.source.spec();
    check_size(tokens, spec, workers)?;
    let pattern = pattern(&args.load, spec);
    if scores == Scores::Rows {
        return rows(args, subject, pattern, workers);
    }
    if is_from_file(args) {
        return Err(Failure::input(
            "--scores is drawn, expected rows with --input or --trace, which bring their own",
        ));
    }
    let shape = WorkloadShape {
        tokens,
        hidden: spec.hidden,
        experts: spec.experts,
        top_k: spec.top_k,
    };
    let ranks = pattern.asks_for_ranks().then_some(workers);
    let workload = ScoredWorkload::new(pattern, shape, ranks, subject.model.seed)?;
    Ok(Driven {
        load: SimLoad::Scores(workload),
        scores,
        pattern: Some(pattern),
        usual_steps: STEPS,
    })
}

/// Hidden states, as a launch drives them.
fn rows(
    args: &SimulateArgs,
    subject: &Subject,
    pattern: Pattern,
    workers: usize,
) -> Result<Driven, Failure> {
    if subject.preset.is_some() {
        return Err(Failure::input(
            "--scores is rows, expected drawn with a model that is known by its sizes alone",
        ));
    }
    let spec = subject.model.source.spec();
    let load = load(&args.load, spec, subject.model.seed, workers)?;
    Ok(Driven {
        load: SimLoad::Rows(load.workload),
        scores: Scores::Rows,
        pattern: (!is_from_file(args)).then_some(pattern),
        usual_steps: match args.load.trace {
            Some(_) => load.steps,
            None => STEPS,
        },
    })
}

/// Bytes between all endpoints, and scores and choices of a step.
fn check_size(tokens: usize, spec: &LayerSpec, workers: usize) -> Result<(), Failure> {
    let (endpoints, each) = (workers as f64 + 1.0, (spec.experts + 2 * spec.top_k) as f64);
    let what = format!("steps of {tokens} tokens among {workers} workers");
    check_memory(
        &what,
        8.0 * endpoints * endpoints + 4.0 * tokens as f64 * each,
    )
}

fn tokens(args: &SimulateArgs, subject: &Subject, workers: usize) -> usize {
    match (args.load.tokens, subject.preset, args.stage) {
        (Some(tokens), _, _) => tokens.get(),
        (None, None, _) => args.load.tokens(),
        (None, Some(_), Some(StageFlag::Prefill)) => PREFILLED * workers,
        (None, Some(_), _) => DECODED * workers,
    }
}

fn scores(args: &SimulateArgs, subject: &Subject, tokens: usize) -> Scores {
    let many = is_by_logits(subject) && tokens * subject.layer.hidden > MANY_VALUES;
    let usual = match subject.preset.is_some() || many {
        true => Scores::Drawn,
        false => Scores::Rows,
    };
    args.scores.unwrap_or(match is_from_file(args) {
        true => Scores::Rows,
        false => usual,
    })
}

/// Whether the gate looks at logits alone, which can be drawn.
fn is_by_logits(subject: &Subject) -> bool {
    let router = &subject.model.source.spec().router;
    !router.needs().token_ids && !matches!(router.kind, Kind::Soft { .. })
}

// === impl Scores ===

impl FromStr for Scores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "rows" => Ok(Self::Rows),
            "drawn" => Ok(Self::Drawn),
            _ => Err("expected rows or drawn".to_owned()),
        }
    }
}

// === impl StageFlag ===

impl FromStr for StageFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "decode" => Ok(Self::Decode),
            "prefill" => Ok(Self::Prefill),
            _ => Err("expected decode or prefill".to_owned()),
        }
    }
}
