//! One configuration, launched and driven: what `calibrate` learns from and `validate` checks against.

use std::num::NonZeroUsize;

use expertmesh_bench::calibrate::{Point, Profile};
use expertmesh_bench::drive::{DriveOptions, drive};
use expertmesh_bench::simulate::{SimLoad, Simulation};
use expertmesh_bench::workload::{Pattern, Workload, WorkloadShape};
use expertmesh_coordinator::Rehearsal;
use expertmesh_exchange::{ExchangeKind, OnLoss};
use expertmesh_experts::synthetic_gate;
use expertmesh_simulator::{Layer, SimConfig, Simulator};
use expertmesh_telemetry::{Run, Source};
use expertmesh_topology::Topology;
use expertmesh_transport::{CoordinatorClient, LinkOptions};
use expertmesh_wire::v1;

use crate::args::model::{Model, ModelArgs};
use crate::args::network::NetworkArgs;
use crate::args::process::{ProcessArgs, threads_each};
use crate::args::step::StepArgs;
use crate::cluster::{LocalCluster, ProcessGroup, start_cluster, while_all_live};
use crate::commands::simulate::Machines;
use crate::error::Failure;
use crate::logging::LogFormat;

/// Percent that emulated links of a point may be off by. A launch asks for less; here the steps over
/// them are compared anyway, and what links are off by is part of the error that is told.
const PROBE_TOLERANCE: f64 = 25.0;

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
        exchange: Some(exchange.into()),
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
#[allow(clippy::cast_sign_loss, reason = "what is cast is not below 0")]
pub(crate) fn steps(point: &Point, effort: Effort) -> u64 {
    let expert = point.shape.expert();
    let choices = (point.tokens * point.shape.top_k) as f64;
    let active = choices.min(point.shape.experts as f64);
    let flops = choices * expert.flops_per_row() as f64 / FLOPS_PER_NS;
    let bytes = active * expert.weight_bytes() as f64 / BYTES_PER_NS;
    let step_ns = SHORTEST_NS + flops.max(bytes);
    ((effort.seconds * 1e9 / step_ns) as u64).clamp(effort.fewest, effort.most)
}

fn processes(point: &Point) -> ProcessArgs {
    ProcessArgs {
        workers: NonZeroUsize::new(point.workers),
        ..ProcessArgs::default()
    }
}

/// A point as it is simulated: everything but the costs.
pub(crate) struct Simulated {
    pub(crate) config: SimConfig,
    pub(crate) topology: Topology,
    pub(crate) rehearsal: Rehearsal,
    pub(crate) load: SimLoad,
}

/// What simulates `point`: the cluster that `launch` would start on a machine of `cores` cores.
///
/// # Errors
/// [`Failure::Input`] for links that cannot be read.
pub(crate) fn simulated(point: &Point, seed: u64, cores: u32) -> Result<Simulated, Failure> {
    let (model, step) = flags(point, seed)?;
    let model: Model = model.resolve()?;
    let spec = model.source.spec();
    let step = step.resolve(spec.routed_experts(), point.workers, model.dtype, seed)?;
    let layer = Layer::of(spec, step.wire_dtype);
    let config = SimConfig {
        threads: threads_each(cores as usize, point.workers).get(),
        one_machine: Some(cores),
        ..step.simulated(layer)
    };
    let rehearsal = step.rehearsed(&model, point.workers);
    Ok(Simulated {
        config,
        topology: Topology::read(point.links.as_deref().unwrap_or("loopback"))?,
        rehearsal: Rehearsal::new(rehearsal)?,
        load: SimLoad::Rows(workload(point, seed)?),
    })
}

/// Simulates `steps` steps of `point` under the costs of `profile`.
///
/// # Errors
/// As [`simulated`].
pub(crate) fn predict(
    point: &Point,
    seed: u64,
    steps: u64,
    profile: &Profile,
) -> Result<Run, Failure> {
    let Simulated {
        config,
        topology,
        rehearsal,
        load,
    } = simulated(point, seed, profile.environment.cores)?;
    let machines = Machines::calibrated(profile, topology);
    let simulator = Simulator::new(&machines.topology, machines.costs, config);
    let simulator = simulator.map_err(Failure::run)?;
    let mut simulation = Simulation {
        layers: vec![rehearsal],
        simulator,
        between_ns: 0,
        load,
        overlap: 1,
        lane_steps: 0,
        source: Source::Calibrated,
    };
    let simulated = simulation
        .run(steps, seed, ("synthetic", None), || ())
        .map_err(Failure::run)?;
    Ok(simulated.run)
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
    let mut workers = processes(point).options(log_format)?;
    let network = NetworkArgs {
        topology: point.links.clone(),
        probe_tolerance: point.links.is_some().then_some(PROBE_TOLERANCE),
        ..NetworkArgs::default()
    };
    workers.network = network.resolve(workers.count)?;
    if let Some(network) = &workers.network {
        network.hush();
    }
    let mut argv = model.to_argv();
    argv.extend(step.to_argv());
    let cluster = start_cluster(group, &workers, argv).await?;
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
        lane_steps: 0,
    };
    let workload = workload(point, seed)?;
    let driven = drive(&client, &described, &workload, &options, |_| ()).await?;
    Ok(driven.run)
}
