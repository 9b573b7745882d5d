//! The whole step as state machines: who sends which rows to whom, and what follows from it.
//!
//! Nothing here performs I/O, reads a clock or starts a thread. Time is an argument, network
//! events go in, actions come out; the coordinator and the workers drive the same machines over
//! gRPC that the tests drive over a shuffled in-memory bus and a simulator under an event clock.
//!
//! Reading order:
//!
//! 1. [`Target`], [`HostTable`], [`ShardPlan`]: route + placement → rows for each expert host, cut to chunks.
//!    [`Groups`], [`Bundle`]: of which those for one group travel together in `hierarchical`.
//! 2. [`StepPlan`]: the plans of all homes of a step, and [`TrafficLedger`]: the messages, rows and bytes that follow from plans, and from nothing else.
//! 3. [`Home`]: the machine of an endpoint that is home to tokens: sends rows within its credits,
//!    waits for results, meets the deadline.
//! 4. [`Conductor`]: the machine of a coordinator whose shards have homes elsewhere
//!    (`all-to-all`, `hierarchical`).
//! 5. [`Host`]: the machine of an expert host: which queued chunks are computed together, and how
//!    long one waits for the others of its step.
//! 6. [`HomeRun`], [`ShardFrame`], [`CombinedFrame`], [`RowsJob`], [`RelayFrame`]: the bytes beside the machines:
//!    packing, checking what arrives, combining in slot order.
//! 7. [`ClockMap`], [`Timeline`], [`Way`]: moments of several clocks on one line, and what a step cost.
//!
//! Laws held here: a plan, and so the ledger, is a function of (routes, placement, exchange)
//! alone: chunks are cut by the plan, never by credits or timing. Combine adds in slot order, in
//! f32, and rounds once.
//!
//! **This crate does not know** sockets, gRPC, threads, clocks, or how an expert computes.
#![forbid(unsafe_code)]

mod bundles;
mod clock;
mod combine;
mod conductor;
mod cut;
mod error;
mod groups;
mod home;
mod home_run;
mod host;
mod jobs;
mod kind;
mod ledger;
mod plan;
mod record;
mod relay;
mod shard_plan;
mod shard_run;
mod spare;
mod step_plan;
mod target;
#[cfg(test)]
mod tests;
mod timeline;
mod turn;

pub use bundles::{Bundle, Parcel, Part};
pub use clock::ClockMap;
pub use combine::CombineRule;
pub use conductor::{Conductor, ConductorAction, home_deadline_ns};
pub use error::{LossCause, StepError};
pub use groups::Groups;
pub use home::{Home, HomeAction};
pub use home_run::{Beside, HomeRun, HomeSetup, Outgoing, RowSource};
pub use host::{BATCH_CHOICES, Cohort, Host, HostAction, PATIENT_FROM_NS, estimate_ns};
pub use jobs::{RowsJob, error_frame};
pub use kind::{ExchangeKind, OnLoss};
pub use ledger::{LinkCell, TrafficLedger};
pub use plan::{HostTable, Kept, KeptChoices, Limits, shard_ranges};
pub use record::{ShardMoments, StepMoments, Way};
pub use relay::{RelayFrame, RelayPart};
pub use shard_plan::{Chunk, HostPlan, HostRows, OwnChoice, ShardPlan};
pub use shard_run::{CombinedFrame, ShardFrame, write_combined, write_shard};
pub use step_plan::{Missing, PlanRules, ShardOf, StepPlan};
pub use target::Target;
pub use timeline::{ChunkWay, HomeMoments, HostTimes, Timeline};

/// Endpoint id of the coordinator; workers are 1, 2, … in the order they were given.
pub const COORDINATOR: u32 = 0;
