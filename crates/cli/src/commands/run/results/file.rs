//! The output file of a step.

use std::path::Path;

use expertmesh_checkpoint::{CheckpointError, NamedTensor, TensorData, write};
use expertmesh_coordinator::RoutingTables;

/// Writes `output` of `shape`, the routing tables and the losses.
///
/// # Errors
/// [`CheckpointError::Io`] if the file cannot be written.
pub(super) fn save(
    path: &Path,
    shape: &[usize],
    output: &[f32],
    tables: &RoutingTables,
    aux: &[(&'static str, f64)],
) -> Result<(), CheckpointError> {
    let route = &tables.route;
    // Experts and tokens are below 2³¹: no tensor of so many rows fits a message.
    let index = |value: u32| value.cast_signed();
    let chosen: Vec<i32> = route.experts.iter().map(|expert| index(*expert)).collect();
    let executed = tables.executed.iter();
    let executed: Vec<i32> = executed.map(|one| one.map_or(-1, index)).collect();
    let fates: Vec<u8> = tables.fates.iter().map(|fate| u8::from(*fate)).collect();
    let mut tokens: Vec<i32> = Vec::new();
    if route.offsets.is_some() {
        for (token, number) in (0..route.tokens).zip(0i32..) {
            tokens.extend(route.choices_of(token).map(|_| number));
        }
    }
    let tensor = |name, shape, data| NamedTensor { name, shape, data };
    let mut tensors = vec![tensor("output", shape.to_vec(), TensorData::F32(output))];
    let weights = TensorData::F32(&tables.combine_weights);
    if let Some(slots) = &tables.slots {
        let shape = vec![slots.dispatch.len() / slots.slots.max(1), slots.slots];
        tensors.push(tensor(
            "dispatch",
            shape.clone(),
            TensorData::F32(&slots.dispatch),
        ));
        tensors.push(tensor("combine", shape, TensorData::F32(&slots.combine)));
    } else {
        let scores = vec![route.tokens, route.experts_total];
        tensors.push(tensor(
            "router_logits",
            scores,
            TensorData::F32(&route.logits),
        ));
        let (names, shape) = if route.offsets.is_some() {
            let choices = vec![chosen.len()];
            tensors.push(tensor(
                "choice_token",
                choices.clone(),
                TensorData::I32(&tokens),
            ));
            let names = [
                "choice_expert",
                "choice_executed",
                "choice_weight",
                "choice_fate",
            ];
            (names, choices)
        } else {
            let names = ["topk_index", "executed_expert", "topk_weight", "fate"];
            (names, vec![route.tokens, route.top_k])
        };
        tensors.push(tensor(names[0], shape.clone(), TensorData::I32(&chosen)));
        tensors.push(tensor(names[1], shape.clone(), TensorData::I32(&executed)));
        tensors.push(tensor(names[2], shape.clone(), weights));
        tensors.push(tensor(names[3], shape, TensorData::U8(&fates)));
    }
    let aux: Vec<(String, [f32; 1])> = aux
        .iter()
        .map(|(name, value)| (format!("aux.{name}"), [*value as f32]))
        .collect();
    tensors.extend(
        aux.iter()
            .map(|(name, value)| tensor(name.as_str(), Vec::new(), TensorData::F32(value))),
    );
    write(path, &tensors)
}
