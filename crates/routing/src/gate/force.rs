//! A gate whose choices are somebody else's.

use super::Gate;
use crate::{
    config::{Kind, RouterConfig},
    error::RoutingError,
};

// === impl Gate ===

impl Gate {
    /// The same gate with choices that are forced: [`Kind::Replay`], [`Kind::ForcedBalance`] or
    /// [`Kind::ForcedSkew`]. Its tensors stay, so logits, scores and the weights of given experts
    /// are what they were; group limits go where the logits no longer choose.
    ///
    /// # Errors
    /// Another kind, and a gate of [`Kind::Soft`], which makes no choices that could be forced.
    pub fn with_kind(self, kind: Kind) -> Result<Self, RoutingError> {
        let before = self.config().kind;
        if let Kind::Soft { .. } = before {
            let expected = format!("a gate that makes choices, to be forced to {kind}");
            return Err(RoutingError::config("kind", before, expected));
        }
        let groups = match kind {
            Kind::Replay | Kind::ForcedBalance => None,
            Kind::ForcedSkew { .. } => self.config().groups,
            _ => {
                let expected = "replay, forced-balance or forced-skew, which any gate can have";
                return Err(RoutingError::config("forced kind", kind, expected));
            }
        };
        let config = RouterConfig {
            kind,
            groups,
            ..self.config().clone()
        };
        let Self {
            weight,
            bias,
            selector,
            tensors,
        } = self;
        Ok(Self {
            selector: selector.reconfigured(config)?,
            weight,
            bias,
            tensors,
        })
    }
}
