//! The worker: holds experts, computes the rows that arrive, and in `all-to-all` and `hierarchical`
//! is home to a shard of the tokens.
//!
//! Reading order:
//!
//! 1. [`Worker`], [`WorkerConfig`]: a worker is bound to an address and served until told to stop.
//! 2. `control`: the unary calls. A coordinator configures a session: one layer, this worker's
//!    experts of it, the peers; `layer` checks what it is told.
//! 3. `session`: a session's experts, streams and machines; every frame that arrives is handled
//!    here, in the task that read it. `home` is home to shards, `relay` passes rows on.
//! 4. `compute`: a batch of chunks grouped by expert, on the compute pool.
//! 5. `floor`: answers with bytes and no work, so that a bench can subtract the transport.
//! 6. `chunks`: what became of the chunks of the last steps, for pictures.
//! 7. [`ExpertRegistry`]: experts of the program that embeds the worker.
//!
//! Who waits for whom is decided by the machines of `expertmesh-exchange`; this crate only carries
//! their actions out.
//!
//! **This crate does not know** argv, environment variables, exporters, or the coordinator's code.
#![forbid(unsafe_code)]

mod acceptor;
mod chunks;
mod compute;
mod control;
mod error;
mod floor;
mod home;
mod layer;
mod registry;
mod relay;
mod session;
mod worker;

pub use error::WorkerError;
pub use registry::ExpertRegistry;
pub use worker::{Worker, WorkerConfig};
