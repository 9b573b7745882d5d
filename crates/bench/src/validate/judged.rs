//! What the points of one seed show, and what those of several do.

use serde::{Deserialize, Serialize};

use crate::calibrate::Verdict;
use crate::validate::{Comparison, ErrorTable, Gate, Gates, STEP};

/// The held-out points of one seed with their errors and gates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Seed that the points were drawn by.
    pub holdout_seed: u64,
    /// The points.
    pub points: Vec<Comparison>,
    /// Their errors, by figure.
    pub errors: ErrorTable,
    /// What the gates make of them.
    pub gates: Vec<Gate>,
}

// === impl Judged ===

impl Judged {
    /// Sums up and judges `points`.
    pub fn of(holdout_seed: u64, points: Vec<Comparison>, gates: &Gates) -> Self {
        let errors = ErrorTable::of(&points);
        Self {
            holdout_seed,
            gates: gates.judge(&errors),
            points,
            errors,
        }
    }

    /// The first point whose ledgers differ, and in what.
    pub fn ledger_difference(&self) -> Option<(&Comparison, &str)> {
        let differs = |one: &'_ &Comparison| one.ledger_difference.is_some();
        let one = self.points.iter().find(differs)?;
        Some((one, one.ledger_difference.as_deref()?))
    }

    /// The first gate that was missed.
    pub fn missed(&self) -> Option<&Gate> {
        self.gates.iter().find(|gate| !gate.holds())
    }

    /// Whether every gate held and every ledger was equal.
    pub fn passed(&self) -> bool {
        self.missed().is_none() && self.ledger_difference().is_none()
    }
}

/// What the points of all seeds say together; `None` where none of them has a step to compare.
pub fn verdict(seeds: &[Judged]) -> Option<Verdict> {
    let points = seeds.iter().flat_map(|one| one.points.iter().cloned());
    let all = ErrorTable::of(&points.collect::<Vec<_>>());
    let failed = seeds.iter().filter(|one| !one.passed());
    Some(Verdict {
        holdout_seeds: seeds.iter().map(|one| one.holdout_seed).collect(),
        error: all.figure(STEP)?,
        passed: seeds.iter().all(Judged::passed),
        failed_seeds: failed.map(|one| one.holdout_seed).collect(),
    })
}
