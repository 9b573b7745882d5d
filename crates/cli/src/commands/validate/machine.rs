//! `validate --profile`: launches that calibration did not see, beside their simulation.

use std::path::Path;

use expertmesh_bench::calibrate::{Domain, Point, Profile, figures_of, ledger_difference};
use expertmesh_bench::validate::{Comparison, Gates, Judged, verdict};
use expertmesh_telemetry::Run;
use expertmesh_topology::{Fabric, Topology};

use crate::cluster::ProcessGroup;
use crate::commands::calibrate::{FEWEST_STEPS, check_seconds};
use crate::commands::measure::{Effort, measure, predict, steps};
use crate::commands::validate::{ValidateArgs, tell};
use crate::error::Failure;
use crate::logging::LogFormat;
use crate::output::{print, write};
use crate::progress::Progress;
use crate::signals::{Signals, interrupted};

const POINTS: usize = 24;
const RESTARTS: usize = 5;
/// Points of a seed, and launches of a point.
const MOST: usize = 10_000;
const SECONDS: f64 = 0.4;
/// What is emulated at about half of the points.
const LINKS: &str = "lab";
/// Launches of a point until its links are as asked for: on a machine that others use, too, one of
/// hundreds of probes may fail.
const TRIES: usize = 10;

/// What is launched, seed by seed.
struct Plan {
    seeds: Vec<(u64, Vec<Point>)>,
    /// Points of each seed that were asked for.
    count: usize,
    restarts: usize,
    effort: Effort,
}

/// Launches, simulates, compares; writes the verdict into the profile.
///
/// # Errors
/// [`Failure::Gate`] if a gate is missed or a ledger differs.
pub(super) async fn run(
    args: &ValidateArgs,
    file: &Path,
    log_format: LogFormat,
) -> Result<(), Failure> {
    let mut profile = Profile::read(file)?;
    let plan = Plan::of(args, &profile)?;
    let gates = Gates::of_this_version().map_err(Failure::run)?;
    let mut signals = Signals::take()?;
    let mut group = ProcessGroup::new();
    let outcome = tokio::select! {
        biased;
        signal = signals.next() => Err(interrupted(signal)),
        outcome = plan.judged(args, &profile, &gates, &mut group, log_format) => outcome,
    };
    group.stop().await;
    let judged = outcome?;
    profile.verdict = verdict(&judged).map(|one| one.after(profile.verdict.as_ref()));
    write(file, profile.to_json()?)?;
    match args.json {
        true => {
            let text = serde_json::to_string_pretty(&serde_json::json!({
                "seeds": judged,
                "verdict": profile.verdict,
            }));
            print(&format!("{}\n", text.map_err(Failure::run)?))?;
        }
        false => print(&tell::verdict(&judged, profile.verdict.as_ref(), file))?,
    }
    judged.iter().try_for_each(outcome_of)
}

/// Whether a seed passed.
fn outcome_of(judged: &Judged) -> Result<(), Failure> {
    let seed = judged.holdout_seed;
    if let Some((one, difference)) = judged.ledger_difference() {
        return Err(Failure::Gate(format!(
            "{}: ledgers differ in {difference} (holdout seed {seed})",
            one.point
        )));
    }
    let Some(gate) = judged.missed() else {
        return Ok(());
    };
    let held = gate.held.map_or("unknown".to_owned(), tell::percent);
    Err(Failure::Gate(format!(
        "{} is {held}, above {:.0} % (holdout seed {seed})",
        gate.name,
        100.0 * gate.bound
    )))
}

// === impl Plan ===

impl Plan {
    /// Draws the points.
    ///
    /// # Errors
    /// [`Failure::Input`] for flags that ask for nothing, links that no such cluster has, and a
    /// domain without any point that calibration did not measure.
    fn of(args: &ValidateArgs, profile: &Profile) -> Result<Self, Failure> {
        let (count, restarts) = (
            args.points.unwrap_or(POINTS),
            args.restarts.unwrap_or(RESTARTS),
        );
        for (flag, held) in [("--points", count), ("--restarts", restarts)] {
            if !(1..=MOST).contains(&held) {
                let said = format!("{flag} is {held}, expected 1 to {MOST}");
                return Err(Failure::input(said));
            }
        }
        let seconds = args.seconds.unwrap_or(SECONDS);
        check_seconds(seconds)?;
        let domain = domain(args, profile)?;
        let measured = profile.points.iter().map(|one| one.point.clone());
        let seen: Vec<Point> = measured.collect();
        let mut seeds: Vec<(u64, Vec<Point>)> = Vec::new();
        for seed in &args.holdout_seed {
            if seeds.iter().all(|(known, _)| known != seed) {
                seeds.push((*seed, domain.held_out(&seen, *seed, count)));
            }
        }
        if seeds.iter().any(|(_, points)| points.is_empty()) {
            return Err(Failure::input(format!(
                "the profile's domain, {domain}, has no point that calibration did not measure; \
                 calibrate a wider one, or with fewer --points"
            )));
        }
        Ok(Self {
            seeds,
            count,
            restarts,
            effort: Effort {
                seconds,
                fewest: FEWEST_STEPS,
                most: 100,
            },
        })
    }

    /// Measures, compares and tells seed by seed.
    async fn judged(
        &self,
        args: &ValidateArgs,
        profile: &Profile,
        gates: &Gates,
        group: &mut ProcessGroup,
        log_format: LogFormat,
    ) -> Result<Vec<Judged>, Failure> {
        let launches = self.seeds.iter().map(|(_, points)| points.len());
        let progress = Progress::steps((launches.sum::<usize>() * self.restarts) as u64);
        let mut all = Vec::new();
        for (seed, points) in &self.seeds {
            let runs = self.measured(points, profile, &progress, group, log_format);
            let compared = points.iter().zip(runs.await?);
            let compared = compared.map(|(point, runs)| self.compare(point, &runs, profile));
            let compared = compared.collect::<Result<Vec<Comparison>, Failure>>()?;
            let judged = Judged::of(*seed, compared, gates);
            if !args.json {
                print(&tell::page(&judged, self.count, gates))?;
            }
            all.push(judged);
        }
        Ok(all)
    }

    /// Every point once, then every point again: what changes with time changes for all.
    async fn measured(
        &self,
        points: &[Point],
        profile: &Profile,
        progress: &Progress,
        group: &mut ProcessGroup,
        log_format: LogFormat,
    ) -> Result<Vec<Vec<Run>>, Failure> {
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); points.len()];
        for _ in 0..self.restarts {
            for (point, runs) in points.iter().zip(&mut runs) {
                runs.push(self.launched(point, profile, group, log_format).await?);
                progress.step(true);
            }
        }
        Ok(runs)
    }

    /// One launch of `point`; again if its links were not as asked for, which nothing was measured
    /// over.
    async fn launched(
        &self,
        point: &Point,
        profile: &Profile,
        group: &mut ProcessGroup,
        log_format: LogFormat,
    ) -> Result<Run, Failure> {
        let mut tries = 1;
        loop {
            match measure(point, profile.seed, self.effort, group, log_format).await {
                Err(Failure::Gate(reason)) if tries < TRIES => {
                    tracing::warn!(%point, reason, tries, "launching again");
                    group.stop().await;
                    tries += 1;
                }
                other => return other.map_err(|failure| failure.about(&point.to_string())),
            }
        }
    }

    fn compare(
        &self,
        point: &Point,
        runs: &[Run],
        profile: &Profile,
    ) -> Result<Comparison, Failure> {
        let simulated = predict(point, profile.seed, steps(point, self.effort), profile)?;
        let difference = runs
            .iter()
            .find_map(|run| ledger_difference(run, &simulated));
        Ok(Comparison {
            measured_us: runs.iter().map(figures_of).collect(),
            predicted_us: figures_of(&simulated),
            ledger_difference: difference,
            point: point.clone(),
        })
    }
}

/// What points are drawn from: the profile's domain, and links besides.
fn domain(args: &ValidateArgs, profile: &Profile) -> Result<Domain, Failure> {
    let mut domain = profile.domain.clone();
    let links = args.links.as_deref().unwrap_or(LINKS);
    if links != "none" {
        // Better now than after minutes of launches.
        let topology = Topology::read(links)?;
        for workers in [domain.workers.0, domain.workers.1] {
            Fabric::new(&topology, workers)?;
        }
        domain.links.push(Some(links.to_owned()));
    }
    Ok(domain)
}
