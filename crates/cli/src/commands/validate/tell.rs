//! What a validation says.

use std::fmt::Write as _;
use std::path::Path;

use expertmesh_bench::calibrate::Verdict;
use expertmesh_bench::validate::{Comparison, ErrorTable, Gate, Gates, Judged, STEP};
use expertmesh_report::human;

/// Points, errors and gates of one seed; `asked` points were asked for.
pub(super) fn page(judged: &Judged, asked: usize, gates: &Gates) -> String {
    let (count, seed) = (judged.points.len(), judged.holdout_seed);
    let mut text = format!(
        "validate: {count} points that calibration did not see, holdout seed {seed}, medians of \
         latency_us.step\n"
    );
    if count < asked {
        let _ = writeln!(
            text,
            "  {asked} were asked for; the draws found no others in the domain"
        );
    }
    let _ = write!(text, "\n{}", points(&judged.points));
    text.push_str(&noisy(&judged.points, gates));
    let _ = write!(text, "\n{}\n", errors(&judged.errors));
    for gate in &judged.gates {
        text.push_str(&line(gate));
    }
    text.push('\n');
    text
}

/// What is written into the profile, and, of several seeds, the errors over all of them.
pub(super) fn verdict(seeds: &[Judged], verdict: Option<&Verdict>, file: &Path) -> String {
    let mut text = String::new();
    if seeds.len() > 1 {
        let points = seeds.iter().flat_map(|one| one.points.iter().cloned());
        let all = ErrorTable::of(&points.collect::<Vec<_>>());
        let _ = writeln!(
            text,
            "all {} seeds together\n\n{}",
            seeds.len(),
            errors(&all)
        );
    }
    let said = match verdict {
        Some(one) => match one.lock() {
            None => {
                let within = percent(one.error.p90);
                format!("passed: 90 % of the points within {within}; `simulate` says `calibrated`")
            }
            Some(lock) => format!("{lock}; `simulate` says `extrapolated` of every figure"),
        },
        None => "none: no point has a step to compare".to_owned(),
    };
    let _ = writeln!(text, "  verdict in {}: {said}", file.display());
    text
}

/// Errors by figure of `latency_us`, as lines.
pub(crate) fn errors(table: &ErrorTable) -> String {
    let mut text = format!(
        "  {:<16}  {:>6}  {:>8}  {:>8}  {:>8}  {:>8}\n",
        "error of", "points", "median", "p90", "max", "bias"
    );
    for (figure, errors) in &table.figures {
        let _ = writeln!(
            text,
            "  {figure:<16}  {:>6}  {:>8}  {:>8}  {:>8}  {:>+6.1} %",
            errors.points,
            percent(errors.median),
            percent(errors.p90),
            percent(errors.max),
            100.0 * errors.bias
        );
    }
    text.push_str(
        "  as shares of what was measured, at points where the figure is 1 % of the step or more,
  measured or predicted\n",
    );
    text
}

/// "12.3 %".
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A line for every point.
fn points(points: &[Comparison]) -> String {
    let names: Vec<String> = points.iter().map(|one| one.point.to_string()).collect();
    let widths = names.iter().map(|name| name.chars().count());
    let width = widths.max().unwrap_or(0);
    let mut text = format!(
        "  {:<width$}  {:>10}  {:>7}  {:>10}  {:>7}  ledger\n",
        "", "measured", "A/A", "simulated", "error"
    );
    let none = || human::NONE.to_owned();
    for (name, one) in names.iter().zip(points) {
        let error = one.error(STEP);
        let _ = writeln!(
            text,
            "  {name:<width$}  {:>10}  {:>7}  {:>10}  {:>7}  {}",
            human::maybe_duration(one.median_us(STEP)),
            one.spread(STEP).map_or_else(none, percent),
            human::maybe_duration(one.predicted_us.get(STEP).copied()),
            error.map_or_else(none, |error| format!("{:+.1} %", 100.0 * error)),
            one.ledger_difference.as_deref().unwrap_or("equal")
        );
    }
    text
}

/// The points that say little, because the machine disagrees with itself about them.
fn noisy(points: &[Comparison], gates: &Gates) -> String {
    let spread = |one: &Comparison| one.spread(STEP).filter(|spread| *spread > gates.spread);
    let noisy = points
        .iter()
        .filter_map(|one| Some((one.point.to_string(), spread(one)?)));
    let noisy: Vec<(String, f64)> = noisy.collect();
    let differ = match noisy.len() {
        0 => return String::new(),
        1 => ["1 point differs from itself", "counts"].map(str::to_owned),
        many => [
            format!("{many} points differ from themselves"),
            "count".to_owned(),
        ],
    };
    let bound = 100.0 * gates.spread;
    let [differ, count] = differ;
    let mut text = format!("\n  {differ} by more than {bound:.0} % (A/A) and still {count}:\n");
    for (name, spread) in noisy {
        let _ = writeln!(text, "    {name}: {}", percent(spread));
    }
    text
}

/// A gate and what became of it.
fn line(gate: &Gate) -> String {
    let held = gate.held.map_or(human::NONE.to_owned(), percent);
    let verdict = if gate.holds() { "met" } else { "MISSED" };
    let bound = 100.0 * gate.bound;
    format!(
        "  {:<34}  {held:>7}, at most {bound:.0} %: {verdict}\n",
        gate.name
    )
}
