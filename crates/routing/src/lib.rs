//! Who computes which token: gates, selection, capacity and the fate of every choice.
//!
//! A [`Gate`] turns token rows into a [`Route`]: for each token the experts that it chose and
//! their gate weights. [`admit()`] applies an expert's capacity and gives each choice its first
//! [`Fate`]; whatever happens to choices later (a worker that failed, say) is written into the
//! same list. The [`OverflowLedger`] then counts what became of them, expert by expert, and
//! proves that nothing went missing.
//!
//! ```
//! use expertmesh_kernels::{Format, PackedMatrix};
//! use expertmesh_routing::{
//!     AdmitContext, CapacityConfig, Fate, Gate, Overflow, OverflowLedger, RouterConfig, admit,
//! };
//!
//! // Two experts, each liking one coordinate; three tokens, of which two like the first.
//! let weight = PackedMatrix::from_f32(&[1.0, 0.0, 0.0, 1.0], 2, 2)?;
//! let gate = Gate::new(RouterConfig::mixtral(2, 1, Format::F32), weight, None, None)?;
//! let route = gate.route(&[5.0, 0.0, 0.0, 5.0, 3.0, 1.0], 3, None)?;
//! assert_eq!(route.experts, [0, 1, 0]);
//!
//! // A factor of 0.5 lets each expert take one choice: ceil(3 · 1 / 2 · 0.5).
//! let config = CapacityConfig {
//!     factor: Some(0.5),
//!     overflow: Overflow::DropPosition,
//!     ..CapacityConfig::default()
//! };
//! let context = AdmitContext::default();
//! let admission = admit(&route, &config, &context)?;
//! assert_eq!(admission.fates, [Fate::Computed, Fate::Computed, Fate::Dropped]);
//!
//! let ledger = OverflowLedger::tally(&route, &admission, &config, &context)?;
//! ledger.check_conservation()?;
//! assert_eq!(ledger.totals().dropped, 1);
//! # Ok::<(), expertmesh_routing::RoutingError>(())
//! ```
//!
//! Reading order: [`config`] (the shape of a router), [`gate`] (hidden states to logits),
//! [`select`] (logits to choices), [`kinds`] (the rules that choose otherwise), [`route`] (the
//! answer), [`mod@capacity`] and [`mod@admit`] (how many choices an expert takes, and which),
//! [`model_capacity`] (the rule that a model brings), [`ledger`] (what became of them), [`loss`] and
//! [`balance`] (how even the load is), [`bias`] (the load steers the selection), [`noise`] (random
//! numbers by place, not by order), [`depth`] (tokens that skip whole layers), [`error`].
//!
//! This crate does not know the network, time, files or placement: the answer for a batch is a
//! pure function of the batch and its context. Under most rules a token's choices do not depend on
//! the other tokens of its batch ([`kinds`] says which); what an expert admits does.
#![forbid(unsafe_code)]

pub mod admit;
pub mod balance;
pub mod bias;
pub mod capacity;
pub mod config;
pub mod depth;
pub mod error;
pub mod gate;
pub mod kinds;
pub mod ledger;
pub mod loss;
pub mod model_capacity;
pub mod noise;
pub mod route;
pub mod select;

#[cfg(test)]
mod tests;

pub use admit::{Admission, AdmitContext, Domains, FreeExpert, admit};
pub use bias::BiasUpdate;
pub use capacity::{
    CapacityConfig, CapacityFormula, CapacityPreset, CapacityScope, CapacityShare, Overflow,
    Priority, QueueOrder, WeightRule, capacity, smallest_sufficient_factor,
};
pub use config::{
    GateNoise, GroupScore, Groups, HashBy, HashWeights, Jitter, Kind, LogitNoise, Logits, Norm,
    Post, PresetArg, PresetInfo, Product, RouterConfig, RouterPreset, Score, SecondRule, Select,
    WeightDtype,
};
pub use depth::{DepthRoute, DepthRouter, ExitGate, ExitRule, ExitState};
pub use error::RoutingError;
pub use gate::{Choices, Cosine, Gate, GateContext, NO_CHOICE, Needs, ReplayStep};
pub use kinds::SlotMix;
pub use ledger::{ExpertCount, OverflowLedger};
pub use model_capacity::{ModelAdmission, ModelCapacity, ModelChoices, Top2Capacity};
pub use noise::{Noise, NoiseKey, Purpose};
pub use route::{Fate, Route};
pub use select::{SelectScratch, Selector};
