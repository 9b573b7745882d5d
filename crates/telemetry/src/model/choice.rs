//! Why a run has the exchange that it has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a cost model said of the exchanges that a run could have had, where it chose one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExchangeChoice {
    /// The costs, links and cores that steps were predicted with.
    pub costs: String,
    /// Predicted mean step by exchange, µs; the least was taken.
    pub predicted_us: BTreeMap<String, f64>,
    /// Exchanges that could not be predicted or would be refused, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub passed_over: BTreeMap<String, String>,
    /// Whether the least stays the least within the error band of the costs.
    pub verdict: String,
}
