//! What work takes: a few lines, each fitted or taken from a source.
//!
//! A [`Costs`] is a cost profile, written and read as TOML. `calibrate` fits one to a cluster; the
//! presets stand for machines that are not at hand. Links are not in it: latency, rates and
//! per-message overhead of the network come from the topology.

mod check;
mod preset;

use std::collections::BTreeMap;

use expertmesh_telemetry::Source;
use serde::{Deserialize, Serialize};

use crate::error::SimError;

/// Nanoseconds of something with a size: `fixed_ns + unit_ns · n`, rounded to a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Whatever the size is.
    pub fixed_ns: f64,
    /// For each unit of it.
    pub unit_ns: f64,
}

/// The gate over a batch: `fixed_ns + token_ns · T + flop_ns · 2·T·H·E`. A projection of a batch's rows
/// into latent ones of L elements, or out of them, is `flop_ns · 2·T·H·L`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateCost {
    /// For a step.
    pub fixed_ns: f64,
    /// For each token: selection.
    pub token_ns: f64,
    /// For each floating-point operation of the product on one thread.
    pub flop_ns: f64,
}

/// Adding results up: `fixed_ns + row_ns · choices + byte_ns · bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CombineCost {
    /// For a shard.
    pub fixed_ns: f64,
    /// For each result row.
    pub row_ns: f64,
    /// For each byte of result rows and of outputs.
    pub byte_ns: f64,
}

/// What experts take where a table was measured: one network of this shape on one thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertTable {
    /// Elements of a token row.
    pub hidden: usize,
    /// Values between the layers.
    pub ffn: usize,
    /// Matrices: 3 for swiglu, 2 for mlp, 0 for identity.
    pub matrices: usize,
    /// Bytes of the network's weights: tells formats of one shape apart.
    pub weight_bytes: u64,
    /// `[rows, nanoseconds]`, rows rising. Between two of them the logarithm of the time is linear
    /// in the logarithm of the rows; outside, time is in proportion to the nearest two.
    pub points: Vec<(u32, f64)>,
    /// The same while every other core of the host computes too: cores share caches and memory. Empty
    /// where they do not hold each other up.
    #[serde(default)]
    pub beside: Vec<(u32, f64)>,
}

/// What routed and shared experts take.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertCosts {
    /// Share of the device's memory rate at which weights are read: 0.8 in measurements of others.
    pub bandwidth_share: f64,
    /// For a batch, whatever is in it.
    pub batch_ns: f64,
    /// For each byte of rows and results that a batch copies.
    pub byte_ns: f64,
    /// Measured networks. One that is not here is computed by the roofline of its endpoint's
    /// device: `max(flops / (peak · efficiency), weight bytes / (memory rate · bandwidth_share))`
    /// over the active experts, and the launch cost of each.
    #[serde(default)]
    pub tables: Vec<ExpertTable>,
}

/// A cost profile. Every line is CPU time of one thread unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Name of the profile.
    pub name: String,
    /// Where the figures come from, in a sentence.
    pub origin: String,
    /// What the figures are, unless [`Costs::sources`] says otherwise.
    pub source: Source,
    /// Whether work occupies the cores of its host. Where a device does it, endpoints of a host do
    /// not wait for each other.
    pub on_cores: bool,
    /// What a thread pays that was asleep when its work came: scheduling and cache misses.
    pub wake_ns: f64,
    /// What handing work to the compute pool costs, until it begins.
    pub pool_ns: f64,
    /// How long a thread keeps its core while others wait.
    pub slice_ns: f64,
    /// Waits for a moment end on a grid of this width; timers of this runtime count milliseconds.
    pub timer_ns: f64,
    /// The look at a step's input, for each byte of it (f32). In no phase.
    pub check: Line,
    /// The gate.
    pub gate: GateCost,
    /// Admission, plans of all homes and ledger at the coordinator, for each choice.
    pub plan: Line,
    /// A home's reading of its shard and its plan, for each choice.
    pub shard_plan: Line,
    /// Packing a message, for each byte: until its bytes are in a frame.
    pub pack: Line,
    /// Handing a message to the network, for each byte.
    pub write: Line,
    /// Taking a message from the network, for each byte: until the machine has it.
    pub read: Line,
    /// A message of an endpoint to itself, for each byte.
    pub local: Line,
    /// Finishing a frame of results where it was computed, for each byte.
    pub reply: Line,
    /// A home's combine, its frame included.
    pub combine: CombineCost,
    /// The coordinator's copy of outputs that come back, for each byte.
    pub collect: Line,
    /// Experts.
    pub experts: ExpertCosts,
    /// Sources of single figures, by path: `"gate"`, `"experts.tables"`.
    #[serde(default)]
    pub sources: BTreeMap<String, Source>,
}

// === impl Line ===

impl Line {
    /// `fixed_ns + unit_ns · n`.
    pub const fn new(fixed_ns: f64, unit_ns: f64) -> Self {
        Self { fixed_ns, unit_ns }
    }

    /// Its value at `n`, nanoseconds.
    pub fn ns(&self, n: u64) -> u64 {
        whole(self.fixed_ns + self.unit_ns * float(n))
    }
}

// === impl GateCost ===

impl GateCost {
    /// What `tokens` tokens take whose product has `flops` operations, nanoseconds.
    pub fn ns(&self, tokens: u64, flops: u64) -> u64 {
        whole(self.fixed_ns + self.token_ns * float(tokens) + self.flop_ns * float(flops))
    }

    /// What a product of `flops` operations takes by itself, nanoseconds.
    pub fn product_ns(&self, flops: u64) -> u64 {
        whole(self.flop_ns * float(flops))
    }
}

// === impl CombineCost ===

impl CombineCost {
    /// What adding up `rows` result rows takes that read and write `bytes`, nanoseconds.
    pub fn ns(&self, rows: u64, bytes: u64) -> u64 {
        whole(self.fixed_ns + self.row_ns * float(rows) + self.byte_ns * float(bytes))
    }
}

// === impl Costs ===

impl Costs {
    /// Reads a profile.
    ///
    /// # Errors
    /// [`SimError::Costs`] with the line, the figure, what it holds and what was expected.
    pub fn parse(text: &str) -> Result<Self, SimError> {
        let costs: Self = toml::from_str(text).map_err(|error| check::syntax(text, &error))?;
        check::check(&costs).map_err(|wrong| wrong.told(text))?;
        Ok(costs)
    }

    /// The profile as text that [`Costs::parse`] reads.
    ///
    /// # Errors
    /// [`SimError::Costs`] if a figure has no form in TOML.
    pub fn to_toml(&self) -> Result<String, SimError> {
        toml::to_string(self).map_err(|e| SimError::Costs(e.to_string()))
    }

    /// Checks that every figure is a time.
    ///
    /// # Errors
    /// [`SimError::Costs`] naming the first that is not.
    pub fn validate(&self) -> Result<(), SimError> {
        Ok(check::check(self)?)
    }
}

#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
pub(crate) fn float(n: u64) -> f64 {
    n as f64
}

/// Rounded; a float becomes an integer by saturation.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates"
)]
pub(crate) fn whole(ns: f64) -> u64 {
    (ns + 0.5) as u64
}
