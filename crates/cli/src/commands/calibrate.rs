//! `expertmesh calibrate`: this machine's costs, for simulations to come.
//!
//! A grid of configurations is launched and driven; costs are moved until the simulation of each is
//! as long as the launch was. What lies between the points of the grid is left to `validate`.

mod domain;

use std::path::PathBuf;

use clap::Args;
use expertmesh_bench::calibrate::{
    Domain, ExpertTimes, LayerShape, NOT_FITTED, Point, PointRecord, Predictor, Profile, Sample,
    figures_of, fit, set_loopback, time_expert,
};
use expertmesh_bench::validate::{Comparison, ErrorTable, FigureErrors, STEP};
use expertmesh_simulator::{Costs, ExpertTable};
use expertmesh_telemetry::{Environment, Source};
use expertmesh_topology::Topology;

use crate::args::values::whole;
use crate::cluster::ProcessGroup;
use crate::commands::calibrate::domain::DomainArgs;
use crate::commands::measure::{Effort, Simulated, measure, simulated};
use crate::error::Failure;
use crate::logging::LogFormat;
use crate::output::{check_place, print, write};
use crate::progress::Progress;
use crate::report::environment;
use crate::signals::{Signals, interrupted};

/// Choices of all steps together that a fit simulates at each point. Few tokens choose few experts, which
/// may share a worker or not: it takes many such steps to know the usual one.
const FIT_CHOICES: usize = 1024;
const MOST_FIT_STEPS: usize = 24;
/// Steps of a launch that a median needs: ten on either side.
pub(crate) const FEWEST_STEPS: u64 = 20;
/// Latency, ns, and rate, bytes a ns, that the fit of a loopback starts from.
const LOOPBACK: [f64; 2] = [20_000.0, 2.0];

/// Flags of `calibrate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  expertmesh calibrate --profile profile.json
  expertmesh calibrate --profile profile.json --seconds 0.3
  expertmesh calibrate --profile mine.json --workers 2,4 --tokens 1,256 --shape 64,6,2048,1408 \\
    --points 40
  expertmesh validate --profile profile.json --holdout-seed 1
  expertmesh simulate --profile profile.json --workers 5 --tokens 100

It takes some minutes and wants the machine for itself: a grid of workers (2, 4, 6, 8, 12 and so on)
and tokens (1, 4, 16, 64 and so on) with the ends of the domain, every layer, both exchanges on
loopback. Emulated links follow their topology and need no calibration.")]
pub(crate) struct CalibrateArgs {
    /// File for the profile
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,
    /// Seconds of steps at each point [default: 0.6]
    #[arg(
        long,
        value_name = "S",
        default_value = "0.6",
        hide_default_value = true
    )]
    seconds: f64,
    /// Fit the measurements of this profile anew instead of taking others
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["workers", "tokens", "shape", "points", "seconds", "seed"])]
    refit: Option<PathBuf>,
    /// Seed of layers and batches [default: 0]
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    #[arg(value_parser = whole::<u64>)]
    seed: u64,
    #[command(flatten)]
    domain: DomainArgs,
}

/// Measures, fits, writes the profile and says how far off it is.
///
/// # Errors
/// [`Failure`] of a cluster, or of a file that cannot be written.
pub(crate) async fn run(args: CalibrateArgs, log_format: LogFormat) -> Result<(), Failure> {
    check_place(&args.profile)?;
    check_seconds(args.seconds)?;
    let (domain, most) = args.domain.resolve()?;
    let mut signals = Signals::take()?;
    if let Some(measured) = &args.refit {
        let Profile {
            domain,
            experts,
            points,
            seed,
            environment,
            ..
        } = Profile::read(measured)?;
        return finish(&args, fitted(seed, environment, domain, experts, points)?);
    }
    let experts = time_experts(&domain)?;
    let grid = domain.measured(most, args.seed);
    let mut group = ProcessGroup::new();
    let outcome = tokio::select! {
        biased;
        signal = signals.next() => Err(interrupted(signal)),
        outcome = measure_grid(&args, &grid, &mut group, log_format) => outcome,
    };
    group.stop().await;
    let environment = environment(&[]);
    finish(
        &args,
        fitted(args.seed, environment, domain, experts, outcome?)?,
    )
}

/// Seconds of steps, of a flag that `validate` has too.
///
/// # Errors
/// [`Failure::Input`] for what is no such time.
pub(crate) fn check_seconds(seconds: f64) -> Result<(), Failure> {
    match seconds > 0.0 && seconds <= 60.0 {
        true => Ok(()),
        false => Err(Failure::input(format!(
            "--seconds is {seconds}, expected above 0 and at most 60"
        ))),
    }
}

/// Writes and tells.
fn finish(args: &CalibrateArgs, profile: Profile) -> Result<(), Failure> {
    write(&args.profile, profile.to_json()?)?;
    print(&page(args, &profile))
}

/// What a core takes for an expert of each size, alone and while all cores compute.
fn time_experts(domain: &Domain) -> Result<Vec<ExpertTimes>, Failure> {
    let cores = crate::commands::cores().get();
    // Experts of one size are one, out of the layer that has most of them.
    let mut shapes: Vec<LayerShape> = Vec::new();
    for shape in &domain.shapes {
        let size = |one: &LayerShape| (one.hidden, one.ffn);
        match shapes.iter_mut().find(|one| size(one) == size(shape)) {
            Some(known) if known.experts >= shape.experts => {}
            Some(known) => *known = *shape,
            None => shapes.push(*shape),
        }
    }
    let shapes = shapes.iter();
    let times = shapes.map(|shape| time_expert(&shape.expert(), shape.experts, cores));
    times.collect::<Result<_, _>>().map_err(Failure::run)
}

/// The same as costs have it.
fn table(times: &ExpertTimes, domain: &Domain) -> Option<ExpertTable> {
    let of = |shape: &&LayerShape| (shape.hidden, shape.ffn) == (times.hidden, times.ffn);
    let spec = domain.shapes.iter().find(of)?.expert();
    let points = |ns: &[u64]| {
        let pairs = times.rows.iter().zip(ns);
        pairs.map(|(rows, ns)| (*rows, *ns as f64)).collect()
    };
    Some(ExpertTable {
        hidden: spec.hidden,
        ffn: spec.ffn,
        matrices: spec.kind.matrices(),
        weight_bytes: spec.weight_bytes() as u64,
        points: points(&times.alone_ns),
        beside: points(&times.beside_ns),
    })
}

async fn measure_grid(
    args: &CalibrateArgs,
    grid: &[Point],
    group: &mut ProcessGroup,
    log_format: LogFormat,
) -> Result<Vec<PointRecord>, Failure> {
    let effort = Effort {
        seconds: args.seconds,
        fewest: FEWEST_STEPS,
        most: 200,
    };
    let progress = Progress::steps(grid.len() as u64);
    let mut points = Vec::with_capacity(grid.len());
    for point in grid {
        let run = measure(point, args.seed, effort, group, log_format).await?;
        progress.step(true);
        points.push(PointRecord {
            measured_us: figures_of(&run),
            predicted_us: std::collections::BTreeMap::new(),
            point: point.clone(),
        });
    }
    Ok(points)
}

/// Moves the costs until simulated points are as long as measured ones on the machine of
/// `environment`.
fn fitted(
    seed: u64,
    environment: Environment,
    domain: Domain,
    experts: Vec<ExpertTimes>,
    mut points: Vec<PointRecord>,
) -> Result<Profile, Failure> {
    let mut costs = Costs::loopback();
    let tables = experts.iter().filter_map(|times| table(times, &domain));
    costs.experts.tables = tables.collect();
    let predictors = points.iter().map(|one| {
        let Simulated {
            config,
            topology,
            rehearsal,
            load,
        } = simulated(&one.point, seed, environment.cores)?;
        let choices = one.point.tokens * one.point.shape.top_k;
        let steps = (FIT_CHOICES / choices).clamp(2, MOST_FIT_STEPS) as u64;
        let made = Predictor::new(config, topology, &rehearsal, &load, steps);
        made.map_err(Failure::run)
    });
    let predictors = predictors.collect::<Result<Vec<Predictor>, Failure>>()?;
    let samples: Vec<Sample> = points
        .iter()
        .map(|one| {
            let (shape, tokens) = (one.point.shape, one.point.tokens as f64);
            Sample {
                tokens,
                choices: tokens * shape.top_k as f64,
                gate_flops: 2.0 * tokens * (shape.hidden * shape.experts) as f64,
                combined_bytes: (one.point.exchange == "star")
                    .then_some((tokens * shape.top_k as f64 + tokens) * shape.hidden as f64 * 4.0),
                measured_us: one.measured_us.clone(),
            }
        })
        .collect();
    let mut links = LOOPBACK.to_vec();
    let all = |costs: &Costs, links: &[f64]| {
        let change = |topology: &mut Topology| set_loopback(topology, links);
        let figures = predictors.iter().map(|one| one.figures(costs, change));
        // A step that cannot be simulated counts as one of no time at all.
        figures.map(Result::unwrap_or_default).collect::<Vec<_>>()
    };
    fit(&mut costs, &mut links, &samples, all);
    for (one, predicted) in points.iter_mut().zip(all(&costs, &links)) {
        one.predicted_us = predicted;
    }
    costs.name = "calibrated".to_owned();
    costs.origin = format!(
        "fitted to {} launches on this machine by `expertmesh calibrate`",
        points.len()
    );
    costs.source = Source::Calibrated;
    let left = NOT_FITTED.map(|path| (path.to_owned(), Source::Preset));
    costs.sources = left.into_iter().collect();
    let errors = table_of(&points);
    let nothing = FigureErrors {
        points: 0,
        median: 0.0,
        p90: 0.0,
        max: 0.0,
        bias: 0.0,
    };
    Ok(Profile {
        schema: Profile::SCHEMA.to_owned(),
        environment,
        seed,
        domain,
        costs,
        experts,
        error: errors.figure(STEP).unwrap_or(nothing),
        points,
        loopback: [links[0], links[1]],
        verdict: None,
    })
}

fn table_of(points: &[PointRecord]) -> ErrorTable {
    let all: Vec<Comparison> = points
        .iter()
        .map(|one| Comparison {
            point: one.point.clone(),
            measured_us: vec![one.measured_us.clone()],
            predicted_us: one.predicted_us.clone(),
            ledger_difference: None,
        })
        .collect();
    ErrorTable::of(&all)
}

fn page(args: &CalibrateArgs, profile: &Profile) -> String {
    let table = crate::commands::validate::errors(&table_of(&profile.points));
    let (count, file) = (profile.points.len(), args.profile.display());
    format!(
        "calibrate: {count} points, errors of the fit to its own points\n\n{table}\n  domain            {}\n  \
         profile           {file}; next: expertmesh validate --profile {file} --holdout-seed 1\n",
        profile.domain
    )
}
