//! What a calibration leaves: costs, and how far off they are where they were fitted.

use std::collections::BTreeMap;
use std::path::Path;

use expertmesh_exchange::ExchangeKind;
use expertmesh_simulator::{Costs, Layer, NetworkShape};
use expertmesh_telemetry::Environment;
use expertmesh_topology::Topology;
use serde::{Deserialize, Serialize};

use crate::calibrate::{Domain, ExpertTimes, LayerShape, Point};
use crate::validate::FigureErrors;

/// A calibrated machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Always [`Self::SCHEMA`].
    pub schema: String,
    /// The machine, whose cores the processes shared.
    pub environment: Environment,
    /// Seed of layers and batches.
    pub seed: u64,
    /// What the points are from: predictions beyond it are extrapolated.
    pub domain: Domain,
    /// What work takes on it.
    pub costs: Costs,
    /// Errors of `step` at the measured points, which the costs were fitted to.
    pub error: FigureErrors,
    /// Experts of each layer in a loop, before any fit.
    pub experts: Vec<ExpertTimes>,
    /// The measured points.
    pub points: Vec<PointRecord>,
    /// Latency, ns, and rate, bytes a ns, of this machine's loopback.
    pub loopback: [f64; 2],
    /// What `validate` made of the profile; `None` before it ran.
    pub verdict: Option<Verdict>,
}

/// Largest size in a domain.
const MOST: usize = 1 << 24;

/// Errors at points that the costs were not fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Seeds that the points were drawn by.
    pub holdout_seeds: Vec<u64>,
    /// Errors of `step` over the points of all seeds.
    pub error: FigureErrors,
    /// Whether every gate held for every seed, and every ledger was equal.
    pub passed: bool,
    /// Seeds that failed and have not passed since; an earlier validation's, too.
    pub failed_seeds: Vec<u64>,
}

/// A measured point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointRecord {
    /// What was run.
    pub point: Point,
    /// Medians by figure, µs.
    pub measured_us: BTreeMap<String, f64>,
    /// What the costs make of it, µs.
    pub predicted_us: BTreeMap<String, f64>,
}

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct ProfileError {
    file: String,
    reason: String,
}

// === impl Profile ===

impl Profile {
    /// The schema that this version writes.
    pub const SCHEMA: &str = "expertmesh.profile/2";

    /// Reads a profile.
    ///
    /// # Errors
    /// [`ProfileError`] naming the file, the line and what was expected.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let wrong = |reason: String| ProfileError {
            file: path.display().to_string(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let profile: Self = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("{error}; expected a profile of `calibrate`")))?;
        if profile.schema != Self::SCHEMA {
            let held = &profile.schema;
            return Err(wrong(format!(
                "schema is {held}, expected {}; calibrate again",
                Self::SCHEMA
            )));
        }
        if profile.environment.cores == 0 {
            let held = "environment.cores is 0, expected the cores that the launches had";
            return Err(wrong(held.to_owned()));
        }
        profile.domain.check().map_err(wrong)?;
        let costs = profile.costs.validate();
        costs.map_err(|error| wrong(error.to_string()))?;
        Ok(profile)
    }

    /// The profile as text.
    ///
    /// # Errors
    /// [`ProfileError`] for a figure that JSON cannot hold.
    pub fn to_json(&self) -> Result<String, ProfileError> {
        serde_json::to_string_pretty(self).map_err(|error| ProfileError {
            file: "profile".to_owned(),
            reason: error.to_string(),
        })
    }
}

impl Profile {
    /// The topology of this machine, with the links that were fitted.
    pub fn on_loopback(&self, topology: &mut Topology) {
        set_loopback(topology, &self.loopback);
    }
}

/// Puts latency and rate of a loopback into a topology.
#[allow(clippy::cast_sign_loss, reason = "what is cast is not below 0")]
pub fn set_loopback(topology: &mut Topology, loopback: &[f64]) {
    if let [latency_ns, bytes_per_ns] = loopback {
        topology.tiers.host.latency_ns = latency_ns.max(0.0) as u64;
        topology.tiers.host.bytes_per_ns = bytes_per_ns.max(1e-6);
    }
}

// === impl Verdict ===

impl Verdict {
    /// Fewer points say little of nine in ten.
    pub const FEWEST_POINTS: usize = 12;

    /// This verdict after an earlier one: a seed that failed stays red until it is validated again.
    #[must_use]
    pub fn after(mut self, earlier: Option<&Self>) -> Self {
        let open = earlier.map(|one| match one.failed_seeds.is_empty() && !one.passed {
            true => &one.holdout_seeds,
            false => &one.failed_seeds,
        });
        for seed in open.into_iter().flatten() {
            if !self.holdout_seeds.contains(seed) {
                self.failed_seeds.push(*seed);
            }
        }
        self.passed &= self.failed_seeds.is_empty();
        self
    }

    /// Why figures are extrapolated in spite of this verdict, if they are.
    pub fn lock(&self) -> Option<String> {
        if !self.passed {
            let seeds = self.failed_seeds.iter().map(u64::to_string);
            let seeds = seeds.collect::<Vec<_>>().join(", ");
            return Some(format!("the profile failed its validation (seed {seeds})"));
        }
        (self.error.points < Self::FEWEST_POINTS).then(|| {
            let (points, fewest) = (self.error.points, Self::FEWEST_POINTS);
            format!(
                "the profile was validated at too few points ({points}, expected {fewest} or more)"
            )
        })
    }
}

// === impl Domain ===

impl Domain {
    /// Whether it is a domain.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn check(&self) -> Result<(), String> {
        for (name, (low, high)) in [("workers", self.workers), ("tokens", self.tokens)] {
            if low == 0 || low > high || high > MOST {
                return Err(format!(
                    "domain.{name} is [{low}, {high}], expected two rising numbers from 1 to {MOST}"
                ));
            }
        }
        let is_shape = |one: &LayerShape| {
            let sizes = [one.experts, one.top_k, one.hidden, one.ffn];
            one.top_k <= one.experts && sizes.iter().all(|size| (1..=MOST).contains(size))
        };
        if self.shapes.is_empty() || !self.shapes.iter().all(is_shape) {
            let expected = "at least one layer whose sizes are above 0 and whose top_k is at most \
                            its experts";
            return Err(format!(
                "domain.shapes is no list of layers, expected {expected}"
            ));
        }
        let is_kind = |name: &String| name.parse::<ExchangeKind>().is_ok();
        if self.exchanges.is_empty() || !self.exchanges.iter().all(is_kind) {
            let held = self.exchanges.join(", ");
            return Err(format!(
                "domain.exchanges is [{held}], expected names of exchanges"
            ));
        }
        if self.links.is_empty() {
            return Err("domain.links is empty, expected at least null, the loopback".to_owned());
        }
        Ok(())
    }

    /// Why a step of `layer` lies outside, if it does.
    pub fn outside(
        &self,
        workers: usize,
        tokens: usize,
        layer: &Layer,
        exchange: ExchangeKind,
    ) -> Option<String> {
        let range = |what: &str, held: usize, (low, high): (usize, usize)| {
            (!(low..=high).contains(&held))
                .then(|| format!("{what} is {held}, calibrated from {low} to {high}"))
        };
        let exchange = exchange.to_string();
        let other = || {
            let known = self.exchanges.join(" and ");
            format!("exchange is {exchange}, calibrated with {known}")
        };
        range("workers", workers, self.workers)
            .or_else(|| range("tokens", tokens, self.tokens))
            .or_else(|| (!self.exchanges.contains(&exchange)).then(other))
            .or_else(|| self.other_layer(layer))
    }

    /// What `layer` has that no calibrated one has.
    fn other_layer(&self, layer: &Layer) -> Option<String> {
        let shape = LayerShape {
            experts: layer.experts,
            top_k: layer.top_k,
            hidden: layer.hidden,
            ffn: layer.expert.ffn,
        };
        let Some(known) = self.shapes.iter().find(|one| **one == shape) else {
            let shapes = self.shapes.iter().map(LayerShape::to_string);
            let known = shapes.collect::<Vec<_>>().join(", ");
            return Some(format!("the layer is {shape}, calibrated with {known}"));
        };
        let expert = known.expert();
        let plain = layer.expert == NetworkShape::of(&expert)
            && (layer.wire, layer.dtype) == (expert.dtype, expert.dtype)
            && layer.free_experts == 0
            && layer.latent.is_none()
            && layer.shared.is_none();
        (!plain).then(|| {
            format!(
                "experts or formats are others than {} alone in {}, which were calibrated",
                expert.kind, expert.dtype
            )
        })
    }
}
