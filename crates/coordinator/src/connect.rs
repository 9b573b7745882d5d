//! Bringing a cluster up: describe, configure and connect its workers.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use expertmesh_exchange::{
    COORDINATOR, ClockMap, ExchangeKind, Groups, HostTable, Limits, LossCause, OnLoss,
};
use expertmesh_experts::{ComputePool, HomeExperts, LatentProjections};

use expertmesh_transport::{
    CloseReason, LinkOptions, StreamHello, StreamSink, TransportError, WorkerClient, boot_id,
    monotonic_ns, open_stream,
};
use expertmesh_wire::{format_to_wire, protocol_version, v1};
use tracing::{info, instrument};

use crate::config::CoordinatorConfig;
use crate::decide::Decider;
use crate::engine::Engine;
use crate::error::CoordinatorError;
use crate::latent;

/// A coordinator whose workers hold their experts and wait for rows.
///
/// Dropping it closes its streams, upon which the workers free the session.
pub struct Coordinator {
    pub(crate) config: CoordinatorConfig,
    pub(crate) endpoints: Vec<v1::Endpoint>,
    pub(crate) session: u64,
    pub(crate) decider: Decider,
    /// What the coordinator computes where it is home, and where homes have latent rows.
    pub(crate) home: HomeExperts,
    /// Into latent rows and out of them, in a layer whose experts work on those.
    pub(crate) projections: Option<Arc<LatentProjections>>,
    pub(crate) table: HostTable,
    pub(crate) limits: Limits,
    pub(crate) compute: ComputePool,
    pub(crate) engine: Arc<Engine>,
    pub(crate) next_step: AtomicU64,
    pub(crate) workers: Vec<WorkerClient>,
    watchdog: tokio::task::JoinHandle<()>,
}

/// Frames and the end of the stream to one worker.
struct WorkerSink {
    engine: Arc<Engine>,
    endpoint: u32,
}

/// A worker that was called and described itself.
struct Described {
    client: WorkerClient,
    reply: v1::DescribeReply,
}

// === impl Coordinator ===

impl Coordinator {
    /// Connects to the workers, has each load its experts, and opens the streams.
    ///
    /// # Errors
    /// [`CoordinatorError`]: a field of `config` that does not fit, a layer that cannot be loaded,
    /// or a worker that cannot be reached, speaks another protocol or cannot load its experts
    /// (named).
    pub async fn connect(config: CoordinatorConfig) -> Result<Self, CoordinatorError> {
        config.validate()?;
        let compute = ComputePool::new(config.threads, &config.name)?;
        Self::connect_on(config, compute).await
    }

    /// The same with compute threads that others use too.
    #[instrument(level = "info", name = "connect", skip_all, fields(workers = config.workers.len()))]
    pub(crate) async fn connect_on(
        config: CoordinatorConfig,
        compute: ComputePool,
    ) -> Result<Self, CoordinatorError> {
        config.validate()?;
        let decider = Decider::new(&config)?;
        let (projections, home) = match latent::load(config.source.as_ref())? {
            None => (None, config.source.home()?),
            Some((projections, own)) => (Some(projections), own),
        };
        let described = describe_all(&config).await?;
        let endpoints = endpoints(&config);
        let names: Arc<[String]> = endpoints.iter().map(|one| one.name.clone()).collect();
        let session = session_id();

        let ours = boot_id();
        let clocks = std::iter::once(ClockMap::shared())
            .chain(described.iter().map(|worker| {
                let same = !ours.is_empty() && worker.reply.boot_id == ours;
                if same {
                    ClockMap::shared()
                } else {
                    ClockMap::unknown()
                }
            }))
            .collect();
        let workers: Vec<WorkerClient> =
            described.into_iter().map(|worker| worker.client).collect();
        let engine = Arc::new(Engine::new(names, clocks));
        let up = bring_up(&config, &workers, &endpoints, session, &engine).await;
        if let Err(error) = up {
            // What came up goes down again: streams first, then what workers loaded.
            engine.detach();
            release_all(&workers, session).await;
            return Err(error);
        }
        let watched = Arc::clone(&engine);
        let watchdog = tokio::spawn(async move {
            watched.watchdog.watch(|| watched.on_tick()).await;
        });
        let spec = config.source.spec();
        let limits = Limits {
            row_bytes: spec.row_width() * config.wire_dtype.bytes(),
            chunk_bytes: config.chunk_bytes,
            row_per_choice: spec.weight_on_input,
        };
        info!(
            session,
            family = spec.family,
            experts = spec.experts,
            "cluster is up"
        );
        Ok(Self {
            table: table(&config).with_free(home.free()),
            limits,
            decider,
            home,
            projections,
            compute,
            engine,
            next_step: AtomicU64::new(0),
            workers,
            watchdog,
            endpoints,
            session,
            config,
        })
    }

    /// Names of the endpoints by id: the coordinator, then the workers.
    pub fn endpoint_names(&self) -> Vec<String> {
        self.endpoints.iter().map(|one| one.name.clone()).collect()
    }

    /// What the cluster was configured with.
    pub fn config(&self) -> &CoordinatorConfig {
        &self.config
    }

    /// What every data link was handed and carried since the cluster came up, from each sender's
    /// own counters.
    ///
    /// # Errors
    /// A worker that does not answer, named.
    pub async fn traffic(&self) -> Result<Vec<v1::LinkTraffic>, CoordinatorError> {
        let mut links = self.engine.traffic();
        for (worker, endpoint) in self.workers.iter().zip(&self.endpoints[1..]) {
            let request = v1::TrafficRequest {
                session: self.session,
            };
            let reply = worker
                .traffic(request)
                .await
                .map_err(|source| at(endpoint, source))?;
            links.extend(reply.links);
        }
        links.sort_by_key(|link| (link.source, link.destination));
        Ok(links)
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.watchdog.abort();
        self.engine.detach();
    }
}

/// The endpoint table: names are positions, so that reports of two runs compare.
pub(crate) fn endpoints(config: &CoordinatorConfig) -> Vec<v1::Endpoint> {
    let coordinator = v1::Endpoint {
        id: COORDINATOR,
        name: "coordinator".to_owned(),
        address: String::new(),
    };
    let workers = config
        .workers
        .iter()
        .zip(1u32..)
        .map(|(address, id)| v1::Endpoint {
            id,
            name: format!("worker-{}", id - 1),
            address: address.clone(),
        });
    std::iter::once(coordinator).chain(workers).collect()
}

/// Unique enough among the coordinators of a set of workers: moment and process.
fn session_id() -> u64 {
    monotonic_ns() ^ (u64::from(std::process::id()) << 40)
}

fn at(endpoint: &v1::Endpoint, source: TransportError) -> CoordinatorError {
    CoordinatorError::Worker {
        name: endpoint.name.clone(),
        address: endpoint.address.clone(),
        source,
    }
}

async fn describe_all(config: &CoordinatorConfig) -> Result<Vec<Described>, CoordinatorError> {
    let mut described = Vec::with_capacity(config.workers.len());
    for endpoint in &endpoints(config)[1..] {
        let about = |source| at(endpoint, source);
        let client = WorkerClient::connect(&endpoint.address, &config.options)
            .await
            .map_err(about)?;
        let request = v1::DescribeRequest {
            protocol: Some(protocol_version()),
        };
        let reply = client.describe(request).await.map_err(about)?;
        described.push(Described { client, reply });
    }
    Ok(described)
}

/// Loads, opens the streams, and has the workers open theirs.
async fn bring_up(
    config: &CoordinatorConfig,
    workers: &[WorkerClient],
    endpoints: &[v1::Endpoint],
    session: u64,
    engine: &Arc<Engine>,
) -> Result<(), CoordinatorError> {
    configure_all(config, workers, endpoints, session).await?;
    let names = Arc::clone(&engine.names);
    let streams = open_all(&config.workers, session, engine, &config.options, &names).await?;
    engine.attach(streams);
    if config.exchange.is_sharded() {
        for (worker, endpoint) in workers.iter().zip(&endpoints[1..]) {
            let request = v1::ConnectRequest { session };
            let connected = worker.connect_peers(request).await;
            connected.map_err(|source| at(endpoint, source))?;
        }
    }
    Ok(())
}

/// Has every worker that can be reached forget the session.
async fn release_all(workers: &[WorkerClient], session: u64) {
    /// A worker that does not answer is what ended the bring-up, perhaps.
    const PATIENCE: Duration = Duration::from_secs(2);
    for worker in workers {
        let worker = worker.clone().with_call_timeout(PATIENCE);
        // A worker that never had the session says so, which is what is wanted.
        let _ = worker.release(v1::ReleaseRequest { session }).await;
    }
}

/// All workers load at the same time.
async fn configure_all(
    config: &CoordinatorConfig,
    workers: &[WorkerClient],
    endpoints: &[v1::Endpoint],
    session: u64,
) -> Result<(), CoordinatorError> {
    let placement: Vec<v1::Replicas> = (0..config.placement.experts())
        .map(|expert| v1::Replicas {
            endpoints: config
                .placement
                .replicas(expert)
                .iter()
                .map(|worker| worker + 1)
                .collect(),
        })
        .collect();
    let mut loads = tokio::task::JoinSet::new();
    for (worker, endpoint) in workers.iter().zip(&endpoints[1..]) {
        let request = v1::ConfigureRequest {
            protocol: Some(protocol_version()),
            session,
            epoch: 0,
            endpoint: endpoint.id,
            endpoints: endpoints.to_vec(),
            exchange: exchange_to_wire(config.exchange).into(),
            model: Some(config.model.clone()),
            placement: placement.clone(),
            wire_dtype: format_to_wire(config.wire_dtype).into(),
            on_loss: match config.on_loss {
                OnLoss::Fail => v1::OnLoss::Fail,
                OnLoss::Drop => v1::OnLoss::Drop,
            }
            .into(),
            chunk_bytes: config.chunk_bytes as u64,
            credits: u32::try_from(config.credits).unwrap_or(u32::MAX),
            groups: config.groups.clone(),
        };
        let worker = worker.clone();
        let endpoint = endpoint.clone();
        loads.spawn(async move {
            worker
                .configure(request)
                .await
                .map_err(|source| at(&endpoint, source))
        });
    }
    while let Some(loaded) = loads.join_next().await {
        loaded.map_err(|error| CoordinatorError::Internal(error.to_string()))??;
    }
    Ok(())
}

/// Who executes what, and in `hierarchical` who stands together.
fn table(config: &CoordinatorConfig) -> HostTable {
    let table = HostTable::new(&config.placement);
    // The configuration has been checked; without groups, nothing would be relayed.
    match Groups::new(config.groups.clone()) {
        Ok(groups) if !config.groups.is_empty() => table.with_groups(groups),
        _ => table,
    }
}

pub(crate) fn exchange_to_wire(exchange: ExchangeKind) -> v1::ExchangeKind {
    match exchange {
        ExchangeKind::Star => v1::ExchangeKind::Star,
        ExchangeKind::AllToAll => v1::ExchangeKind::AllToAll,
        ExchangeKind::Hierarchical => v1::ExchangeKind::Hierarchical,
    }
}

async fn open_all(
    addresses: &[String],
    session: u64,
    engine: &Arc<Engine>,
    options: &LinkOptions,
    names: &[String],
) -> Result<Vec<Option<expertmesh_transport::StreamHandle>>, CoordinatorError> {
    let mut streams = vec![None];
    for (address, endpoint) in addresses.iter().zip(1u32..) {
        let sink = WorkerSink {
            engine: Arc::clone(engine),
            endpoint,
        };
        let hello = StreamHello::new(session, COORDINATOR);
        let stream = open_stream(address, hello, options, |_| Box::new(sink)).await;
        let stream = stream.map_err(|source| CoordinatorError::Worker {
            name: names[endpoint as usize].clone(),
            address: address.clone(),
            source,
        })?;
        streams.push(Some(stream));
    }
    Ok(streams)
}

// === impl WorkerSink ===

impl StreamSink for WorkerSink {
    fn on_message(&mut self, message: bytes::Bytes) {
        self.engine.on_message(self.endpoint, message);
    }

    fn on_close(&mut self, reason: CloseReason) {
        self.engine
            .on_lost(self.endpoint, LossCause::Disconnected(reason.to_string()));
    }
}
