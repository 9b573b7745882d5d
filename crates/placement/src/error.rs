//! What can be wrong with a placement.

use crate::placement::{MAX_EXPERTS, MAX_WORKERS};

/// A placement that cannot be made; the message names the entry and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The number of experts is zero or past [`MAX_EXPERTS`].
    #[error("experts: {found}, expected 1 to {MAX_EXPERTS}")]
    Experts {
        /// The number that was asked for.
        found: usize,
    },
    /// The number of workers is zero or past [`MAX_WORKERS`].
    #[error("workers: {found}, expected 1 to {MAX_WORKERS}")]
    Workers {
        /// The number that was asked for.
        found: usize,
    },
    /// The table is for another number of experts than the layer has.
    #[error("experts: {found} entries, expected {expected}, one for each expert of the layer")]
    ExpertCount {
        /// Entries in the table.
        found: usize,
        /// Experts of the layer.
        expected: usize,
    },
    /// An expert has no replica, so its choices could never be computed.
    #[error("experts[{expert}]: no worker, expected at least one index below {workers}")]
    Unplaced {
        /// The expert whose entry is empty.
        expert: usize,
        /// Workers of the cluster.
        workers: usize,
    },
    /// An entry names a worker that does not exist.
    #[error(
        "experts[{expert}][{replica}]: worker {worker}, expected an index below {workers}, \
         the number of workers"
    )]
    NoSuchWorker {
        /// The expert of the entry.
        expert: usize,
        /// Position in the entry.
        replica: usize,
        /// What the entry held.
        worker: i64,
        /// Workers of the cluster.
        workers: usize,
    },
    /// An entry names one worker twice; a second copy in one place serves nobody.
    #[error("experts[{expert}]: worker {worker} twice, expected each replica on another worker")]
    DuplicateReplica {
        /// The expert of the entry.
        expert: usize,
        /// The worker that is named twice.
        worker: u32,
    },
    /// The file is not TOML, or not the TOML of a placement.
    #[error(
        "placement file, line {line}: {message}; expected one list of worker indices for each \
         expert, such as experts = [[0], [1], [0, 1]]"
    )]
    File {
        /// Line of the file, from 1.
        line: usize,
        /// What the TOML reader says.
        message: String,
    },
    /// A strategy name that does not exist.
    #[error("placement: {found:?}, expected contiguous, round-robin or shuffled")]
    UnknownStrategy {
        /// The name that was given.
        found: String,
    },
}
