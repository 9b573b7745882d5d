//! The auxiliary losses of a step, from its logits and choices.

use expertmesh_kernels::Format;
use expertmesh_routing::Route;
use expertmesh_routing::RoutingError;
use expertmesh_routing::loss::{
    LossInput, Probability, gshard_loss, importance_loss, load_balancing_loss, masked_z_loss,
    sequence_loss, switch_load_balancing_loss, switch_loss, z_loss,
};

/// Losses by name, without their coefficients; those with `_masked` count the tokens of
/// `attention` alone. None where the gate made no logits to look at.
///
/// # Errors
/// What a loss refuses of a route that contradicts itself.
pub(super) fn losses(
    route: &Route,
    attention: Option<&[bool]>,
    sequence: usize,
    dtype: Format,
) -> Result<Vec<(&'static str, f64)>, RoutingError> {
    let (experts, top_k) = (route.experts_total, route.top_k);
    if route.logits.is_empty() {
        return Ok(Vec::new());
    }
    let mut losses = vec![("z_loss", z_loss(&route.logits, experts)?)];
    // Gates whose tokens differ in their number of choices have no k to speak of.
    if route.offsets.is_some() {
        return Ok(losses);
    }
    let input = LossInput {
        logits: &route.logits,
        tokens: route.tokens,
        experts,
        top_k,
        chosen: &route.experts,
        weights: &route.weights,
        attention_mask: None,
        sequence,
        probability: Probability::Softmax,
    };
    let pooled = |mask| load_balancing_loss(&[&route.logits], experts, top_k, mask, dtype);
    losses.push(("load_balancing_loss", pooled(None)?));
    losses.push(("switch_loss", switch_loss(&input)?));
    losses.push(("sequence_loss", sequence_loss(&input)?));
    let grouped = switch_load_balancing_loss(&input)?;
    losses.push(("switch_load_balancing_loss", grouped));
    losses.push(("gshard_loss", gshard_loss(&input)?));
    losses.push(("importance_loss", importance_loss(&input)?));
    if attention.is_some() {
        let masked = LossInput {
            attention_mask: attention,
            ..input
        };
        losses.push(("load_balancing_loss_masked", pooled(attention)?));
        losses.push(("switch_loss_masked", switch_loss(&masked)?));
        losses.push(("z_loss_masked", masked_z_loss(&masked)?));
    }
    Ok(losses)
}
