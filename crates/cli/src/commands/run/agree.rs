//! Flags of `run` against a cluster that is up.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use expertmesh_exchange::Groups;
use expertmesh_wire::{format_from_wire, v1};
use v1::model_source::Source;

use crate::args::model::ModelArgs;
use crate::args::step::StepArgs;
use crate::args::values::Wait;

/// Checks that every flag that was given says what `cluster` does.
///
/// # Errors
/// A sentence naming the first flag that does not, what it holds and what the cluster has; also
/// for a flag whose value a cluster does not tell.
pub(super) fn agree(
    model: &ModelArgs,
    step: &StepArgs,
    cluster: &v1::ClusterReply,
) -> Result<(), String> {
    agree_on_model(model, cluster)?;
    agree_on_step(step, cluster)?;
    agree_on_placement(model, step, cluster)
}

fn agree_on_model(args: &ModelArgs, cluster: &v1::ClusterReply) -> Result<(), String> {
    let model = cluster.model.as_ref();
    let source = model.and_then(|model| model.source.as_ref());
    let (checkpoint, synthetic) = match source {
        Some(Source::Checkpoint(from)) => (Some(from), None),
        Some(Source::Synthetic(spec)) => (None, Some(spec)),
        Some(Source::Custom(_)) | None => (None, None),
    };
    if let Some(directory) = &args.model {
        let there = checkpoint.map(|from| from.directory.as_str());
        let same = there.is_some_and(|there| is_same(directory, Path::new(there)));
        same_if(same, "model", directory.display(), there)?;
    }
    same("layer", args.layer, checkpoint.map(|from| from.layer))?;
    let held = cluster.experts.saturating_sub(cluster.free_experts);
    same("experts", args.experts, Some(held as usize))?;
    same("top-k", args.top_k, Some(cluster.top_k as usize))?;
    same("hidden", args.hidden, Some(cluster.hidden as usize))?;
    same("ffn", args.ffn, synthetic.map(|spec| spec.ffn as usize))?;
    let kind = synthetic.and_then(|spec| spec.expert.parse().ok());
    same("expert", args.expert, kind)?;
    same("gate", args.gate.as_ref().map(|_| "given"), None)?;
    if let Some(spec) = synthetic {
        same("seed", args.seed, Some(spec.seed))?;
    }
    let dtype = model.and_then(|model| format_from_wire(model.dtype));
    same("dtype", args.dtype, dtype)
}

fn agree_on_step(args: &StepArgs, cluster: &v1::ClusterReply) -> Result<(), String> {
    let exchange = match cluster.exchange() {
        v1::ExchangeKind::Star => "star",
        v1::ExchangeKind::AllToAll => "all-to-all",
        v1::ExchangeKind::Hierarchical => "hierarchical",
        v1::ExchangeKind::Unspecified => "unknown",
    };
    let on_loss = match cluster.on_loss() {
        v1::OnLoss::Fail => "fail",
        v1::OnLoss::Drop => "drop",
        v1::OnLoss::Unspecified => "unknown",
    };
    let factor = (cluster.capacity_factor != 0.0).then_some(cluster.capacity_factor);
    let wire = format_from_wire(cluster.wire_dtype);
    let name = |value: &dyn Display| value.to_string();
    same(
        "exchange",
        args.exchange.map(|one| name(&one)),
        Some(exchange.to_owned()),
    )?;
    if let Some(size) = args.group_size {
        let ours = Groups::contiguous(cluster.endpoints.len().saturating_sub(1), size.get());
        let there = format!("groups {:?}", cluster.groups);
        same_if(ours == cluster.groups, "group-size", size, Some(there))?;
    }
    same(
        "on-loss",
        args.on_loss.map(|one| name(&one)),
        Some(on_loss.to_owned()),
    )?;
    same(
        "overflow",
        args.capacity.overflow.map(|one| name(&one)),
        Some(cluster.overflow.clone()),
    )?;
    same("capacity-factor", args.capacity.capacity_factor, factor)?;
    same("wire-dtype", args.wire_dtype, wire)?;
    let deadline = Wait(Duration::from_micros(cluster.deadline_us));
    same("deadline", args.deadline, Some(deadline))?;
    let untold = args.capacity.needs_capacity().or(args.capacity.untold());
    if let Some(flag) = untold {
        return Err(format!("{flag} is given, which the cluster does not tell"));
    }
    same("credits", args.credits, None)?;
    same("chunk-bytes", args.chunk_bytes, None)
}

fn agree_on_placement(
    model: &ModelArgs,
    step: &StepArgs,
    cluster: &v1::ClusterReply,
) -> Result<(), String> {
    let Some(choice) = &step.placement else {
        return Ok(());
    };
    let workers = cluster.endpoints.len().saturating_sub(1);
    let placement = step.place(
        cluster.experts.saturating_sub(cluster.free_experts) as usize,
        workers,
        model.seed.unwrap_or(0),
    );
    let digest = placement.map(|placement| placement.digest()).ok();
    let same = digest.as_ref() == Some(&cluster.placement_digest);
    let there = format!("another one ({})", cluster.placement_digest);
    same_if(same, "placement", choice, Some(there))
}

/// An absent flag agrees with everything; a cluster that does not tell agrees with none.
fn same<T: PartialEq + Display>(
    flag: &str,
    given: Option<T>,
    there: Option<T>,
) -> Result<(), String> {
    match given {
        None => Ok(()),
        Some(given) => same_if(there.as_ref() == Some(&given), flag, given, there),
    }
}

fn same_if(
    same: bool,
    flag: &str,
    given: impl Display,
    there: Option<impl Display>,
) -> Result<(), String> {
    match there {
        _ if same => Ok(()),
        Some(there) => Err(format!("--{flag} is {given}, the cluster has {there}")),
        None => Err(format!(
            "--{flag} is {given}, which the cluster does not have or tell"
        )),
    }
}

fn is_same(ours: &Path, theirs: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    real(ours) == real(theirs)
}
