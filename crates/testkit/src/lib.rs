//! What tests of several crates share: layers, known answers, clusters in one process.
//!
//! Reading order:
//!
//! 1. [`digest()`], [`inputs`]: outputs as one line of hex, and seeded hidden states.
//! 2. [`Model`], [`Golden`]: a layer as both ends of a cluster name it; the committed cases with
//!    their known answers. [`LatentCase`]: one of them with latent rows.
//! 3. [`Parts`]: the layer computed naively, one choice at a time. What everything else is
//!    compared with.
//! 4. [`Bus`]: one step through the machines of `expertmesh-exchange` over memory, delivered in a
//!    seeded random order, with endpoints that die or hang when told to.
//! 5. [`Cluster`]: workers and a coordinator in one process over real sockets; every worker on a
//!    thread and runtime of its own, so that one can be killed in the middle of a step. An
//!    [`EmulatedNetwork`] gives each endpoint links of a topology.
//! 6. [`FakeWorker`], [`Trap`]: a worker that answers frames as a test wants, and experts that
//!    stop in the middle of their work until they are told to go on.
//!
//! Dev-only. Nothing here waits by sleeping, and every port is the system's choice.
//!
//! **This crate does not know** argv, processes, reports or benches.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test stands on fails by panicking"
)]

mod bus;
mod cases;
mod cluster;
mod digest;
mod emulated;
mod fake;
mod goldens;
mod latent;
mod model;
mod node;
mod reference;
mod trap;

pub use bus::{Bus, BusSetup, BusStep, Fault, FaultKind};
pub use cases::{CASES, SPECIAL, golden_layer};
pub use cluster::{Cluster, ClusterSpec};
pub use digest::{digest, inputs, tensor};
pub use emulated::EmulatedNetwork;
pub use fake::{Answer, FakeWorker};
pub use goldens::{Golden, golden_dir};
pub use latent::LatentCase;
pub use model::Model;
pub use node::Node;
pub use reference::{Parts, through};
pub use trap::{Entered, Trap};
