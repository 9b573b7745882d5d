//! What work takes: a few lines, each fitted or taken from a source.
//!
//! A [`Costs`] is a cost profile, written and read as TOML. `calibrate` fits one to a cluster; the
//! presets stand for machines that are not at hand. Links are not in it: latency, rates and
//! per-message overhead of the network come from the topology.

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

/// The gate over a batch: `fixed_ns + token_ns · T + flop_ns · 2·T·H·E`.
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

/// A thousand seconds: what takes longer is a mistake, and sums of it leave the clock's range.
const MOST_NS: f64 = 1e12;
/// Threads that take turns more often do nothing else.
const LEAST_SLICE_NS: f64 = 1000.0;

// === impl GateCost ===

impl GateCost {
    /// What `tokens` tokens take whose product has `flops` operations, nanoseconds.
    pub fn ns(&self, tokens: u64, flops: u64) -> u64 {
        whole(self.fixed_ns + self.token_ns * float(tokens) + self.flop_ns * float(flops))
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
    /// The source of the figure at `path`, or of what it is part of.
    pub fn source_of(&self, path: &str) -> Source {
        let mut part = path;
        loop {
            if let Some(source) = self.sources.get(part) {
                return *source;
            }
            match part.rsplit_once('.') {
                Some((outer, _)) => part = outer,
                None => return self.source,
            }
        }
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// [`SimError::Costs`] with the line that is wrong, or a figure that is negative or no number.
    pub fn parse(text: &str) -> Result<Self, SimError> {
        let costs: Self = toml::from_str(text).map_err(|e| SimError::Costs(e.to_string()))?;
        costs.validate()?;
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
        let lines = [
            ("check", self.check),
            ("plan", self.plan),
            ("shard_plan", self.shard_plan),
            ("pack", self.pack),
            ("write", self.write),
            ("read", self.read),
            ("local", self.local),
            ("reply", self.reply),
            ("collect", self.collect),
            ("wake_ns and pool_ns", Line::new(self.wake_ns, self.pool_ns)),
            (
                "slice_ns and timer_ns",
                Line::new(self.slice_ns, self.timer_ns),
            ),
            ("gate", Line::new(self.gate.fixed_ns, self.gate.token_ns)),
            ("gate.flop_ns", Line::new(0.0, self.gate.flop_ns)),
            (
                "combine",
                Line::new(self.combine.fixed_ns, self.combine.row_ns),
            ),
            ("combine.byte_ns", Line::new(0.0, self.combine.byte_ns)),
            (
                "experts",
                Line::new(self.experts.batch_ns, self.experts.byte_ns),
            ),
            (
                "experts.bandwidth_share",
                Line::new(0.0, self.experts.bandwidth_share),
            ),
        ];
        let is_time = |value: f64| (0.0..=MOST_NS).contains(&value);
        for (name, line) in lines {
            if !(is_time(line.fixed_ns) && is_time(line.unit_ns)) {
                let held = format!("{} and {}", line.fixed_ns, line.unit_ns);
                let reason = format!("{name} is {held}, expected 0 to {MOST_NS:e} nanoseconds");
                return Err(SimError::Costs(reason));
            }
        }
        if self.on_cores && self.slice_ns < LEAST_SLICE_NS {
            let held = self.slice_ns;
            let reason = format!("slice_ns is {held}, expected at least {LEAST_SLICE_NS}");
            return Err(SimError::Costs(reason));
        }
        if self.experts.bandwidth_share <= 0.0 || self.experts.bandwidth_share > 1.0 {
            let held = self.experts.bandwidth_share;
            let reason =
                format!("experts.bandwidth_share is {held}, expected above 0 and at most 1");
            return Err(SimError::Costs(reason));
        }
        self.experts
            .tables
            .iter()
            .try_for_each(ExpertTable::validate)
    }
}

// === impl ExpertTable ===

impl ExpertTable {
    fn validate(&self) -> Result<(), SimError> {
        let good = |points: &[(u32, f64)]| {
            let rising = points.windows(2).all(|pair| pair[0].0 < pair[1].0);
            let mut all = points.iter();
            rising && all.all(|(rows, ns)| *rows > 0 && *ns > 0.0 && *ns <= MOST_NS)
        };
        if good(&self.points) && good(&self.beside) && !self.points.is_empty() {
            return Ok(());
        }
        let of = format!("hidden {}, ffn {}", self.hidden, self.ffn);
        Err(SimError::Costs(format!(
            "experts.tables of {of} has {} points, expected at least one, rows rising from 1, times \
             above 0",
            self.points.len()
        )))
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
