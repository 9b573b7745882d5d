//! Changing the capacity rule between steps, for whoever compares rules on one cluster.

use std::mem::swap;

use expertmesh_routing::{CapacityConfig, RoutingError};

use crate::connect::Coordinator;

/// A capacity rule and what its steps taught it, while another one is in force.
#[derive(Debug, Clone)]
pub struct CapacityState {
    rule: CapacityConfig,
    /// The capacity that steps grew to, for the policy that grows; 0 for none.
    grown: u64,
}

// === impl CapacityState ===

impl CapacityState {
    /// A rule that no step has run under.
    ///
    /// # Errors
    /// As [`CapacityConfig::validate`].
    pub fn new(rule: CapacityConfig) -> Result<Self, RoutingError> {
        rule.validate()?;
        Ok(Self { rule, grown: 0 })
    }
}

// === impl Coordinator ===

impl Coordinator {
    /// The rule that is in force.
    pub fn capacity(&self) -> &CapacityConfig {
        &self.config.capacity
    }

    /// Puts `other` in force, and what was in force into `other`. No step is under way meanwhile,
    /// as each borrows the coordinator.
    pub fn swap_capacity(&mut self, other: &mut CapacityState) {
        swap(&mut self.config.capacity, &mut other.rule);
        swap(self.decider.grown.get_mut(), &mut other.grown);
    }
}
