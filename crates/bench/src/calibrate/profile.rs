//! What a calibration leaves: costs, and how far off they are where they were fitted.

use std::collections::BTreeMap;
use std::path::Path;

use expertmesh_simulator::Costs;
use expertmesh_telemetry::Environment;
use serde::{Deserialize, Serialize};

use crate::calibrate::{Domain, Point};
use crate::validate::FigureErrors;

/// The schema that this version writes.
pub(crate) const SCHEMA: &str = "expertmesh.profile/1";

/// A calibrated machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The machine.
    pub environment: Environment,
    /// Seed of layers and batches.
    pub seed: u64,
    /// What the points are from: predictions beyond it are extrapolated.
    pub domain: Domain,
    /// What work takes on it.
    pub costs: Costs,
    /// Errors of `step` at the measured points, which the costs were fitted to.
    pub error: FigureErrors,
    /// The measured points.
    pub points: Vec<PointRecord>,
}

/// A measured point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointRecord {
    /// What was run.
    pub point: Point,
    /// Medians by figure, µs.
    pub measured_us: BTreeMap<String, f64>,
    /// What the costs make of it, µs.
    pub predicted_us: BTreeMap<String, f64>,
}

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct ProfileError {
    file: String,
    reason: String,
}

// === impl Profile ===

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// [`ProfileError`] naming the file, the line and what was expected.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let wrong = |reason: String| ProfileError {
            file: path.display().to_string(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let profile: Self = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("{error}; expected a profile of `calibrate`")))?;
        if profile.schema != SCHEMA {
            let held = &profile.schema;
            return Err(wrong(format!("schema is {held}, expected {SCHEMA}")));
        }
        let costs = profile.costs.validate();
        costs.map_err(|error| wrong(error.to_string()))?;
        Ok(profile)
    }

    /// The profile as text.
    ///
    /// # Errors
    /// [`ProfileError`] for a figure that JSON cannot hold.
    pub fn to_json(&self) -> Result<String, ProfileError> {
        serde_json::to_string_pretty(self).map_err(|error| ProfileError {
            file: "profile".to_owned(),
            reason: error.to_string(),
        })
    }
}

// === impl Domain ===

impl Domain {
    /// Why a configuration lies outside, if it does.
    pub fn outside(
        &self,
        workers: usize,
        tokens: usize,
        hidden: usize,
        ffn: usize,
    ) -> Option<String> {
        let range = |what: &str, held: usize, (low, high): (usize, usize)| {
            (!(low..=high).contains(&held))
                .then(|| format!("{what} is {held}, calibrated from {low} to {high}"))
        };
        let known =
            |shape: &crate::calibrate::LayerShape| (shape.hidden, shape.ffn) == (hidden, ffn);
        range("workers", workers, self.workers)
            .or_else(|| range("tokens", tokens, self.tokens))
            .or_else(|| {
                (!self.shapes.iter().any(known))
                    .then(|| format!("experts of {hidden} × {ffn} were not calibrated"))
            })
    }
}
