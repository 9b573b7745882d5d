//! The coordinator: runs the gate, plans the step, and drives the exchange with the workers.
//!
//! Reading order:
//!
//! 1. [`CoordinatorConfig`]: the layer, the workers, and every option of a step.
//! 2. [`Coordinator::connect`] (in `connect`): describe, configure and connect the workers.
//! 3. [`Coordinator::forward`] (in `forward`): one step, from hidden states to outputs.
//!    `decide` has what comes before anything is sent ([`Rehearsal`] does it without a cluster),
//!    `plan` says who sends what, `combine` adds up what came back, `latent` has the rows of experts
//!    that do not work on hidden states.
//! 4. `engine`: the steps under way, and the frames and losses that reach them.
//! 5. `shards`: the coordinator's side of `all-to-all`.
//! 6. `record`: moments and plans → the [`StepRecord`](expertmesh_telemetry::StepRecord) of a step,
//!    and `lanes`: → when each endpoint did what.
//! 7. `service`: the public `Forward` call; [`to_record`], [`to_lanes`] and [`RoutingTables`] (in
//!    `tables`) are its client's inverse.
//! 8. [`Stack`] (in `stack`): several layers, one after another; `depth` has the tokens that go
//!    round a layer.
//! 9. `floor`: the same messages without the work, and `capacity`: another rule for the steps to
//!    come; both for benches.
//!
//! **This crate does not know** argv, environment variables, exporters, or the worker's code.
#![forbid(unsafe_code)]

mod capacity;
mod checks;
mod combine;
mod config;
mod connect;
mod decide;
mod depth;
mod engine;
mod error;
mod floor;
mod forward;
mod gate;
mod input;
mod lanes;
mod latent;
mod plan;
mod record;
mod service;
mod shards;
mod stack;
mod tables;

pub use capacity::CapacityState;
pub use config::{CoordinatorConfig, Defaults};
pub use connect::Coordinator;
pub use decide::{Decided, Rehearsal};
pub use error::CoordinatorError;
pub use forward::{StepOutput, StepTraffic};
pub use input::{Replayed, StepInput};
pub use service::{CoordinatorService, to_lanes, to_record};
pub use stack::{Stack, StackOutput};
pub use tables::{RoutingTables, SlotTables};
