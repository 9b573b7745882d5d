//! How long steps took.

use super::first_bad;
use crate::{Distribution, Latency};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Durations of a run in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyUs {
    /// Hidden states in to outputs out.
    pub step: Latency,
    /// Plan to outputs in token order, the gate excluded.
    pub exchange: Latency,
    /// Start of packing to the last worker having its rows.
    pub dispatch: Latency,
    /// First result leaving a worker to outputs in token order.
    pub combine: Latency,
    /// The same bytes without any work at either end, where a bench measured it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Latency>,
    /// Phase name to its duration. `shared` runs beside the others.
    pub phases: BTreeMap<String, Latency>,
    /// (step − the phases on the critical path) / step, from sums over steps; negative when
    /// phases overlap, `None` without time.
    pub residual_share: Option<f64>,
    /// Error bound of comparing the clocks of several endpoints, µs: `dispatch`, `combine` and the
    /// phases `send`, `queue` and `return` carry it. Absent where one clock timed everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_error_us: Option<f64>,
    /// The shape of `step` and `exchange`, by name; empty where nobody kept it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub distribution: BTreeMap<String, Distribution>,
}

// === impl LatencyUs ===

impl LatencyUs {
    pub(super) fn non_finite(&self) -> Option<String> {
        let named = [
            ("step", Some(&self.step)),
            ("exchange", Some(&self.exchange)),
            ("dispatch", Some(&self.dispatch)),
            ("combine", Some(&self.combine)),
            ("floor", self.floor.as_ref()),
        ];
        let named = named
            .into_iter()
            .filter_map(|(name, latency)| Some((name, latency?)));
        named
            .map(|(name, latency)| (name.to_owned(), latency))
            .chain(
                self.phases
                    .iter()
                    .map(|(name, latency)| (format!("phases.{name}"), latency)),
            )
            .find_map(|(name, latency)| {
                Some(format!(
                    "latency_us.{name}.{}",
                    first_bad(latency.figures())?
                ))
            })
            .or_else(|| {
                let (name, _) = self.distribution.iter().find(|(_, distribution)| {
                    distribution.edges.iter().any(|edge| !edge.is_finite())
                })?;
                Some(format!("latency_us.distribution.{name}"))
            })
            .or_else(|| {
                first_bad([
                    ("latency_us.residual_share", self.residual_share),
                    ("latency_us.clock_error_us", self.clock_error_us),
                ])
            })
    }
}
