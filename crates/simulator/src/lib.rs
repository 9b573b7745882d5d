//! A cluster that is not there: the machines of `expertmesh-exchange` under an event clock.
//!
//! Gate, capacity and placement are those of a real run, and so are plan, packing rules, credits,
//! cohorts and failure policy: this crate drives the very machines, in integer nanoseconds, and
//! replaces bytes and products by what they cost. So routes, fates and ledgers are those of a real
//! run of the same seed, byte for byte, and only times are computed.
//!
//! # Reading order
//!
//! 1. [`Layer`], [`SimConfig`], [`Costs`]: what is simulated, and what its work takes. The machines
//!    and their links are an [`expertmesh_topology::Topology`].
//! 2. [`Simulator`]: [`Simulator::step`] for one step, [`Simulator::run`] for several under way at
//!    the same time. [`Standing`]: what they leave to the next.
//! 3. [`SimRun`], [`SimStep`]: records by the definitions of a real step, ledgers, fates, how busy
//!    endpoints and ports were, the digest of the event log.
//! 4. `run`: who does what when, event by event. `cpu`: threads on cores; `net`: messages through
//!    ports; `experts`: what a batch takes; `queue`, `log`.
//!
//! `docs/simulation.md` states every formula with its source, and what is not modelled.
//!
//! **This crate does not know** sockets, tokio, threads or the machine's clock, and does not compute
//! a single product.
#![forbid(unsafe_code)]

mod config;
mod costs;
mod cpu;
mod error;
mod experts;
mod layer;
mod log;
mod net;
mod queue;
mod run;
mod simulator;
mod standing;
#[cfg(test)]
mod tests;

pub use config::{EndpointUse, Failure, Fault, PortUse, SimConfig, SimRun, SimStep, StepInput};
pub use costs::{CombineCost, Costs, ExpertCosts, ExpertTable, GateCost, Line};
pub use error::SimError;
pub use layer::{Layer, NetworkShape};
pub use simulator::Simulator;
pub use standing::Standing;
