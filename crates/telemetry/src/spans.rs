//! Names of tracing spans: one for the step, one for each [`Phase`](crate::Phase).
//!
//! They are constants because `tracing` wants span names at compile time, and because a trace of
//! a worker and one of a coordinator can only be joined when both say the same word.

/// Target of every span and event of a step, for filters such as `expertmesh::step=debug`.
pub const TARGET: &str = "expertmesh::step";

/// One forward of one layer for one batch.
pub const STEP: &str = "step";
/// Plan to outputs in token order, the gate excluded.
pub const EXCHANGE: &str = "exchange";

/// [`Phase::Gate`](crate::Phase::Gate).
pub const GATE: &str = "step.gate";
/// [`Phase::Plan`](crate::Phase::Plan).
pub const PLAN: &str = "step.plan";
/// [`Phase::Pack`](crate::Phase::Pack).
pub const PACK: &str = "step.pack";
/// [`Phase::Send`](crate::Phase::Send).
pub const SEND: &str = "step.send";
/// [`Phase::Queue`](crate::Phase::Queue).
pub const QUEUE: &str = "step.queue";
/// [`Phase::Experts`](crate::Phase::Experts).
pub const EXPERTS: &str = "step.experts";
/// [`Phase::Shared`](crate::Phase::Shared).
pub const SHARED: &str = "step.shared";
/// [`Phase::Return`](crate::Phase::Return).
pub const RETURN: &str = "step.return";
/// [`Phase::Combine`](crate::Phase::Combine).
pub const COMBINE: &str = "step.combine";

/// Field names that spans of a step carry; the same set tags every message on the wire.
pub mod fields {
    /// Session identifier, 64 bits.
    pub const SESSION: &str = "session";
    /// Version of the placement.
    pub const EPOCH: &str = "epoch";
    /// Layer index in the model.
    pub const LAYER: &str = "layer";
    /// Step number within the session.
    pub const STEP: &str = "step";
    /// Endpoint id of the shard's home.
    pub const SHARD: &str = "shard";
    /// Endpoint id of the peer.
    pub const PEER: &str = "peer";
    /// Rows handled under the span.
    pub const ROWS: &str = "rows";
    /// Encoded bytes handled under the span.
    pub const BYTES: &str = "bytes";
}
