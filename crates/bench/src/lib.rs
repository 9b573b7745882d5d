//! Load generation and measurement: workloads, traces, closed-loop drives, and benches.
//!
//! Reading order:
//!
//! 1. [`workload`]: seeded hidden states that make the real gate choose with a wanted skew.
//! 2. [`trace`]: which experts tokens chose, recorded here or by other systems.
//! 3. [`drive`]: steps through a coordinator's public call, into a run of a report.
//! 4. [`dispatch`]: the exchange beside its floor, interleaved in one process.
//! 5. [`overflow`]: every overflow policy beside dropless, on the same batches.
//! 6. [`calibrate`]: from measured configurations to the costs of a simulation.
//! 7. [`simulate`]: steps of a cluster that is not there, and what they mean.
//! 8. [`validate`]: predictions beside measurements; [`published`]: beside the figures of others.
//!
//! **This crate does not know** how figures are drawn, or how processes are started.
#![forbid(unsafe_code)]

pub mod calibrate;
pub mod dispatch;
mod draw;
pub mod drive;
pub mod overflow;
pub mod published;
pub mod simulate;
pub mod trace;
pub mod validate;
pub mod workload;
