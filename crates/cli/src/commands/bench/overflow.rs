//! `expertmesh bench overflow`: every overflow policy on the same batches, beside dropless.
//!
//! One set of worker processes serves all policies, and this process is their coordinator, which
//! changes its capacity rule from step to step. [`plan`] checks the flags, [`replay`] makes batches
//! and a gate of a trace.

mod plan;
mod replay;

use std::path::PathBuf;

use clap::Args;
use expertmesh_bench::drive::identity;
use expertmesh_bench::overflow::measure;
use expertmesh_coordinator::Coordinator;
use expertmesh_exchange::OnLoss;
use expertmesh_report::overflow::{OverflowPage, OverflowRow};
use expertmesh_telemetry::{Report, Run};

use crate::args::capacity::factor;
use crate::args::load::LoadArgs;
use crate::args::model::ModelArgs;
use crate::args::process::ProcessArgs;
use crate::args::step::StepArgs;
use crate::cluster::{ProcessGroup, start_workers, while_all_live};
use crate::commands::bench::overflow::plan::Plan;
use crate::error::Failure;
use crate::logging::LogFormat;
use crate::output::{check_place, print, write};
use crate::progress::Progress;
use crate::report::{ReportFile, environment};
use crate::signals::{Signals, interrupted};

/// Flags of `bench overflow`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  expertmesh bench overflow --workload hot:0.4
  expertmesh bench overflow --workload zipf:1.2 --factors 1,1.25,1.5 --svg overflow.svg
  expertmesh bench overflow --expert identity --trace routes.moetrace --report overflow.json
  expertmesh bench overflow --model Mixtral-8x7B-v0.1 --layer 0 --input in.safetensors

One round forwards a batch under dropless, then under every policy and factor, then under dropless
again; `ratio` is a step over the mean of its round's two dropless steps. `error` is the length of
what outputs miss over the length of the outputs of dropless.

Policies that lose nothing must give the bits of dropless: a step of spill, grow-and-replay or
reroute-to-replica that dropped no choice and gives others ends the bench with exit code 1.

Unless --placement names a file, each expert has a second replica, on the worker after its first,
so that reroute-to-replica has somewhere to go. A trace fixes the choices; rows are made to fit
them, for the policies that look at logits.")]
pub(crate) struct OverflowArgs {
    /// Capacity factors; every policy runs under each of them [default: 1,1.25]
    #[arg(
        long,
        value_name = "F,…",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    #[arg(value_parser = factor, conflicts_with = "capacity_factor")]
    factors: Vec<f64>,
    /// Also write the report to this file, as JSON with a run for each policy and factor
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Also draw it, as SVG: output error against latency, and what became of choices
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    processes: ProcessArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    load: LoadArgs,
}

/// One policy, measured.
struct Measured {
    run: Run,
    step_p50_us: Option<f64>,
    ratios: Option<[f64; 3]>,
}

/// Measures, prints, and stops every process however it ends.
///
/// # Errors
/// [`Failure::Input`] for flags that do not fit, [`Failure::Run`] for a step that failed or bits
/// that changed where they must not.
pub(crate) async fn run(args: OverflowArgs, log_format: LogFormat) -> Result<(), Failure> {
    let mut signals = Signals::take()?;
    let report = args.report.as_deref().map(ReportFile::at).transpose()?;
    args.svg.as_deref().map_or(Ok(()), check_place)?;
    let plan = plan::plan(&args, log_format)?;
    let mut group = ProcessGroup::new();
    let outcome = tokio::select! {
        biased;
        signal = signals.next() => Err(interrupted(signal)),
        outcome = start_and_measure(&plan, &mut group) => outcome,
    };
    group.stop().await;
    let (measured, environment) = outcome?;
    let rows = measured.iter().map(|one| OverflowRow {
        run: &one.run,
        step_p50_us: one.step_p50_us,
        ratios: one.ratios,
    });
    let page = OverflowPage {
        title: plan.title(),
        notes: plan.notes.clone(),
        rows: rows.collect(),
    };
    print(&page.table())?;
    if let Some(path) = &args.svg {
        write(path, page.svg())?;
    }
    let Some(file) = report else {
        return Ok(());
    };
    let mut report = Report::new(environment);
    report.runs = measured.into_iter().map(|one| one.run).collect();
    file.write(&report)
}

async fn start_and_measure(
    plan: &Plan,
    group: &mut ProcessGroup,
) -> Result<(Vec<Measured>, expertmesh_telemetry::Environment), Failure> {
    let workers = start_workers(group, &plan.workers).await?;
    let addresses = workers.into_iter().map(|ready| ready.address).collect();
    let work = measure_all(plan, addresses);
    while_all_live(work, group, OnLoss::Fail).await
}

async fn measure_all(
    plan: &Plan,
    addresses: Vec<String>,
) -> Result<(Vec<Measured>, expertmesh_telemetry::Environment), Failure> {
    let mut coordinator = Coordinator::connect(plan.config(addresses)).await?;
    let progress = Progress::steps(plan.rounds.warmup + plan.rounds.rounds);
    let on_round = |recorded| progress.step(recorded);
    let runs = measure(&mut coordinator, &plan.rounds, on_round)
        .await
        .map_err(|error| Failure::by_fault(error.is_input(), error))?;
    let cluster = coordinator.cluster();
    let name = plan.model.describe();
    let shape = plan.model.shape(plan.tokens(), plan.step.wire_dtype);
    let identity = identity(
        &cluster,
        plan.model.seed,
        &name,
        Some(shape),
        &plan.workload,
    )?;
    let measured = runs.iter().map(|run| Measured {
        run: run.to_run(identity.clone(), plan.rounds.warmup),
        step_p50_us: run.step_p50_us(),
        ratios: run.ratio_quartiles(),
    });
    Ok((measured.collect(), environment(&cluster.endpoints)))
}
