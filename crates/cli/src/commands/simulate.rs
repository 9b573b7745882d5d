//! `expertmesh simulate`: what a layer, or a model, would cost on machines that are not there.

mod auto;
mod check;
mod choice;
mod covered;
mod faults;
mod load;
mod machines;
mod plan;
mod subject;
mod sweep;
mod tell;
#[cfg(test)]
mod tests;
mod trust;
mod what_if;

pub(crate) use auto::{Asked, for_cluster};
pub(crate) use choice::Choice;
pub(crate) use machines::Machines;

use std::path::PathBuf;

use clap::Args;
use expertmesh_bench::simulate::Simulated;
use expertmesh_telemetry::{Environment, Network, Report};

use crate::args::force::ForceArgs;
use crate::args::load::LoadArgs;
use crate::args::model::ModelArgs;
use crate::args::picture::PictureArgs;
use crate::args::process::ProcessArgs;
use crate::args::step::StepArgs;
use crate::args::values::{at_least_one, parsed, whole};
use crate::cluster::machines;
use crate::commands::simulate::faults::FaultFlag;
use crate::commands::simulate::plan::Planned;
use crate::error::Failure;
use crate::output::{check_place, complain, print, write};
use crate::progress::Progress;
use crate::report::{ReportFile, environment};

/// Flags of `simulate`.
#[derive(Debug, Clone, Default, Args)]
#[command(args_override_self = true)]
#[command(after_help = "Examples:
  expertmesh simulate --topology 10gbe --workers 8
  expertmesh simulate --topology h800 --model deepseek-v3 --workers 64 --stage decode
  expertmesh simulate --topology h800 --model deepseek-v3 --workers 64 --stage prefill --overlap 2
  expertmesh simulate --topology 25gbe --workers 16 --experts 64 --top-k 8 --workload zipf:1.1 \\
    --sweep exchange=star,all-to-all --sweep capacity-factor=1,1.25,2
  expertmesh simulate --profile profile.json --workers 5 --tokens 100 --html simulation.html
  expertmesh simulate --profile profile.json --workers 5 --tokens 100 --exchange auto
  expertmesh simulate --topology wan --workers 4 --fault dies:2:5ms --on-loss drop
  expertmesh simulate --costs h100 --print-costs > costs.toml

Gate, capacity, placement, plan and step machines are those of a real run: from the same seed and
scores of rows the ledgers of `simulate` and `launch` are equal, byte for byte. Times come from links
of the topology and costs of a profile; every figure says which.")]
pub(crate) struct SimulateArgs {
    /// Hosts, devices and links: a TOML file, or a preset: loopback, 10gbe, 25gbe, 100gbe, lab, wan,
    /// h100, h800 [default: loopback]
    #[arg(long, value_name = "FILE|NAME")]
    topology: Option<String>,
    /// What work takes: a TOML file, whose figures count as presets, or loopback, h100 or h800
    /// [default: that of the topology's name, else loopback]
    #[arg(long, value_name = "FILE|NAME", conflicts_with = "profile")]
    costs: Option<String>,
    /// Profile that `calibrate` wrote: costs and cores of a machine, and how far off they were; every
    /// process then runs on it, as with `launch`, and links of a topology are emulated there
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Where a gate's scores come from: rows (hidden states times gate, as in a real run), drawn
    /// (from the workload, without hidden states) [default: rows for batches of up to 4 Mi values
    /// of a layer that is no preset, and gates that look at more than logits; else drawn]
    #[arg(long, value_name = "HOW", value_parser = parsed::<load::Scores>)]
    scores: Option<load::Scores>,
    /// What a batch of a preset model is: decode (one token of each sequence) or prefill
    /// [default: decode]
    #[arg(long, value_name = "STAGE", value_parser = parsed::<load::StageFlag>)]
    stage: Option<load::StageFlag>,
    /// Tokens in the cache of each sequence while decoding [default: 4096]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    context: Option<u64>,
    /// Batches under way at the same time, each a step of its own [default: 1]
    #[arg(long, value_name = "N", value_parser = at_least_one::<std::num::NonZeroUsize>)]
    overlap: Option<std::num::NonZeroUsize>,
    /// Layers one after another [default: 1; of a preset model all]
    #[arg(long, value_name = "N", value_parser = at_least_one::<std::num::NonZeroU32>)]
    layers: Option<std::num::NonZeroU32>,
    /// What goes wrong: slow-compute:WORKER:FACTOR, slow-link:WORKER:FACTOR, dies:WORKER:TIME or
    /// hangs:WORKER:TIME; may be repeated
    #[arg(long, value_name = "FAULT", value_parser = parsed::<FaultFlag>)]
    #[arg(action = clap::ArgAction::Append)]
    fault: Vec<FaultFlag>,
    /// Tokens are at their homes already: no shard is sent and none returns [default: with costs
    /// h100 or h800 in all-to-all]
    #[arg(long)]
    resident: bool,
    /// Compare values of a flag: FLAG=A,B,…; several sweeps are combined
    #[arg(long, value_name = "FLAG=A,B", action = clap::ArgAction::Append)]
    sweep: Vec<String>,
    /// Also simulate what would change the step: faster links, faster experts, even load, another
    /// exchange [default: where it takes no longer than a few seconds]
    #[arg(long)]
    what_if: bool,
    /// Print what work takes, as a file for --costs, and simulate nothing
    #[arg(long)]
    print_costs: bool,
    /// Also write every event of the simulation to this file
    #[arg(long, value_name = "FILE")]
    event_log: Option<PathBuf>,
    /// Also write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    processes: ProcessArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    pictures: PictureArgs,
}

/// Simulates, prints, and writes what was asked for.
///
/// # Errors
/// [`Failure::Input`] for flags and files that do not fit, [`Failure::Run`] for a step that fails.
pub(crate) fn run(args: &SimulateArgs) -> Result<(), Failure> {
    if !args.sweep.is_empty() {
        return sweep::run(args);
    }
    if args.print_costs {
        return print_costs(args);
    }
    let report = args.report.as_deref().map(ReportFile::at).transpose()?;
    let pictures = args.pictures.check(1)?;
    args.event_log.as_deref().map_or(Ok(()), check_place)?;
    let mut planned = plan::plan(args, pictures.steps)?;
    planned.choice.iter().for_each(Choice::tell);
    let (simulated, elapsed) = simulate(&mut planned)?;
    faults::to_come(&simulated)
        .iter()
        .for_each(|line| complain(line));
    let mut page = tell::page(&planned, &simulated, elapsed);
    if args.what_if || planned.is_quick() {
        page.push_str(&what_if::what_if(&planned, &simulated)?);
    }
    if let (Some(file), Some(log)) = (&args.event_log, &simulated.log) {
        write(file, log)?;
    }
    let written = of_simulation(vec![planned.told(simulated.run)]);
    print(&(expertmesh_report::terminal(&written) + &page))?;
    pictures.write(&written, &[simulated.trace])?;
    report.map_or(Ok(()), |file| file.write(&written))
}

/// Prints the costs that the flags name, as `--costs` reads them.
fn print_costs(args: &SimulateArgs) -> Result<(), Failure> {
    check::check(args)?;
    let costs = Machines::read(args)?.costs;
    print(&costs.to_toml().map_err(Failure::run)?)
}

/// Simulates what is planned; also tells how many seconds it took.
fn simulate(planned: &mut Planned) -> Result<(Simulated, f64), Failure> {
    let started = std::time::Instant::now();
    let progress = Progress::steps(planned.steps.div_ceil(planned.simulation.overlap as u64));
    let named = (planned.name.as_str(), Some(planned.shape.clone()));
    let mut simulated = planned
        .simulation
        .run(planned.steps, planned.seed, named, || progress.step(true))
        .map_err(plan::refused)?;
    simulated.run.environment = Some(place(planned));
    Ok((simulated, started.elapsed().as_secs_f64()))
}

/// Who simulates, and which machines.
fn place(planned: &Planned) -> Environment {
    let mut environment = environment(&[]);
    environment.network = Network::Simulated;
    environment.topology = Some(machines(planned.simulation.simulator.fabric()));
    environment
}

/// A report of simulated runs: its place is that of the first.
fn of_simulation(runs: Vec<expertmesh_telemetry::Run>) -> Report {
    let place = runs.first().and_then(|run| run.environment.clone());
    let mut report = Report::new(place.unwrap_or_else(|| environment(&[])));
    let all = Report {
        runs,
        ..report.clone()
    };
    report.extend(all);
    report
}
