//! The report's data model: schema `expertmesh.report/1`, field for field.
//!
//! Fields may be added, never renamed; readers ignore keys that they do not know. A figure that
//! does not apply to a run is `null`, except `floor`, whose key is absent unless a bench measured
//! it.

mod balance;
mod choice;
mod communication;
mod emulated;
mod latency;
mod overflow;
#[cfg(test)]
mod tests;

pub use balance::Balance;
pub use choice::ExchangeChoice;
pub use communication::Communication;
pub use latency::LatencyUs;
pub(crate) use overflow::check_conservation;
pub use overflow::{ExpertOverflow, OverflowEvents, OverflowReport};

use crate::names::named_enum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The schema that this version writes.
pub const SCHEMA: &str = "expertmesh.report/1";

/// Everything that a command measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Where the runs took place.
    pub environment: Environment,
    /// One entry for each configuration of a sweep.
    pub runs: Vec<Run>,
}

/// The machine and the software, as far as they move a figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of expertmesh.
    pub version: String,
    /// Cores that the process may use.
    pub cores: u32,
    /// Compute kernel that multiplied, for example `avx512f` or `avx2+fma`.
    pub kernel: String,
    /// What lay between the endpoints.
    pub network: Network,
    /// The topology whose links were emulated or simulated, and how far time was stretched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// Operating system and its release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Processor model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
}

named_enum! {
    /// What lay between the endpoints of a run.
    pub enum Network ("network") {
        /// One machine: loopback TCP or Unix sockets.
        Loopback = "loopback",
        /// Links of a topology file between real processes.
        Emulated = "emulated",
        /// Links of a topology file that nothing passed: a simulation.
        Simulated = "simulated",
        /// Several machines.
        Real = "real",
    }
}

/// One configuration, run once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Where it took place, where that is not where its report did: several reports in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// What was run.
    pub identity: Identity,
    /// Why it has this exchange, where a cost model chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange_choice: Option<ExchangeChoice>,
    /// How steps were offered.
    pub load: Load,
    /// How long they took.
    pub latency_us: LatencyUs,
    /// What they moved.
    pub communication: Communication,
    /// What became of the gate's choices.
    pub overflow: OverflowReport,
    /// How evenly the gate and the placement spread the work.
    pub balance: Balance,
    /// Auxiliary losses by name, mean over steps.
    #[serde(default)]
    pub losses: BTreeMap<String, f64>,
    /// Where figures come from, by path, for example `latency_us.step`. An entry holds for every
    /// figure below its path that has no entry of its own.
    #[serde(default)]
    pub source: BTreeMap<String, Source>,
    /// Confidence bands of figures, by path: `[low, high]` in the figure's unit.
    #[serde(default)]
    pub bands: BTreeMap<String, [f64; 2]>,
    /// SHA-256 over the little-endian f32 outputs in step and token order, hex; `None` where no
    /// outputs were made.
    pub digest: Option<String>,
}

/// What was run: equal identities promise equal digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Seed of everything random.
    pub seed: u64,
    /// Model family or directory, and layer.
    pub model: String,
    /// Dimensions of the layer and the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// SHA-256 of the placement, hex.
    pub placement_digest: String,
    /// Where the tokens came from.
    pub workload: String,
    /// Who trades rows with whom.
    pub exchange: ExchangeKind,
    /// `[workers]` the group of each, where the exchange has groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    /// Where expert results are added up.
    pub combine: CombineKind,
    /// Workers.
    pub workers: u32,
    /// Names of the endpoints, in the order of `matrix_bytes`: the coordinator, then workers.
    pub endpoints: Vec<String>,
    /// Numerics class: formats and kernel family, for example `fma-chain/2`.
    pub numerics: String,
}

/// Dimensions of the layer and of a step's batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Token rows of a step.
    pub tokens: u64,
    /// Elements of a token row.
    pub hidden: u64,
    /// Elements of an expert's inner row; 0 for identity experts.
    pub ffn: u64,
    /// Experts of the layer.
    pub experts: u64,
    /// Choices of a token.
    pub top_k: u64,
    /// Expert network: `swiglu`, `mlp` or `identity`.
    pub expert: String,
    /// Number format of weights and activations.
    pub dtype: String,
    /// Number format of rows on the wire.
    pub wire_dtype: String,
}

named_enum! {
    /// Who trades rows with whom.
    pub enum ExchangeKind ("exchange") {
        /// The coordinator with every worker.
        Star = "star",
        /// Every worker is home to a shard of the tokens and trades rows with its peers.
        AllToAll = "all-to-all",
        /// As all-to-all, but a row goes to each group of workers once, and is passed on inside it.
        Hierarchical = "hierarchical",
    }
}

named_enum! {
    /// Where the results of a token's experts are added up.
    pub enum CombineKind ("combine") {
        /// At the token's home, in slot order: the same bits for any placement.
        Exact = "exact",
        /// Partial sums on workers: fewer bytes, bits that depend on the placement.
        Partial = "partial",
    }
}

/// How steps were offered and whether the generator kept its schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Closed loop or open schedule.
    pub mode: LoadMode,
    /// Steps a second that the schedule asked for; `None` in a closed loop, which asks for none.
    pub offered_per_s: Option<f64>,
    /// Steps a second that ended; `None` when no time passed.
    pub achieved_per_s: Option<f64>,
    /// The furthest that the generator fell behind its schedule, µs; `None` in a closed loop.
    pub max_lag_us: Option<f64>,
    /// Recorded steps.
    pub steps: u64,
    /// Steps before them that no figure counts.
    pub warmup_steps: u64,
}

named_enum! {
    /// What starts the next step.
    pub enum LoadMode ("load mode") {
        /// The end of the step before. Stalls hide: latency counts from the actual start.
        Closed = "closed",
        /// A schedule. Latency counts from the time at which the step should have begun.
        Open = "open",
    }
}

named_enum! {
    /// Where a number comes from.
    pub enum Source ("source") {
        /// Counted or timed in this run, on real links.
        Measured = "measured",
        /// Timed in this run, on links that the software slowed down.
        Emulated = "emulated",
        /// Computed by a cost model within the range in which it was calibrated.
        Calibrated = "calibrated",
        /// Computed by a cost model outside that range.
        Extrapolated = "extrapolated",
        /// Computed from published figures of hardware that was never at hand.
        Preset = "preset",
    }
}

// === impl Report ===

impl Report {
    /// A report of this schema without runs.
    pub fn new(environment: Environment) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            environment,
            runs: Vec::new(),
        }
    }

    /// Where `run`, one of its runs, took place.
    pub fn environment_of<'a>(&'a self, run: &'a Run) -> &'a Environment {
        run.environment.as_ref().unwrap_or(&self.environment)
    }

    /// Adds the runs of `other`, each of which keeps its environment.
    pub fn extend(&mut self, other: Report) {
        let Report {
            environment, runs, ..
        } = other;
        self.runs.extend(runs.into_iter().map(|mut run| {
            let own = run.environment.take();
            let own = own.unwrap_or_else(|| environment.clone());
            run.environment = (own != self.environment).then_some(own);
            run
        }));
    }

    /// The report of run number `at` alone; `None` where there are fewer.
    #[must_use]
    pub fn only(&self, at: usize) -> Option<Report> {
        let mut run = self.runs.get(at)?.clone();
        let own = run.environment.take();
        let mut report = Report::new(own.unwrap_or_else(|| self.environment.clone()));
        report.runs.push(run);
        Some(report)
    }

    /// Path of the first figure that is NaN or infinite, which JSON cannot hold.
    pub fn non_finite(&self) -> Option<String> {
        self.runs
            .iter()
            .enumerate()
            .find_map(|(index, run)| Some(format!("runs[{index}].{}", run.non_finite()?)))
    }
}

// === impl Load ===

impl Load {
    /// A closed loop of `steps` recorded steps that took `elapsed_s` seconds in all.
    pub fn closed(steps: u64, warmup_steps: u64, elapsed_s: f64) -> Self {
        let achieved_per_s = (elapsed_s > 0.0).then(|| steps as f64 / elapsed_s);
        Self {
            mode: LoadMode::Closed,
            offered_per_s: None,
            achieved_per_s,
            max_lag_us: None,
            steps,
            warmup_steps,
        }
    }

    /// The same under a schedule of `offered_per_s`, at most `max_lag_us` behind it.
    pub fn open(
        steps: u64,
        warmup_steps: u64,
        elapsed_s: f64,
        offered_per_s: f64,
        max_lag_us: f64,
    ) -> Self {
        Self {
            mode: LoadMode::Open,
            offered_per_s: Some(offered_per_s),
            max_lag_us: Some(max_lag_us),
            ..Self::closed(steps, warmup_steps, elapsed_s)
        }
    }
}

// === impl Run ===

impl Run {
    /// Source of the figure at `path`: its own entry, or that of the closest path above it.
    pub fn source_of(&self, path: &str) -> Option<Source> {
        let mut path = path;
        loop {
            if let Some(source) = self.source.get(path) {
                return Some(*source);
            }
            path = path.rsplit_once('.')?.0;
        }
    }

    /// Path of the first figure that is NaN or infinite, which JSON cannot hold.
    pub fn non_finite(&self) -> Option<String> {
        let Load {
            offered_per_s,
            achieved_per_s,
            max_lag_us,
            ..
        } = &self.load;
        let load = [
            ("load.offered_per_s", *offered_per_s),
            ("load.achieved_per_s", *achieved_per_s),
            ("load.max_lag_us", *max_lag_us),
        ];
        let bad = |value: f64| !value.is_finite();
        first_bad(load)
            .or_else(|| self.latency_us.non_finite())
            .or_else(|| self.communication.non_finite())
            .or_else(|| self.overflow.non_finite())
            .or_else(|| self.balance.non_finite())
            .or_else(|| {
                let (name, _) = self.losses.iter().find(|(_, value)| bad(**value))?;
                Some(format!("losses.{name}"))
            })
            .or_else(|| {
                let (path, _) = self
                    .bands
                    .iter()
                    .find(|(_, band)| band.iter().any(|b| bad(*b)))?;
                Some(format!("bands.{path}"))
            })
            .or_else(|| {
                let predicted = &self.exchange_choice.as_ref()?.predicted_us;
                let (name, _) = predicted.iter().find(|(_, value)| bad(**value))?;
                Some(format!("exchange_choice.predicted_us.{name}"))
            })
    }
}

/// Path of the first value that is NaN or infinite.
fn first_bad<'a>(figures: impl IntoIterator<Item = (&'a str, Option<f64>)>) -> Option<String> {
    figures
        .into_iter()
        .find(|(_, value)| value.is_some_and(|value| !value.is_finite()))
        .map(|(path, _)| path.to_owned())
}
