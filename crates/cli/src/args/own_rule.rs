//! Flags that a layer with rules of its own cannot take.

use expertmesh_checkpoint::LayerSpec;
use expertmesh_routing::ModelCapacity;

use crate::args::stack::StackArgs;
use crate::args::step::StepArgs;
use crate::error::Failure;

/// Checks the flags against the layer that they are for, before anything is started.
///
/// # Errors
/// [`Failure::Input`] naming the first flag that the layer cannot take, and what would work.
pub(crate) fn check_own_rule(
    spec: &LayerSpec,
    step: &StepArgs,
    stack: &StackArgs,
) -> Result<(), Failure> {
    let family = &spec.family;
    if matches!(spec.capacity, Some(ModelCapacity::Top2 { .. }))
        && let Some(flag) = step.capacity.limits()
    {
        return Err(Failure::input(format!(
            "{flag} is given, expected none with {family}, which normalises its gate weights in a \
             capacity rule of its own; drop {flag}, and that rule applies"
        )));
    }
    let around = [
        ("--depth-capacity", stack.depth_capacity.is_some()),
        ("--exit", stack.exit.is_some()),
    ];
    if spec.capacity.is_some()
        && let Some((flag, _)) = around.iter().find(|(_, given)| *given)
    {
        return Err(Failure::input(format!(
            "{flag} is given, expected none with {family}, whose own capacity rule counts every \
             token; drop {flag}, or take a layer without such a rule: inspect tells"
        )));
    }
    if step.capacity.bias_rate.is_some() && !spec.router.needs().selection_bias {
        return Err(Failure::input(format!(
            "--bias-rate is given, expected none with the gate {}, which selects without a bias; \
             sigmoid-bias, deepseek-v3, deepseek-v4 and longcat have one",
            spec.router.kind
        )));
    }
    Ok(())
}
