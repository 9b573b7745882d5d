//! Names, histograms and the report's data model: the words in which expertmesh states what a
//! step cost.
//!
//! # Reading order
//!
//! 1. [`Phase`]: the parts of a step, in the order in which a token meets them.
//! 2. [`spans`] and [`metrics`]: the names under which steps and phases appear in traces and in
//!    scraped metrics.
//! 3. [`Histogram`], [`Latency`] and [`Distribution`]: durations, mergeable across processes, their
//!    summary and their shape.
//! 4. [`model`]: [`Report`] and everything below it, field for field the JSON of
//!    `expertmesh.report/1`.
//! 5. [`RunRecorder`]: takes one [`StepRecord`] a step and yields the [`Run`] of a report.
//! 6. [`Trace`] and its [`Lane`]s: when each endpoint did what, in single steps.
//!
//! # Invariants
//!
//! * This crate does not know exporters: it opens no file, no socket and no subscriber.
//! * This crate does not know pictures: how a figure is drawn is `expertmesh-report`'s business.
//! * This crate does not know clocks: every duration is an argument.
//! * A figure that cannot be stated is `None`, never a zero that looks measured: a percentile
//!   with fewer than ten samples beyond it, a bus bandwidth of a star, a wire count without
//!   sockets.
//!
//! # Example
//!
//! ```
//! use expertmesh_telemetry::Histogram;
//!
//! let mut steps = Histogram::new();
//! for step in 1..=20 {
//!     steps.record(step * 1_000);
//! }
//! let latency = steps.summary();
//! assert_eq!(latency.count, 20);
//! assert!((latency.p50.unwrap() - 10.0).abs() < 0.02); // µs
//! assert_eq!(latency.p99, None); // 20 samples say nothing about a 99th percentile
//! ```
#![forbid(unsafe_code)]

mod error;
pub mod histogram;
pub mod metrics;
pub mod model;
mod names;
mod phase;
pub mod recorder;
pub mod spans;
mod trace;

pub use error::TelemetryError;
pub use histogram::{Distribution, Histogram, Latency};
pub use model::{
    Balance, CombineKind, Communication, Environment, ExchangeChoice, ExchangeKind, ExpertOverflow,
    Identity, LatencyUs, Load, LoadMode, Network, OverflowEvents, OverflowReport, Report, Run,
    SCHEMA, Shape, Source,
};
pub use phase::Phase;
pub use recorder::{RunRecorder, StepRecord, bandwidth};
pub use trace::{Lane, Trace};
