//! Whether choices are what a workload says they are.

use std::fmt;

use serde::Serialize;

use crate::workload::WorkloadError;

/// A chance of one in a million that a right workload misses a claim.
pub(super) const ALPHA: f64 = 1e-6;

/// One thing that a pattern promises, beside what the choices had.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Claim {
    /// What is claimed, in words.
    pub name: String,
    /// The promise.
    pub claimed: f64,
    /// What the choices had; `None` where no step that was seen could show it.
    pub measured: Option<f64>,
    /// How far the two may be apart; see [`SelfTest`].
    pub tolerance: f64,
    /// They are no farther apart, or nothing was measured.
    pub ok: bool,
}

/// The claims of a pattern against choices. Printed, it has a line for each claim.
///
/// A tolerance is either exact, where the pattern deals and does not draw, or what a right
/// workload misses once in a million times by Bernstein's inequality: a sum of independent terms
/// with variances that add up to v, each within b of its mean, is off by more than
/// `√(2vx) + bx/3` with a chance of at most `2·e^-x`. Shares of the choices of a token, of which
/// only the mean m and the highest value c are known, have a variance of at most `m(c-m)`
/// (Bhatia and Davis 2000). Many experts at once divide the chance among them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelfTest {
    /// The workload, as it prints.
    pub workload: String,
    /// Steps that were seen.
    pub steps: u64,
    /// What was claimed. Empty for a workload that claims nothing: normal rows, or a file.
    pub claims: Vec<Claim>,
}

// === impl Claim ===

impl Claim {
    pub(super) fn new(
        name: impl Into<String>,
        claimed: f64,
        measured: Option<f64>,
        tolerance: f64,
    ) -> Self {
        Self {
            name: name.into(),
            claimed,
            measured,
            tolerance,
            // Written so that a NaN is not fine.
            ok: measured.is_none_or(|measured| (measured - claimed).abs() <= tolerance),
        }
    }
}

/// `share of the hot set: claimed 0.5, measured 0.4961, within 0.0312: ok`
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            claimed,
            tolerance,
            ..
        } = self;
        write!(f, "{name}: claimed {}, ", Short(*claimed))?;
        match self.measured {
            Some(measured) => write!(f, "measured {}, ", Short(measured))?,
            None => return f.write_str("not in the steps that were seen"),
        }
        let verdict = if self.ok { "ok" } else { "not so" };
        write!(f, "within {}: {verdict}", Short(*tolerance))
    }
}

// === impl SelfTest ===

impl SelfTest {
    /// Fails where a claim does not hold.
    ///
    /// # Errors
    /// [`WorkloadError`] with the first such claim: what it says, what was measured, and how far
    /// it might have been off.
    pub fn verdict(&self) -> Result<(), WorkloadError> {
        let Some(claim) = self.claims.iter().find(|claim| !claim.ok) else {
            return Ok(());
        };
        let held = match claim.measured {
            Some(measured) => Short(measured).to_string(),
            None => "unknown".to_owned(),
        };
        let expected = format!("{} within {}", Short(claim.claimed), Short(claim.tolerance));
        let held = format!("{held} in {} steps", self.steps);
        Err(WorkloadError::new(
            &self.workload,
            &claim.name,
            held,
            expected,
        ))
    }
}

impl fmt::Display for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            workload, steps, ..
        } = self;
        if self.claims.is_empty() {
            return writeln!(f, "{workload}: claims nothing");
        }
        for claim in &self.claims {
            writeln!(f, "{workload}, {steps} steps: {claim}")?;
        }
        Ok(())
    }
}

/// A number with at most four decimals.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounded = (self.0 * 1e4).round() / 1e4;
        write!(f, "{rounded}")
    }
}

/// `x` of [`SelfTest`]'s inequality, for so many `events` that share the chance.
pub(super) fn exponent(events: f64) -> f64 {
    (2.0 * events / ALPHA).ln()
}

/// How far a sum of independent terms may be off: see [`SelfTest`].
pub(super) fn bernstein(variance: f64, reach: f64, events: f64) -> f64 {
    let x = exponent(events);
    (2.0 * variance * x).sqrt() + reach * x / 3.0
}

/// Highest variance of a term in `0..=most` of this mean.
pub(super) fn highest_variance(mean: f64, most: f64) -> f64 {
    (mean * (most - mean)).max(0.0)
}
