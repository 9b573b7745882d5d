//! A cluster in this process, over real sockets: the same bits however the work is dealt out.

use std::num::NonZeroUsize;
use std::sync::Arc;

use expertmesh_bench::drive::{DriveError, DriveOptions, drive};
use expertmesh_bench::workload::{Pattern, Workload, WorkloadShape};
use expertmesh_coordinator::{Coordinator, CoordinatorService};
use expertmesh_exchange::ExchangeKind;
use expertmesh_report::human;
use expertmesh_telemetry::Run;
use expertmesh_transport::{CoordinatorClient, LinkOptions, Listener, serve_coordinator};
use expertmesh_wire::v1;
use expertmesh_worker::{ExpertRegistry, Worker, WorkerConfig};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::args::model::ModelArgs;
use crate::args::step::StepArgs;
use crate::commands::doctor::{Finding, Verdict};
use crate::error::Failure;

const CASES: [(usize, ExchangeKind); 5] = [
    (1, ExchangeKind::Star),
    (1, ExchangeKind::AllToAll),
    (3, ExchangeKind::Star),
    (3, ExchangeKind::AllToAll),
    (3, ExchangeKind::Hierarchical),
];

/// Workers of a group, where there are groups: of three, one then stands alone.
const GROUP_SIZE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// Every case against the first.
pub(super) async fn round_trips() -> Vec<Finding> {
    let check = "gRPC round trip";
    let mut findings = Vec::new();
    let mut first: Option<String> = None;
    for (workers, exchange) in CASES {
        let what = format!(
            "{workers} {}, {exchange}",
            if workers == 1 { "worker" } else { "workers" }
        );
        findings.push(match round_trip(workers, exchange).await {
            Err(failure) => {
                Finding::new(check, Verdict::Fail, format!("{what}: {}", failure.words()))
            }
            Ok(run) => judge(check, &what, &run, &mut first),
        });
    }
    findings
}

fn judge(check: &'static str, what: &str, run: &Run, first: &mut Option<String>) -> Finding {
    let digest = run.digest.clone().unwrap_or_default();
    let expected = first.get_or_insert_with(|| digest.clone());
    let step = human::duration(run.latency_us.step.mean);
    if *expected != digest {
        let detail = format!("{what}: digest {digest} is not {expected}; report this machine");
        return Finding::new(check, Verdict::Fail, detail);
    }
    if let Err(error) = run.overflow.check_conservation() {
        return Finding::new(check, Verdict::Fail, format!("{what}: {error}"));
    }
    let short = digest.get(..12).unwrap_or(&digest);
    Finding::ok(check, format!("{what}: {step} a step, digest {short}…"))
}

/// Brings a small cluster up, drives a few steps through it and takes it down.
async fn round_trip(workers: usize, exchange: ExchangeKind) -> Result<Run, Failure> {
    let (stop, stopping) = watch::channel(false);
    let mut served = JoinSet::new();
    let outcome = drive_cluster(workers, exchange, &stopping, &mut served).await;
    stop.send_replace(true);
    while let Some(end) = served.join_next().await {
        end.map_err(|error| Failure::run(format!("an endpoint ended: {error}")))??;
    }
    outcome
}

async fn drive_cluster(
    workers: usize,
    exchange: ExchangeKind,
    stopping: &watch::Receiver<bool>,
    served: &mut JoinSet<Result<(), Failure>>,
) -> Result<Run, Failure> {
    let mut addresses = Vec::with_capacity(workers);
    for index in 0..workers {
        let worker = Worker::bind(WorkerConfig {
            name: format!("worker-{index}"),
            listen: "127.0.0.1:0".to_owned(),
            threads: 1,
            options: LinkOptions::default(),
            registry: ExpertRegistry::default(),
        })?;
        addresses.push(worker.local_addr().to_string());
        let stopped = stopped(stopping.clone());
        served.spawn(async move { Ok(worker.serve(stopped).await?) });
    }
    let model = ModelArgs {
        hidden: Some(48),
        ffn: Some(40),
        seed: Some(1),
        ..ModelArgs::default()
    }
    .resolve()?;
    let spec = model.source.spec();
    let step = StepArgs {
        exchange: Some(exchange.into()),
        group_size: (exchange == ExchangeKind::Hierarchical).then_some(GROUP_SIZE),
        ..StepArgs::default()
    }
    .resolve(spec.routed_experts(), workers, model.dtype, model.seed)?;
    let shape = WorkloadShape {
        tokens: 16,
        hidden: spec.hidden,
        experts: spec.experts,
        top_k: spec.top_k,
    };
    let workload = Workload::new(Pattern::Normal, shape, model.seed, None)?;
    let options = LinkOptions::default();
    let listener = Listener::bind("127.0.0.1:0", &options)?;
    let address = listener.local_addr().to_string();
    let coordinator = Coordinator::connect(step.coordinator(&model, addresses)).await?;
    let service = Arc::new(CoordinatorService::new(Arc::new(coordinator)));
    let stopped = stopped(stopping.clone());
    served.spawn(async move { Ok(serve_coordinator(listener, service, stopped).await?) });

    let client = CoordinatorClient::connect(&address, &options).await?;
    let cluster = client.cluster(v1::ClusterRequest {}).await?;
    let options = DriveOptions {
        steps: 5,
        warmup: 1,
        seed: model.seed,
        model: cluster.family.clone(),
        shape: None,
        want_routing: false,
        lane_steps: 0,
    };
    let driven = drive(&client, &cluster, &workload, &options, |_| {}).await;
    Ok(driven
        .map_err(|error: DriveError| Failure::from(error))?
        .run)
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the doctor is gone, which is the same.
    let _ = stopping.wait_for(|stop| *stop).await;
}
