//! Predictions beside measurements that calibration never saw.
//!
//! A [`Comparison`] is one held-out configuration: medians of several restarts of the real cluster,
//! and what the simulation says. An [`ErrorTable`] sums them up by figure; [`Gates`] say how large
//! its errors may be, stand in the repository, and are not moved by a run that misses them. A
//! [`Judged`] is all of that for the points of one seed.
//!
//! Errors are signed shares of the measured value. The noise of the machine stands beside each
//! point: half the range of its restarts' medians, as a share of their median (A/A). A point whose
//! noise is above [`Gates::spread`] says little about a prediction; it is listed and still counts.

mod gates;
mod judged;
#[cfg(test)]
mod tests;

pub use gates::{Gate, Gates, GatesError};
pub use judged::{Judged, verdict};

use std::collections::BTreeMap;

use expertmesh_telemetry::Phase;
use serde::{Deserialize, Serialize};

use crate::calibrate::Point;

/// One configuration, measured and predicted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What was run.
    pub point: Point,
    /// Median of each restart by figure (`step`, `exchange`, `phases.send`, …), µs.
    pub measured_us: Vec<BTreeMap<String, f64>>,
    /// Median of the simulation by figure, µs.
    pub predicted_us: BTreeMap<String, f64>,
    /// What differs between the two ledgers; `None` where they are equal, byte for byte.
    pub ledger_difference: Option<String>,
}

/// Errors of one figure over all points, as shares of the measured value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FigureErrors {
    /// Points that have the figure.
    pub points: usize,
    /// Median of the errors' sizes.
    pub median: f64,
    /// Their 90th percentile, nearest rank.
    pub p90: f64,
    /// Their largest.
    pub max: f64,
    /// Median of the signed errors: above 0 where predictions are too long.
    pub bias: f64,
}

/// Errors by figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorTable {
    /// The step, its exchange, dispatch and combine, then the phases in the order in which a step has
    /// them.
    pub figures: Vec<(String, FigureErrors)>,
}

/// The figure that gates look at.
pub const STEP: &str = "step";
/// Figures in the order of a report, before its phases.
const FIRST: [&str; 4] = [STEP, "exchange", "dispatch", "combine"];

// === impl Comparison ===

impl Comparison {
    /// Median over the restarts of a figure, µs.
    pub fn median_us(&self, figure: &str) -> Option<f64> {
        middle(self.restarts(figure))
    }

    /// Half the range of the restarts' medians over their median: what measuring twice differs by.
    /// `None` for a point that was measured once.
    pub fn spread(&self, figure: &str) -> Option<f64> {
        let all = self.restarts(figure);
        if all.len() < 2 {
            return None;
        }
        let (low, high) = (all.first().copied()?, all.last().copied()?);
        let middle = middle(all)?;
        (middle > 0.0).then(|| (high - low) / 2.0 / middle)
    }

    /// Signed error of the prediction, as a share of what was measured.
    pub fn error(&self, figure: &str) -> Option<f64> {
        let measured = self.median_us(figure).filter(|measured| *measured > 0.0)?;
        Some(self.predicted_us.get(figure)? / measured - 1.0)
    }

    /// A figure's medians, ascending.
    fn restarts(&self, figure: &str) -> Vec<f64> {
        let of_restart = |restart: &BTreeMap<String, f64>| restart.get(figure).copied();
        let mut all: Vec<f64> = self.measured_us.iter().filter_map(of_restart).collect();
        all.sort_by(f64::total_cmp);
        all
    }
}

// === impl ErrorTable ===

impl ErrorTable {
    /// The errors of every figure that any of `points` has. A phase that takes less than a
    /// hundredth of the step, measured and predicted, is left out at that point: its error has no
    /// weight in anything.
    pub fn of(points: &[Comparison]) -> Self {
        let names = points.iter().flat_map(|point| point.predicted_us.keys());
        let mut names: Vec<&String> = names.collect();
        names.sort_by_key(|name| (place(name), name.as_str()));
        names.dedup();
        let matters = |point: &Comparison, figure: &str| {
            let measured = point.median_us(figure)? / point.median_us(STEP)?;
            let predicted = point.predicted_us.get(figure)? / point.predicted_us.get(STEP)?;
            (measured.max(predicted) >= 0.01).then_some(())
        };
        let errors = |figure: &str| -> Vec<f64> {
            let one = |point: &Comparison| {
                matters(point, figure)?;
                point.error(figure)
            };
            points.iter().filter_map(one).collect()
        };
        let figures = names.into_iter().filter_map(|name| {
            let errors = FigureErrors::of(errors(name))?;
            Some((name.clone(), errors))
        });
        Self {
            figures: figures.collect(),
        }
    }

    /// The errors of one figure.
    pub fn figure(&self, name: &str) -> Option<FigureErrors> {
        let found = self.figures.iter().find(|(figure, _)| figure == name);
        found.map(|(_, errors)| *errors)
    }
}

// === impl FigureErrors ===

impl FigureErrors {
    /// Sums up signed errors; `None` without any.
    pub fn of(mut errors: Vec<f64>) -> Option<Self> {
        errors.sort_by(f64::total_cmp);
        let bias = middle(errors.clone())?;
        let mut sizes: Vec<f64> = errors.into_iter().map(f64::abs).collect();
        sizes.sort_by(f64::total_cmp);
        let rank = (sizes.len() * 9).div_ceil(10);
        Some(Self {
            points: sizes.len(),
            p90: sizes[rank - 1],
            max: sizes[sizes.len() - 1],
            median: middle(sizes)?,
            bias,
        })
    }
}

/// Where a figure stands in a report.
fn place(figure: &str) -> usize {
    if let Some(at) = FIRST.iter().position(|one| *one == figure) {
        return at;
    }
    let phase = figure.strip_prefix("phases.");
    let known = Phase::ALL
        .iter()
        .filter(|one| Some(one.to_string().as_str()) == phase);
    let index = known.map(|one| one.index()).next();
    FIRST.len() + index.unwrap_or(Phase::ALL.len())
}

/// Median of ascending values: the mean of the two in the middle where there are two.
fn middle(ascending: Vec<f64>) -> Option<f64> {
    let half = ascending.len() / 2;
    match ascending.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(ascending[half]),
        _ => Some((ascending[half - 1] + ascending[half]) / 2.0),
    }
}
