//! `validate --profile`: launches that calibration did not see, beside their simulation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use expertmesh_bench::calibrate::{Domain, Point, Profile, Verdict, figures_of, ledger_difference};
use expertmesh_bench::validate::{Comparison, ErrorTable, Gate, Gates, STEP};
use expertmesh_report::human;
use expertmesh_telemetry::Run;

use crate::cluster::ProcessGroup;
use crate::commands::measure::{Effort, measure, predict, steps};
use crate::commands::validate::{ValidateArgs, errors};
use crate::error::Failure;
use crate::logging::LogFormat;
use crate::output::print;
use crate::progress::Progress;
use crate::signals::{Signals, interrupted};

const POINTS: usize = 24;
const RESTARTS: usize = 5;
const SECONDS: f64 = 0.4;
/// What is emulated at about half of the points.
const LINKS: &str = "lab";

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
    let (count, restarts) = (
        args.points.unwrap_or(POINTS),
        args.restarts.unwrap_or(RESTARTS),
    );
    if count == 0 || restarts == 0 {
        return Err(Failure::input(format!(
            "--points is {count} and --restarts is {restarts}, expected at least 1 of each"
        )));
    }
    let seed = args.holdout_seed.unwrap_or(0);
    let seen: Vec<Point> = profile.points.iter().map(|one| one.point.clone()).collect();
    let points = domain(args, &profile).held_out(&seen, seed, count);
    let effort = Effort {
        seconds: args.seconds.unwrap_or(SECONDS),
        fewest: 10,
        most: 100,
    };
    let mut signals = Signals::take()?;
    let mut group = ProcessGroup::new();
    let outcome = tokio::select! {
        biased;
        signal = signals.next() => Err(interrupted(signal)),
        outcome = measured(&points, &profile, effort, restarts, &mut group, log_format) => outcome,
    };
    group.stop().await;
    let runs = outcome?;
    let compared = points
        .into_iter()
        .zip(runs)
        .map(|(point, runs)| compare(point, &runs, &profile, effort));
    let compared = compared.collect::<Result<Vec<Comparison>, Failure>>()?;
    let table = ErrorTable::of(&compared);
    let gates = Gates::of_this_version().map_err(Failure::run)?;
    let judged = gates.judge(&table);
    let differing = compared.iter().find(|one| one.ledger_difference.is_some());
    if args.json {
        let text = serde_json::to_string_pretty(&(&compared, &table, &judged));
        print(&format!("{}\n", text.map_err(Failure::run)?))?;
    } else {
        print(&page(&compared, &table, &judged, &gates))?;
    }
    let missed = judged.iter().find(|gate| !gate.holds());
    if let Some(error) = table.figure(STEP) {
        profile.verdict = Some(Verdict {
            holdout_seed: seed,
            error,
            passed: missed.is_none() && differing.is_none(),
        });
        std::fs::write(file, profile.to_json()?)
            .map_err(|error| Failure::run(format!("cannot write {}: {error}", file.display())))?;
    }
    if let Some((one, difference)) =
        differing.and_then(|one| Some((one, one.ledger_difference.as_ref()?)))
    {
        return Err(Failure::Gate(format!(
            "{}: ledgers differ in {difference}",
            one.point
        )));
    }
    match missed {
        None => Ok(()),
        Some(gate) => Err(Failure::Gate(format!(
            "{} is {}, above {:.0} %",
            gate.name,
            gate.held.map_or("unknown".to_owned(), |held| format!(
                "{:.1} %",
                100.0 * held
            )),
            100.0 * gate.bound
        ))),
    }
}

/// What points are drawn from: the profile's domain, and links besides.
fn domain(args: &ValidateArgs, profile: &Profile) -> Domain {
    let mut domain = profile.domain.clone();
    match args.links.as_deref() {
        Some("none") => {}
        links => domain.links.push(Some(links.unwrap_or(LINKS).to_owned())),
    }
    domain
}

/// Every point once, then every point again: what changes with time changes for all.
async fn measured(
    points: &[Point],
    profile: &Profile,
    effort: Effort,
    restarts: usize,
    group: &mut ProcessGroup,
    log_format: LogFormat,
) -> Result<Vec<Vec<Run>>, Failure> {
    let progress = Progress::steps((points.len() * restarts) as u64);
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); points.len()];
    for _ in 0..restarts {
        for (point, runs) in points.iter().zip(&mut runs) {
            let about = |failure: Failure| failure.about(&point.to_string());
            let run = measure(point, profile.seed, effort, group, log_format).await;
            runs.push(run.map_err(about)?);
            progress.step(true);
        }
    }
    Ok(runs)
}

fn compare(
    point: Point,
    runs: &[Run],
    profile: &Profile,
    effort: Effort,
) -> Result<Comparison, Failure> {
    let simulated = predict(&point, profile.seed, steps(&point, effort), profile)?;
    let difference = runs
        .iter()
        .find_map(|run| ledger_difference(run, &simulated));
    Ok(Comparison {
        measured_us: runs.iter().map(figures_of).collect(),
        predicted_us: figures_of(&simulated),
        ledger_difference: difference,
        point,
    })
}

fn page(compared: &[Comparison], table: &ErrorTable, judged: &[Gate], gates: &Gates) -> String {
    let mut text = format!(
        "validate: {} points that calibration did not see, medians of latency_us.step\n\n",
        compared.len()
    );
    let names: Vec<String> = compared.iter().map(|one| one.point.to_string()).collect();
    let width = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0);
    let _ = writeln!(
        text,
        "  {:<width$}  {:>10}  {:>7}  {:>10}  {:>7}  ledger",
        "", "measured", "A/A", "simulated", "error"
    );
    for (name, one) in names.iter().zip(compared) {
        let share = |share: Option<f64>| {
            share.map_or(human::NONE.to_owned(), |share| {
                format!("{:.1} %", 100.0 * share)
            })
        };
        let error = one.error(STEP).map_or(human::NONE.to_owned(), |error| {
            format!("{:+.1} %", 100.0 * error)
        });
        let predicted: &BTreeMap<String, f64> = &one.predicted_us;
        let _ = writeln!(
            text,
            "  {name:<width$}  {:>10}  {:>7}  {:>10}  {error:>7}  {}",
            human::maybe_duration(one.median_us(STEP)),
            share(one.spread(STEP)),
            human::maybe_duration(predicted.get(STEP).copied()),
            one.ledger_difference.as_deref().unwrap_or("equal")
        );
    }
    let noisy = compared.iter().zip(&names);
    let noisy: Vec<&str> = noisy
        .filter(|(one, _)| one.spread(STEP).is_some_and(|spread| spread > gates.spread))
        .map(|(_, name)| name.as_str())
        .collect();
    if !noisy.is_empty() {
        let _ = writeln!(
            text,
            "\n  {} points differ from themselves by more than {:.0} % (A/A) and still count:",
            noisy.len(),
            100.0 * gates.spread
        );
        for name in noisy {
            let _ = writeln!(text, "    {name}");
        }
    }
    let _ = write!(text, "\n{}\n", errors(table));
    for gate in judged {
        let held = gate.held.map_or(human::NONE.to_owned(), |held| {
            format!("{:.1} %", 100.0 * held)
        });
        let verdict = if gate.holds() { "met" } else { "MISSED" };
        let bound = 100.0 * gate.bound;
        let _ = writeln!(
            text,
            "  {:<34}  {held:>7}, at most {bound:.0} %: {verdict}",
            gate.name
        );
    }
    text
}
