//! One configuration, launched and driven: what `calibrate` learns from and `validate` checks against.

use std::num::NonZeroUsize;

use expertmesh_bench::calibrate::Point;
use expertmesh_bench::drive::{DriveOptions, drive};
use expertmesh_bench::workload::{Pattern, Workload, WorkloadShape};
use expertmesh_exchange::{ExchangeKind, OnLoss};
use expertmesh_experts::synthetic_gate;
use expertmesh_telemetry::Run;
use expertmesh_transport::{CoordinatorClient, LinkOptions};
use expertmesh_wire::v1;

use crate::args::model::ModelArgs;
use crate::args::process::ProcessArgs;
use crate::args::step::StepArgs;
use crate::cluster::{LocalCluster, ProcessGroup, start_cluster, while_all_live};
use crate::error::Failure;
use crate::logging::LogFormat;

/// Rough speeds of a machine, for the number of steps only: flops and bytes of weights per ns.
const FLOPS_PER_NS: f64 = 80.0;
const BYTES_PER_NS: f64 = 15.0;
/// Shortest step that is expected, ns.
const SHORTEST_NS: f64 = 300_000.0;

/// How long a configuration is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Seconds of recorded steps that are aimed at.
    pub(crate) seconds: f64,
    /// Fewest recorded steps.
    pub(crate) fewest: u64,
    /// Most recorded steps.
    pub(crate) most: u64,
}

/// The flags that `launch` would be given for `point`.
pub(crate) fn flags(point: &Point, seed: u64) -> Result<(ModelArgs, StepArgs), Failure> {
    let shape = point.shape;
    let model = ModelArgs {
        experts: Some(shape.experts),
        top_k: Some(shape.top_k),
        hidden: Some(shape.hidden),
        ffn: Some(shape.ffn),
        seed: Some(seed),
        ..ModelArgs::default()
    };
    let exchange: ExchangeKind = point.exchange.parse().map_err(Failure::input)?;
    let step = StepArgs {
        exchange: Some(exchange),
        ..StepArgs::default()
    };
    Ok((model, step))
}

/// The load of `point`: balanced, as `launch` drives unless told otherwise.
pub(crate) fn workload(point: &Point, seed: u64) -> Result<Workload, Failure> {
    let shape = point.shape;
    let of = WorkloadShape {
        tokens: point.tokens,
        hidden: shape.hidden,
        experts: shape.experts,
        top_k: shape.top_k,
    };
    let gate = synthetic_gate(shape.experts, shape.hidden, seed, 0);
    Ok(Workload::new(Pattern::Balanced, of, seed, Some(gate))?)
}

/// Recorded steps of `point` under `effort`.
pub(crate) fn steps(point: &Point, effort: Effort) -> u64 {
    let expert = point.shape.expert();
    let choices = (point.tokens * point.shape.top_k) as f64;
    let active = choices.min(point.shape.experts as f64);
    let flops = choices * expert.flops_per_row() as f64 / FLOPS_PER_NS;
    let bytes = active * expert.weight_bytes() as f64 / BYTES_PER_NS;
    let step_ns = SHORTEST_NS + flops.max(bytes);
    ((effort.seconds * 1e9 / step_ns) as u64).clamp(effort.fewest, effort.most)
}

/// Launches a cluster for `point`, drives it and stops it.
///
/// # Errors
/// [`Failure`] of a start, a step or a process.
pub(crate) async fn measure(
    point: &Point,
    seed: u64,
    effort: Effort,
    group: &mut ProcessGroup,
    log_format: LogFormat,
) -> Result<Run, Failure> {
    let (model, step) = flags(point, seed)?;
    let processes = ProcessArgs {
        workers: NonZeroUsize::new(point.workers),
        ..ProcessArgs::default()
    };
    let mut argv = model.to_argv();
    argv.extend(step.to_argv());
    let cluster = start_cluster(group, &processes.options(log_format), argv).await?;
    let work = driven(point, seed, effort, &cluster);
    let run = while_all_live(work, group, OnLoss::Fail).await;
    group.stop().await;
    run
}

async fn driven(
    point: &Point,
    seed: u64,
    effort: Effort,
    cluster: &LocalCluster,
) -> Result<Run, Failure> {
    let address = &cluster.coordinator.address;
    let client = CoordinatorClient::connect(address, &LinkOptions::default()).await?;
    let described = client.cluster(v1::ClusterRequest {}).await?;
    let steps = steps(point, effort);
    let options = DriveOptions {
        steps,
        warmup: (steps / 5).max(3),
        seed,
        model: "synthetic".to_owned(),
        shape: None,
        want_routing: false,
    };
    let workload = workload(point, seed)?;
    let driven = drive(&client, &described, &workload, &options, |_| ()).await?;
    Ok(driven.run)
}
