//! Which of several predicted exchanges is taken, and what is said about it.

use std::collections::BTreeMap;

use expertmesh_exchange::ExchangeKind;
use expertmesh_report::human;
use expertmesh_telemetry::{ExchangeChoice, Source};

use crate::commands::simulate::auto::{Candidate, Considered, Predicted};
use crate::commands::simulate::machines::Machines;
use crate::commands::simulate::trust::{Ranked, verdict};
use crate::error::Failure;
use crate::output::complain;

/// The exchange that was taken, and what was predicted of all.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(super) taken: Candidate,
    /// Mean step of each that could be predicted, µs, in the order in which ties are broken.
    pub(super) predicted: Vec<(ExchangeKind, f64)>,
    /// The others, with the reason.
    pub(super) passed_over: Vec<(ExchangeKind, String)>,
    /// Fewest steps that a mean was taken over.
    steps: u64,
    source: Source,
    costs: String,
    /// Share that the costs are off by at nine of ten points; `None` where nobody knows.
    error: Option<f64>,
}

/// The candidate with the least mean step, the first of them if several have it. A candidate with a
/// reason against it, or whose prediction fails, is passed over.
///
/// # Errors
/// The first failure, if no candidate is left.
pub(super) fn least(
    candidates: Vec<Considered>,
    mut predict: impl FnMut(&Candidate) -> Result<Predicted, Failure>,
) -> Result<Choice, Failure> {
    let mut best: Option<(Candidate, Predicted)> = None;
    let (mut predicted, mut passed_over) = (Vec::new(), Vec::new());
    let (mut failure, mut steps) = (None, u64::MAX);
    for (candidate, allowed) in candidates {
        let exchange = candidate.exchange;
        let outcome = allowed.map_err(Failure::Input);
        let one = match outcome.and_then(|()| predict(&candidate)) {
            Ok(one) => one,
            Err(reason) => {
                passed_over.push((exchange, reason.words()));
                failure.get_or_insert(reason);
                continue;
            }
        };
        predicted.push((exchange, one.mean_us));
        steps = steps.min(one.steps);
        if best.is_none_or(|(_, least)| one.mean_us < least.mean_us) {
            best = Some((candidate, one));
        }
    }
    match (best, failure) {
        (Some((taken, one)), _) => Ok(Choice {
            taken,
            predicted,
            passed_over,
            steps,
            source: one.source,
            costs: String::new(),
            error: None,
        }),
        (None, Some(failure)) => Err(failure.about("--exchange auto can predict no exchange")),
        (None, None) => Err(Failure::input("--exchange auto has no exchange to choose")),
    }
}

// === impl Choice ===

impl Choice {
    /// The same, with the machines that it was predicted on.
    pub(super) fn by(self, machines: &Machines) -> Self {
        let cores = match machines.cores {
            None => String::new(),
            Some(1) => ", 1 core".to_owned(),
            Some(cores) => format!(", {cores} cores"),
        };
        Self {
            costs: format!(
                "costs of {} ({}), links of {}{cores}",
                machines.costs.name, self.source, machines.topology.name
            ),
            error: machines.trust.as_ref().map(|trust| trust.error),
            ..self
        }
    }

    /// What was taken.
    pub(crate) fn exchange(&self) -> ExchangeKind {
        self.taken.exchange
    }

    /// Says on stderr what was taken and why.
    pub(crate) fn tell(&self) {
        self.lines().iter().for_each(|line| complain(line));
    }

    /// What was predicted, and what that is worth.
    pub(super) fn lines(&self) -> [String; 2] {
        let steps = self
            .predicted
            .iter()
            .map(|(exchange, mean_us)| format!("{exchange} {}", human::duration(*mean_us)));
        let steps: Vec<String> = steps.collect();
        let over = self.passed_over.iter();
        let over: String = over
            .map(|(exchange, reason)| format!("; {exchange} passed over: {reason}"))
            .collect();
        let counted = match self.steps {
            1 => "1 step".to_owned(),
            steps => format!("{steps} steps"),
        };
        [
            format!(
                "exchange auto: {}; predicted from {counted}: {} ({}){over}",
                self.taken.exchange,
                steps.join(", "),
                self.costs
            ),
            format!("exchange auto: {}", self.verdict()),
        ]
    }

    /// The same for a report.
    pub(crate) fn for_report(&self) -> ExchangeChoice {
        let over = self.passed_over.iter();
        ExchangeChoice {
            costs: self.costs.clone(),
            predicted_us: (self.predicted.iter())
                .map(|(exchange, mean_us)| (exchange.to_string(), *mean_us))
                .collect(),
            passed_over: over
                .map(|(exchange, reason)| (exchange.to_string(), reason.clone()))
                .collect::<BTreeMap<String, String>>(),
            verdict: self.verdict(),
        }
    }

    fn verdict(&self) -> String {
        if self.predicted.len() < 2 {
            return "no other exchange is left to compare it with".to_owned();
        }
        let names = self.predicted.iter();
        let names: Vec<(String, f64)> = names.map(|(one, us)| (one.to_string(), *us)).collect();
        let mut order: Vec<Ranked<'_>> =
            names.iter().map(|(one, us)| (one.as_str(), *us)).collect();
        order.sort_by(|a, b| a.1.total_cmp(&b.1));
        verdict(&order, self.error)
    }
}
