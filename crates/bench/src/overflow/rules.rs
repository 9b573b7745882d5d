//! Which rules are compared, and which of them may not change an output.

use expertmesh_routing::{CapacityConfig, Overflow, OverflowLedger, WeightRule};

/// Every policy but dropless under each of the `factors`, and drop-position once more with the
/// kept gate weights of a token divided by their sum; everything else as in `base`.
pub fn every_policy(base: &CapacityConfig, factors: &[f64]) -> Vec<CapacityConfig> {
    let mut rules = Vec::new();
    for overflow in Overflow::ALL {
        let mut weights = vec![base.weights];
        if overflow == Overflow::Dropless {
            continue;
        }
        if overflow == Overflow::DropPosition && base.weights != WeightRule::Renormalise {
            weights.push(WeightRule::Renormalise);
        }
        for weights in weights {
            rules.extend(factors.iter().map(|factor| CapacityConfig {
                factor: Some(*factor),
                eval_factor: None,
                overflow,
                weights,
                ..*base
            }));
        }
    }
    rules
}

/// The policy as reports name it, its rule for gate weights behind a `+` where they are not kept.
pub fn policy_name(rule: &CapacityConfig) -> String {
    match rule.weights {
        WeightRule::Keep => rule.overflow.to_string(),
        weights => format!("{}+{weights}", rule.overflow),
    }
}

/// Whether a step that `ledger` counts must have the bits of dropless: every choice was computed
/// by an expert with the gate's weights, and its weight is the gate's. Another replica of an
/// expert counts as that expert.
pub fn must_be_exact(rule: &CapacityConfig, ledger: &OverflowLedger) -> bool {
    let totals = ledger.totals();
    let elsewhere = rule.overflow == Overflow::Reroute && totals.rerouted > 0;
    let reweighted = rule.weights == WeightRule::Renormalise;
    totals.dropped == 0 && totals.lost == 0 && !elsewhere && !reweighted
}
