//! Names of scraped metrics, each with its unit and what it leaves out.
//!
//! [`ALL`] lists them for whoever registers or documents them.

/// How a metric behaves between two scrapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution of values.
    Histogram,
}

/// One metric: what a scraper sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Full name, unit included.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Label keys, in order.
    pub labels: &'static [&'static str],
    /// One sentence: unit and what is not in it.
    pub help: &'static str,
}

/// Steps that ended with outputs. Failed steps are not in it.
pub const STEPS_TOTAL: &str = "expertmesh_steps_total";
/// Steps that ended with an error, by `code`.
pub const STEP_ERRORS_TOTAL: &str = "expertmesh_step_errors_total";
/// Seconds of a step. Failed steps are not in it.
pub const STEP_SECONDS: &str = "expertmesh_step_seconds";
/// Seconds of a phase, by `phase`. `shared` runs beside the others: do not add it to their sum.
pub const PHASE_SECONDS: &str = "expertmesh_phase_seconds";
/// Encoded bytes handed to the transport, by `source` and `destination`; no HTTP/2, no TCP.
pub const PAYLOAD_BYTES_TOTAL: &str = "expertmesh_payload_bytes_total";
/// Bytes written to sockets, by `source` and `destination`; TCP and IP headers are not in it.
pub const WIRE_BYTES_TOTAL: &str = "expertmesh_wire_bytes_total";
/// Encoded bytes of rows that stayed at their endpoint and never left a process.
pub const LOCAL_BYTES_TOTAL: &str = "expertmesh_local_bytes_total";
/// Messages handed to the transport. Control calls are not in it.
pub const MESSAGES_TOTAL: &str = "expertmesh_messages_total";
/// Choices of the gate, by `fate`. The sum over fates is what the gate assigned.
pub const CHOICES_TOTAL: &str = "expertmesh_choices_total";
/// Rows that wait for or are in an expert at this worker.
pub const ROWS_IN_FLIGHT: &str = "expertmesh_rows_in_flight";

/// Every metric, in the order of a step.
pub const ALL: &[Metric] = &[
    Metric {
        name: STEPS_TOTAL,
        kind: Kind::Counter,
        labels: &[],
        help: "Steps that ended with outputs; failed steps are not in it.",
    },
    Metric {
        name: STEP_ERRORS_TOTAL,
        kind: Kind::Counter,
        labels: &["code"],
        help: "Steps that ended with an error.",
    },
    Metric {
        name: STEP_SECONDS,
        kind: Kind::Histogram,
        labels: &[],
        help: "Seconds of a step; failed steps are not in it.",
    },
    Metric {
        name: PHASE_SECONDS,
        kind: Kind::Histogram,
        labels: &["phase"],
        help: "Seconds of a phase; shared runs beside the others and is not part of their sum.",
    },
    Metric {
        name: PAYLOAD_BYTES_TOTAL,
        kind: Kind::Counter,
        labels: &["source", "destination"],
        help: "Encoded bytes handed to the transport; HTTP/2 and TCP are not in it.",
    },
    Metric {
        name: WIRE_BYTES_TOTAL,
        kind: Kind::Counter,
        labels: &["source", "destination"],
        help: "Bytes written to sockets; TCP and IP headers are not in it.",
    },
    Metric {
        name: LOCAL_BYTES_TOTAL,
        kind: Kind::Counter,
        labels: &[],
        help: "Encoded bytes of rows that never left a process.",
    },
    Metric {
        name: MESSAGES_TOTAL,
        kind: Kind::Counter,
        labels: &["source", "destination"],
        help: "Messages handed to the transport; control calls are not in it.",
    },
    Metric {
        name: CHOICES_TOTAL,
        kind: Kind::Counter,
        labels: &["fate"],
        help: "Choices of the gate; the sum over fates is what it assigned.",
    },
    Metric {
        name: ROWS_IN_FLIGHT,
        kind: Kind::Gauge,
        labels: &[],
        help: "Rows that wait for or are in an expert at this worker.",
    },
];
