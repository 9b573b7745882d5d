//! When each endpoint did what: the lanes of single steps.

#[cfg(test)]
mod tests;

use crate::{Phase, TelemetryError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The lanes of a few steps of one run, for pictures of single steps. A report holds sums over all
/// steps and stays small; a trace holds moments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Names of the endpoints by id: the coordinator, then workers.
    pub endpoints: Vec<String>,
    /// What they did, in no order that a reader may rely on.
    pub lanes: Vec<Lane>,
}

/// One stretch of time that an endpoint spent in a phase. Moments are nanoseconds of one clock, which
/// all lanes of a trace share; its zero means nothing.
///
/// `pack` and `send` stand with the endpoint that sends, `queue` and `experts` with the one that
/// computes, `return` with the one whose results travel, the others with the one that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Id of the endpoint.
    pub endpoint: u32,
    /// What it did.
    pub phase: Phase,
    /// For which step.
    pub step: u64,
    /// Since when, ns.
    pub begin_ns: u64,
    /// Until when, ns; not before `begin_ns`.
    pub end_ns: u64,
    /// Id of the other endpoint: the receiver of `pack`, `send` and `return`, for `queue` and
    /// `experts` the home that waits for the results; `None` where there is no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<u32>,
    /// Encoded bytes that moved; 0 where none did, or where nobody counted them apart.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Whether a cost model says so. Lanes that were timed, on real or on emulated links, say `false`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub predicted: bool,
}

// === impl Lane ===

impl Lane {
    /// How long it took, ns.
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.begin_ns)
    }
}

// === impl Trace ===

impl Trace {
    /// A trace of nothing yet, of these endpoints.
    pub fn new(endpoints: &[String]) -> Self {
        Self {
            endpoints: endpoints.to_vec(),
            lanes: Vec::new(),
        }
    }

    /// Whether there is nothing to see.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The steps that have lanes, ascending.
    pub fn steps(&self) -> BTreeSet<u64> {
        self.lanes.iter().map(|lane| lane.step).collect()
    }

    /// Lanes of one step, measured or predicted.
    pub fn of_step(&self, step: u64, predicted: bool) -> impl Iterator<Item = &Lane> {
        self.lanes
            .iter()
            .filter(move |lane| lane.step == step && lane.predicted == predicted)
    }

    /// Adds the lanes of another trace of the same cluster, predicted beside measured ones say.
    /// Their clocks need not be the same: readers compare a step with a step.
    ///
    /// # Errors
    ///
    /// [`TelemetryError::Endpoints`] when the endpoints differ; nothing is added then.
    pub fn merge(&mut self, other: &Trace) -> Result<(), TelemetryError> {
        if self.endpoints != other.endpoints {
            return Err(TelemetryError::Endpoints {
                found: other.endpoints.join(", "),
                expected: self.endpoints.join(", "),
            });
        }
        self.lanes.extend_from_slice(&other.lanes);
        Ok(())
    }

    /// Checks what a file or another process said: endpoints exist, time goes forward.
    ///
    /// # Errors
    ///
    /// [`TelemetryError::Lane`] naming the first lane that contradicts the others.
    pub fn check(&self) -> Result<(), TelemetryError> {
        let known = |id: u32| (id as usize) < self.endpoints.len();
        for (at, lane) in self.lanes.iter().enumerate() {
            let wrong = |field, found: u64, expected: String| TelemetryError::Lane {
                lane: at,
                field,
                found,
                expected,
            };
            let ids = [("endpoint", Some(lane.endpoint)), ("peer", lane.peer)];
            for (field, id) in ids {
                if let Some(id) = id.filter(|id| !known(*id)) {
                    let expected = format!("less than {}, the endpoints", self.endpoints.len());
                    return Err(wrong(field, u64::from(id), expected));
                }
            }
            if lane.end_ns < lane.begin_ns {
                let expected = format!("at least begin_ns, {}", lane.begin_ns);
                return Err(wrong("end_ns", lane.end_ns, expected));
            }
        }
        Ok(())
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}
