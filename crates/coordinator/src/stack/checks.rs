//! What layers must have in common to be a stack.

use expertmesh_routing::ExitGate;

use super::Stack;
use crate::config::CoordinatorConfig;
use crate::error::CoordinatorError;
use crate::input::StepInput;

/// Checks the layers of a stack against each other.
pub(super) fn check(
    layers: &[&CoordinatorConfig],
    residual: bool,
    exit: Option<&ExitGate>,
) -> Result<(), CoordinatorError> {
    let Some((first, others)) = layers.split_first() else {
        return Err(CoordinatorError::field("layers", 0, "at least 1 layer"));
    };
    let spec = first.source.spec();
    for other in others {
        let its = other.source.spec();
        for (field, held, expected) in [
            ("hidden", its.hidden, spec.hidden),
            ("experts", its.experts, spec.experts),
            ("top_k", its.top_k, spec.top_k),
        ] {
            if held != expected {
                let held = format!("{held} in layer {}", its.layer);
                let expected = format!("{expected}, as in layer {}", spec.layer);
                return Err(CoordinatorError::field(field, held, expected));
            }
        }
        if its.router.dtype != spec.router.dtype {
            let held = format!("{} in layer {}", its.router.dtype, its.layer);
            let expected = format!("{}, as in layer {}", spec.router.dtype, spec.layer);
            return Err(CoordinatorError::field("dtype", held, expected));
        }
        if other.workers != first.workers {
            let held = other.workers.join(",");
            let expected = format!("{}, those of the first layer", first.workers.join(","));
            return Err(CoordinatorError::field("workers", held, expected));
        }
    }
    if !residual && layers.len() > 1 && layers.iter().any(|layer| layer.depth.is_some()) {
        return Err(CoordinatorError::field(
            "residual",
            false,
            "true for a stack with a layer that tokens may skip: it carries them past it",
        ));
    }
    match exit {
        Some(exit) if exit.hidden() != spec.hidden => {
            let expected = format!("{}, the layers'", spec.hidden);
            Err(CoordinatorError::field(
                "exit hidden",
                exit.hidden(),
                expected,
            ))
        }
        _ => Ok(()),
    }
}

// === impl Stack ===

impl Stack {
    pub(super) fn check_input(&self, input: &StepInput) -> Result<(), CoordinatorError> {
        let layers = self.layers.len();
        if layers > 1 && input.replay.is_some() {
            let held = "the choices of one layer";
            let expected = format!("none for a stack of {layers} layers");
            return Err(CoordinatorError::field("replay", held, expected));
        }
        Ok(())
    }
}
