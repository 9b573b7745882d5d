//! What is fixed of a layer when a session is configured, checked.

use std::sync::Arc;

use expertmesh_exchange::{Groups, HostTable, Limits, OnLoss};
use expertmesh_kernels::Format;
use expertmesh_wire::{format_from_wire, v1};

use crate::control::Loaded;
use crate::error::WorkerError;
use crate::session::Layer;

/// The layer that `request` configures, of which this worker has `loaded` its part.
pub(crate) fn layer(
    request: &v1::ConfigureRequest,
    loaded: Loaded,
    max_message_bytes: usize,
) -> Result<Layer, WorkerError> {
    let names: Arc<[String]> = request
        .endpoints
        .iter()
        .map(|endpoint| endpoint.name.clone())
        .collect();
    let endpoints = u32::try_from(names.len()).unwrap_or(u32::MAX);
    if request.endpoint == 0 || request.endpoint >= endpoints {
        let expected = format!("a worker's id, 1 to {}", endpoints.saturating_sub(1));
        return Err(WorkerError::field("endpoint", request.endpoint, expected));
    }
    for (expert, one) in request.placement.iter().enumerate() {
        let known = |host: &u32| (1..endpoints).contains(host);
        if one.endpoints.is_empty() || !one.endpoints.iter().all(known) {
            let held = format!("expert {expert} on endpoints {:?}", one.endpoints);
            let expected = "at least one worker's id, and no other";
            return Err(WorkerError::field("placement", held, expected));
        }
    }
    let of = request.placement.iter().map(|one| &one.endpoints);
    let mut table = HostTable::from_replicas(of, endpoints).with_free(loaded.home.free());
    if let Some(groups) = groups(request, names.len() - 1)? {
        table = table.with_groups(groups);
    }
    let chunk_bytes = usize::try_from(request.chunk_bytes).unwrap_or(usize::MAX);
    let hidden = u32::try_from(loaded.hidden).unwrap_or(u32::MAX);
    Ok(Layer {
        session: request.session,
        epoch: request.epoch,
        me: request.endpoint,
        names,
        hidden,
        rule: loaded.rule,
        limits: Limits {
            row_bytes: loaded.hidden * loaded.rule.row_format.bytes(),
            chunk_bytes,
            row_per_choice: loaded.rule.weight_on_input,
        },
        credits: request.credits as usize,
        max_message_bytes,
        on_loss: match request.on_loss() {
            v1::OnLoss::Drop => OnLoss::Drop,
            v1::OnLoss::Fail | v1::OnLoss::Unspecified => OnLoss::Fail,
        },
        table,
        experts: loaded.experts,
        home: loaded.home,
    })
}

/// Who stands together, if rows are relayed.
fn groups(request: &v1::ConfigureRequest, workers: usize) -> Result<Option<Groups>, WorkerError> {
    let expected = match request.exchange() {
        v1::ExchangeKind::Hierarchical => workers,
        _ => 0,
    };
    if request.groups.len() != expected {
        let held = format!("{} entries", request.groups.len());
        let expected = format!("{expected}: one a worker in hierarchical, else none");
        return Err(WorkerError::field("groups", held, expected));
    }
    if expected == 0 {
        return Ok(None);
    }
    let groups = Groups::new(request.groups.clone());
    let wrong = |held| WorkerError::field("groups", held, "groups counted from 0");
    groups.map(Some).map_err(wrong)
}

/// A number format by its name in the protocol.
pub(crate) fn format(value: i32, name: &'static str) -> Result<Format, WorkerError> {
    format_from_wire(value).ok_or_else(|| WorkerError::field(name, value, "1 (f32) or 2 (bf16)"))
}
