//! How large errors may be: `gates.toml`, part of the repository and of the binary.

use serde::{Deserialize, Serialize};

use crate::validate::{ErrorTable, STEP};

/// The bounds under which predictions may be shown without a warning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// Largest median error of `latency_us.step`, a share.
    pub step_median: f64,
    /// Largest 90th percentile of it.
    pub step_p90: f64,
    /// Noise of a point above which it is listed.
    pub spread: f64,
}

/// One bound and what a run made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// What is bounded.
    pub name: String,
    /// The bound, a share.
    pub bound: f64,
    /// What the run has, a share; `None` without any point.
    pub held: Option<f64>,
}

/// Gates that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("gates.toml: {0}")]
pub struct GatesError(#[from] toml::de::Error);

/// The file of this version.
const FILE: &str = include_str!("gates.toml");

// === impl Gates ===

impl Gates {
    /// The gates of this version.
    ///
    /// # Errors
    /// [`GatesError`] if the file in the binary is no such table, which a test rules out.
    pub fn of_this_version() -> Result<Self, GatesError> {
        Ok(toml::from_str(FILE)?)
    }

    /// Every gate beside what `table` holds.
    pub fn judge(&self, table: &ErrorTable) -> Vec<Gate> {
        let step = table.figure(STEP);
        let gate = |name: &str, bound, held| Gate {
            name: name.to_owned(),
            bound,
            held,
        };
        vec![
            gate(
                "median error of latency_us.step",
                self.step_median,
                step.map(|step| step.median),
            ),
            gate(
                "p90 error of latency_us.step",
                self.step_p90,
                step.map(|step| step.p90),
            ),
        ]
    }
}

// === impl Gate ===

impl Gate {
    /// Whether it holds; without a point nothing was shown.
    pub fn holds(&self) -> bool {
        self.held.is_some_and(|held| held <= self.bound)
    }
}
