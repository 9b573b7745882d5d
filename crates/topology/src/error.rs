//! What can be wrong with a topology, in one sentence each.

/// A topology that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TopologyError {
    /// A field that holds something else than it should.
    #[error("{file}:{line}: `{field}` {held}, expected {expected}")]
    Field {
        /// The file, as it was named.
        file: String,
        /// Line of the field or of its table, from 1.
        line: usize,
        /// The field with its table, for example `tier.rack.latency`.
        field: String,
        /// What it holds, for example `holds "25"` or `is missing`.
        held: String,
        /// What would be accepted.
        expected: String,
    },
    /// Text that is no TOML, or a table with a field that topologies do not have.
    #[error("{file}:{line}: {reason}")]
    Syntax {
        /// The file, as it was named.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What the reader of TOML says.
        reason: String,
    },
    /// Neither a preset nor a file.
    #[error(
        "topology `{name}` is neither a file nor a preset, expected a .toml file or one of {known}"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The presets that there are.
        known: String,
    },
    /// A file that cannot be read.
    #[error("topology {path} cannot be read: {reason}")]
    Read {
        /// The file.
        path: String,
        /// What the operating system says.
        reason: String,
    },
    /// Hosts without enough room, or no worker at all.
    #[error("{file}:{line}: {workers} workers asked for, expected {expected}")]
    Workers {
        /// The file, as it was named.
        file: String,
        /// Line of the last host.
        line: usize,
        /// Workers that were asked for.
        workers: usize,
        /// What would be accepted.
        expected: String,
    },
}
