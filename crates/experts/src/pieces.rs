//! How work is cut into pieces, and what decides where it runs.
//!
//! Coordinator and workers cut by these, and whoever simulates them does. Rough speeds serve the
//! choice between the thread that does I/O and the pool, and nothing else.

/// Work estimated below this may run on the thread that does I/O, nanoseconds.
///
/// Handing work to another core and being woken by its result costs about as much: on two-core
/// virtual machines a 64-byte ping-pong takes 13 µs with both ends on one core and 52 µs across
/// cores.
pub const INLINE_NS: u64 = 50_000;

/// Rough speed of one core on a gate's product, flops per nanosecond.
pub const GATE_FLOPS_PER_NS: u64 = 20;

/// Tokens that one task of a gate routes.
pub const GATE_TOKENS: usize = 64;

/// Rows of one expert that are computed together: enough to use a core's registers well, few
/// enough that a hot expert's rows spread over the threads.
pub const EXPERT_ROWS: usize = 128;

/// Multiply-adds of a combine per nanosecond.
pub const ADDS_PER_NS: u64 = 6;

/// Rows that one task of a combine adds up.
pub const COMBINE_ROWS: usize = 64;

/// A combine of more pieces of [`INLINE_NS`] than this runs on the pool.
pub const MOST_PIECES: usize = 8;
