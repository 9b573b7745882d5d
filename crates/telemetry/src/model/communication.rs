//! What steps moved.

use super::first_bad;
use serde::{Deserialize, Serialize};

/// Bytes and messages of all recorded steps together, and what they say about the links.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Communication {
    /// Encoded bytes of the plan's messages that left a process.
    pub payload_bytes: u64,
    /// Bytes that sockets carried for them, framing included; `None` where no socket was counted.
    pub wire_bytes: Option<u64>,
    /// Encoded bytes of rows whose experts live at their home: they never left a process.
    pub local_bytes: u64,
    /// Bytes sent again because of retries and hedges.
    pub resent_bytes: u64,
    /// Bytes of expert weights that moved between workers.
    pub migrated_bytes: u64,
    /// Messages that carried `payload_bytes`.
    pub messages: u64,
    /// Bytes that sending a row once for each of its experts would have added.
    pub saved_by_dedup_bytes: u64,
    /// (exchange − the longest expert time) / step, from sums over steps; `None` without time.
    pub time_share: Option<f64>,
    /// Encoded bytes from endpoint (row) to endpoint (column), in the order of
    /// `identity.endpoints`.
    pub matrix_bytes: Vec<Vec<u64>>,
    /// Algorithm bandwidth in GB/s (10⁹ bytes), as nccl-tests define it for alltoallv over
    /// `matrix_bytes`: the most that one endpoint sent or received, over the exchange time.
    pub algbw_gbps: Option<f64>,
    /// Bus bandwidth in GB/s: `algbw · (n − 1) / n` over `n` endpoints; `None` for a star.
    pub busbw_gbps: Option<f64>,
}

// === impl Communication ===

impl Communication {
    pub(super) fn non_finite(&self) -> Option<String> {
        first_bad([
            ("communication.time_share", self.time_share),
            ("communication.algbw_gbps", self.algbw_gbps),
            ("communication.busbw_gbps", self.busbw_gbps),
        ])
    }
}
