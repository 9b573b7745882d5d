//! `--sweep`: one simulation for each combination of values, and their ranking.

use std::fmt::Write as _;

use clap::{Args as _, FromArgMatches as _};
use expertmesh_report::human;
use expertmesh_telemetry::{Run, Source, Trace};

use crate::commands::simulate::check::check_sweep;
use crate::commands::simulate::trust::{Ranked, verdict};
use crate::commands::simulate::{SimulateArgs, of_simulation, plan, simulate};
use crate::error::Failure;
use crate::output::print;
use crate::report::ReportFile;

/// Combinations that one sweep may have.
const MOST: usize = 1000;

/// One combination and what it gave.
struct Outcome {
    name: String,
    run: Run,
    trace: Trace,
    mean_us: f64,
    /// Half the width of the band around it, as a share; `None` for costs without one.
    error: Option<f64>,
    source: Source,
}

/// Simulates every combination, prints the ranking, writes one report with all runs.
///
/// # Errors
/// [`Failure::Input`] for a sweep that is none, or a combination that the flags refuse.
pub(super) fn run(args: &SimulateArgs) -> Result<(), Failure> {
    check_sweep(args)?;
    let axes = args.sweep.iter().map(|text| axis(text));
    let axes = axes.collect::<Result<Vec<_>, _>>()?;
    check_exchange(args, &axes)?;
    let combinations = combinations(&axes)?;
    let report = args.report.as_deref().map(ReportFile::at).transpose()?;
    let pictures = args.pictures.check(combinations.len())?;
    let mut outcomes = Vec::with_capacity(combinations.len());
    for settings in &combinations {
        let name: Vec<String> = settings
            .iter()
            .map(|(flag, value)| format!("{flag} {value}"))
            .collect();
        let name = name.join(", ");
        let about = |failure: Failure| failure.about(&name);
        let one = with(args, settings).map_err(about)?;
        let mut planned = plan::plan(&one, pictures.steps).map_err(about)?;
        let (simulated, _) = simulate(&mut planned).map_err(about)?;
        let name = match &planned.choice {
            Some(choice) => format!("{name} ({})", choice.exchange()),
            None => name,
        };
        let mut run = planned.told(simulated.run);
        run.identity.model = format!("{}: {name}", run.identity.model);
        outcomes.push(Outcome {
            name,
            mean_us: run.latency_us.step.mean,
            error: planned.machines.trust.as_ref().map(|trust| trust.error),
            source: planned.simulation.source,
            run,
            trace: simulated.trace,
        });
    }
    print(&ranking(&outcomes))?;
    let (runs, traces): (Vec<Run>, Vec<Trace>) =
        outcomes.into_iter().map(|one| (one.run, one.trace)).unzip();
    let written = of_simulation(runs);
    pictures.write(&written, &traces)?;
    report.map_or(Ok(()), |file| file.write(&written))
}

/// A flag and its values.
fn axis(text: &str) -> Result<(String, Vec<String>), Failure> {
    let wrong = |held: &str| {
        Failure::input(format!(
            "--sweep is `{held}`, expected FLAG=A,B,…, such as workers=4,8,16"
        ))
    };
    let (flag, values) = text.split_once('=').ok_or_else(|| wrong(text))?;
    // Fields of a report are spelt with underscores.
    let flag = flag.trim_start_matches("--").replace('_', "-");
    let values: Vec<String> = values.split(',').map(|one| one.trim().to_owned()).collect();
    if flag.is_empty() || values.iter().any(String::is_empty) {
        return Err(wrong(text));
    }
    let mut distinct = values.clone();
    distinct.sort();
    distinct.dedup();
    if distinct.len() < values.len() {
        return Err(Failure::input(format!(
            "--sweep {flag} holds a value twice; name each once"
        )));
    }
    Ok((flag, values))
}

/// Who chooses an exchange does not compare them, and the other way round.
fn check_exchange(args: &SimulateArgs, axes: &[(String, Vec<String>)]) -> Result<(), Failure> {
    let Some((_, values)) = axes.iter().find(|(flag, _)| flag == "exchange") else {
        return Ok(());
    };
    if args.step.is_auto() {
        return Err(Failure::input(
            "--exchange is auto, which chooses one, and --sweep exchange compares them; drop one of \
             them",
        ));
    }
    match values.iter().any(|value| value == "auto") {
        true => Err(Failure::input(
            "--sweep exchange holds auto, expected names of exchanges; --exchange auto chooses one, \
             also in a sweep of other flags",
        )),
        false => Ok(()),
    }
}

/// Every combination of the axes' values, the last axis fastest.
fn combinations(axes: &[(String, Vec<String>)]) -> Result<Vec<Vec<(String, String)>>, Failure> {
    let mut all: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for (flag, values) in axes {
        if all[0].iter().any(|(other, _)| other == flag) {
            return Err(Failure::input(format!(
                "--sweep names {flag} twice; put all its values into one"
            )));
        }
        let longer = all.iter().flat_map(|settings| {
            values.iter().map(move |value| {
                let mut longer = settings.clone();
                longer.push((flag.clone(), value.clone()));
                longer
            })
        });
        all = longer.collect();
        if all.len() > MOST {
            return Err(Failure::input(format!(
                "--sweep asks for more than {MOST} simulations, expected fewer values"
            )));
        }
    }
    Ok(all)
}

/// The flags with some of them set anew, as if they stood on the command line.
fn with(args: &SimulateArgs, settings: &[(String, String)]) -> Result<SimulateArgs, Failure> {
    let refused = [
        "sweep",
        "report",
        "html",
        "perfetto",
        "lanes",
        "lane-steps",
        "event-log",
        "what-if",
        "print-costs",
    ];
    let mut argv = vec!["simulate".to_owned()];
    for (flag, value) in settings {
        if refused.contains(&flag.as_str()) {
            return Err(Failure::input(format!(
                "--sweep names {flag}, expected a flag that changes what is simulated"
            )));
        }
        argv.extend([format!("--{flag}"), value.clone()]);
    }
    let command = SimulateArgs::augment_args_for_update(clap::Command::new("simulate"));
    let matches = command.try_get_matches_from(argv)?;
    let mut one = args.clone();
    one.update_from_arg_matches(&matches)?;
    one.sweep = Vec::new();
    Ok(one)
}

/// The combinations, the shortest step first.
fn ranking(outcomes: &[Outcome]) -> String {
    let mut order: Vec<&Outcome> = outcomes.iter().collect();
    order.sort_by(|a, b| a.mean_us.total_cmp(&b.mean_us));
    let width = order.iter().map(|one| one.name.chars().count()).max();
    let width = width.unwrap_or(0);
    let mut text = format!(
        "sweep: {} simulations, the shortest mean step first\n\n  {:<width$}  {:>10}  {:>24}  {:>10}  {:>9}\n",
        outcomes.len(),
        "",
        "step",
        "band",
        "payload",
        "overflow"
    );
    for one in &order {
        let band = match one.error {
            None => human::NONE.to_owned(),
            Some(error) => format!(
                "{} to {}",
                human::duration(one.mean_us * (1.0 - error).max(0.0)),
                human::duration(one.mean_us * (1.0 + error))
            ),
        };
        let overflow = &one.run.overflow;
        let lost = overflow.dropped + overflow.rerouted + overflow.lost;
        let share = 100.0 * lost as f64 / overflow.assigned.max(1) as f64;
        let steps = one.run.load.steps.max(1);
        let _ = writeln!(
            text,
            "  {:<width$}  {:>10}  {band:>24}  {:>10}  {share:>7.2} %",
            one.name,
            human::duration(one.mean_us),
            human::bytes(one.run.communication.payload_bytes / steps)
        );
    }
    let ranked: Vec<Ranked<'_>> = order
        .iter()
        .map(|one| (one.name.as_str(), one.mean_us))
        .collect();
    // Of several profiles the worst: a ranking is as good as what it is made of.
    let errors: Option<Vec<f64>> = order.iter().map(|one| one.error).collect();
    let error = errors.and_then(|all| all.into_iter().reduce(f64::max));
    let _ = writeln!(text, "\n  {}", verdict(&ranked, error));
    let outside = (order.iter()).filter(|one| one.source == Source::Extrapolated);
    match outside.count() {
        0 => {}
        all => {
            let _ = writeln!(
                text,
                "  {all} of them extrapolated: nobody knows that the band holds for those"
            );
        }
    }
    text
}
