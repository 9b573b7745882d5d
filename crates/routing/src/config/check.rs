//! What no router can have, beside the shape of its selection.

use super::preset::MOST;
use super::{GateNoise, GroupScore, Jitter, Kind, LogitNoise, RouterConfig, at_least};
use crate::error::RoutingError;

// === impl RouterConfig ===

impl RouterConfig {
    /// Rows of the gate's weight: a logit each.
    #[must_use]
    pub fn columns(&self) -> usize {
        match self.kind {
            Kind::Soft {
                slots_per_expert, ..
            } => self.experts.saturating_mul(slots_per_expert),
            _ => self.experts,
        }
    }

    pub(super) fn validate_kind(&self) -> Result<(), RoutingError> {
        let fails = |field, found: String, expected: &str| {
            Err(RoutingError::config(field, found, expected))
        };
        let kind = self.kind;
        if !kind.is_plain() && self.groups.is_some() {
            let expected = format!("none, because {kind} does not choose by groups");
            return Err(RoutingError::config("groups", "group limits", expected));
        }
        let above_0 = "a finite number above 0";
        match kind {
            Kind::SampledSecond | Kind::RandomSecond(_) if self.top_k != 2 => {
                let expected = format!("2, because {kind} has a second expert");
                return Err(RoutingError::config("top_k", self.top_k, expected));
            }
            Kind::NodeLimited { keep: 0, .. } => {
                return fails("kind keep", "0".to_owned(), "at least 1 domain");
            }
            Kind::NodeLimited { by, .. } => by.validate("kind by")?,
            Kind::Sinkhorn { tolerance, .. } => {
                at_least(tolerance, f32::MIN_POSITIVE, "kind tolerance", above_0)?;
            }
            Kind::ExpertChoice { factor } => {
                at_least(factor, f32::MIN_POSITIVE, "kind factor", above_0)?;
            }
            Kind::Soft {
                slots_per_expert,
                scale,
            } => {
                if slots_per_expert == 0 {
                    return fails("kind slots_per_expert", "0".to_owned(), "at least 1");
                }
                if self.columns() > MOST {
                    let (most, experts) = (MOST / self.experts, self.experts);
                    let expected =
                        format!("at most {most}, which makes {MOST} of {experts} experts");
                    return fails(
                        "kind slots_per_expert",
                        slots_per_expert.to_string(),
                        &expected,
                    );
                }
                at_least(
                    scale.unwrap_or(1.0),
                    f32::MIN_POSITIVE,
                    "kind scale",
                    above_0,
                )?;
                if self.noise.logits != LogitNoise::None {
                    let found = format!("{:?}", self.noise.logits);
                    return fails("noise logits", found, "none, because soft has slots");
                }
                if !self.free.is_empty() {
                    let found = self.free.len().to_string();
                    return fails("free experts", found, "none, because soft has slots");
                }
            }
            Kind::Topology { outgoing } if !(0.0..=1.0).contains(&outgoing) => {
                return fails("kind outgoing", outgoing.to_string(), "a share, 0 to 1");
            }
            Kind::ForcedSkew { std } if !std.is_finite() => {
                return fails("kind std", std.to_string(), "a finite number");
            }
            Kind::TopP { p } if !(p > 0.0 && p <= 1.0) => {
                return fails("kind p", p.to_string(), "above 0, at most 1");
            }
            Kind::Threshold { least } if !least.is_finite() => {
                return fails("kind least", least.to_string(), "a finite number");
            }
            _ => {}
        }
        self.noise.validate()?;
        if self.free.len() >= self.experts {
            let expected = format!("fewer than {}, the number of experts", self.experts);
            let found = self.free.len();
            return Err(RoutingError::config("free experts", found, expected));
        }
        Ok(())
    }
}

// === impl GroupScore ===

impl GroupScore {
    pub(super) fn validate(self, field: &'static str) -> Result<(), RoutingError> {
        match self {
            Self::SumTop { n: 0 } => Err(RoutingError::config(
                field,
                "the sum of 0 keys",
                "at least 1",
            )),
            _ => Ok(()),
        }
    }
}

// === impl GateNoise ===

impl GateNoise {
    fn validate(&self) -> Result<(), RoutingError> {
        if let Some(Jitter { eps, .. }) = self.jitter
            && !(eps > 0.0 && eps < 1.0)
        {
            return Err(RoutingError::config("noise jitter", eps, "between 0 and 1"));
        }
        match self.logits {
            LogitNoise::None => Ok(()),
            LogitNoise::Learned { eps } => {
                at_least(eps, 0.0, "noise eps", "a finite number, 0 or more")
            }
            LogitNoise::Normal { scale } => {
                at_least(scale, 0.0, "noise scale", "a finite number, 0 or more")
            }
        }
    }
}
