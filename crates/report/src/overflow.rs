//! Overflow policies side by side: a table of two halves, and a picture.

mod marks;
mod picture;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use expertmesh_telemetry::Run;

use crate::human;
use crate::table::{lines, numbers};

/// Runs of the same batches under different policies.
#[derive(Debug, Clone)]
pub struct OverflowPage<'a> {
    /// What was run, in a line.
    pub title: String,
    /// What a reader should know besides, a line each.
    pub notes: Vec<String>,
    /// The first is dropless, which the others are held against.
    pub rows: Vec<OverflowRow<'a>>,
}

/// One policy.
#[derive(Debug, Clone, Copy)]
pub struct OverflowRow<'a> {
    /// Its counts, its bytes, and its output error by the names `output_error` and
    /// `output_error_worst_token` among its losses.
    pub run: &'a Run,
    /// Median of a step, µs.
    pub step_p50_us: Option<f64>,
    /// Quartiles of its steps' ratios to those of dropless: lower, median, upper.
    pub ratios: Option<[f64; 3]>,
}

// === impl OverflowRow ===

impl OverflowRow<'_> {
    fn policy(&self) -> String {
        let policy = self.run.overflow.policy.as_deref();
        human::fit(policy.unwrap_or(human::NONE), 30)
    }

    fn factor(&self) -> String {
        let factor = self.run.overflow.capacity_factor;
        factor.map_or_else(|| human::NONE.to_owned(), |factor| factor.to_string())
    }

    /// Policy and factor.
    fn label(&self) -> String {
        match self.run.overflow.capacity_factor {
            None => self.policy(),
            Some(factor) => format!("{} ×{factor}", self.policy()),
        }
    }

    fn error(&self, name: &str) -> Option<f64> {
        self.run.losses.get(name).copied()
    }

    fn output_error(&self) -> Option<f64> {
        self.error("output_error")
    }

    fn choices(&self) -> Vec<String> {
        let overflow = &self.run.overflow;
        let share = |part| human::share_of(part, overflow.assigned);
        let lost = overflow.lost_gate_weight;
        let weight =
            (overflow.assigned_gate_weight > 0.0).then(|| lost / overflow.assigned_gate_weight);
        let events = &overflow.events;
        vec![
            self.policy(),
            self.factor(),
            share(overflow.dropped + overflow.lost),
            human::maybe_share(weight),
            share(overflow.rerouted),
            share(events.spilled),
            events.waves.to_string(),
            human::count_short(events.replays),
            human::count_short(events.tokens_without_expert),
        ]
    }

    fn costs(&self, dropless: &OverflowRow<'_>) -> Vec<String> {
        let payload = |run: &Run| run.communication.payload_bytes as f64;
        let before = payload(dropless.run);
        let extra = (before > 0.0).then(|| payload(self.run) / before - 1.0);
        let ratio = |at: usize| self.ratios.map(|ratios| human::ratio(ratios[at]));
        let none = || human::NONE.to_owned();
        let spread = match (ratio(0), ratio(2)) {
            (Some(low), Some(high)) => format!("{}–{high}", low.trim_end_matches('×')),
            _ => none(),
        };
        let same = self.run.digest.is_some() && self.run.digest == dropless.run.digest;
        vec![
            self.policy(),
            self.factor(),
            human::maybe_share(extra),
            human::maybe_duration(self.step_p50_us),
            ratio(1).unwrap_or_else(none),
            spread,
            human::maybe_share(self.output_error()),
            human::maybe_share(self.error("output_error_worst_token")),
            if same { "same" } else { "other" }.to_owned(),
        ]
    }
}

// === impl OverflowPage ===

impl OverflowPage<'_> {
    /// The table as lines of at most [`WIDTH`](crate::WIDTH) columns, notes apart: what became of
    /// choices, then what it cost and what the outputs miss.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n", self.title);
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        let Some(dropless) = self.rows.first() else {
            return text;
        };
        let assigned = human::count(dropless.run.overflow.assigned);
        let _ = writeln!(text, "\nChoices (of the same {assigned} under each policy)");
        let header = [
            "policy", "factor", "dropped", "weight", "rerouted", "spilled", "waves", "replays",
            "bare",
        ];
        let rows = self.rows.iter().map(OverflowRow::choices).collect();
        push(&mut text, &lines(&header, numbers, rows));
        text.push_str(
            "  weight: gate weight of dropped choices; bare: tokens for which nothing was computed\n",
        );
        text.push_str("\nCost and outputs (beside dropless, in the same rounds)\n");
        let header = [
            "policy",
            "factor",
            "bytes",
            "step p50",
            "ratio",
            "quartiles",
            "error",
            "worst",
            "bits",
        ];
        let rows = self.rows.iter().map(|row| row.costs(dropless)).collect();
        push(&mut text, &lines(&header, numbers, rows));
        text.push_str(
            "  quartiles: those of dropless show how steady the machine is\n  \
             error: ‖y − dropless‖ / ‖dropless‖ over all outputs; worst: of one token\n",
        );
        text
    }

    /// A picture as self-contained SVG: output error against step latency on the left, what became
    /// of the choices of each policy on the right.
    pub fn svg(&self) -> String {
        picture::draw(self)
    }
}

fn push(text: &mut String, lines: &[String]) {
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
}
