//! The unary calls of a worker.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use expertmesh_checkpoint::{Checkpoint, Combine, LayerSource, SyntheticLayer, SyntheticSpec};
use expertmesh_exchange::{ClockMap, CombineRule};
use expertmesh_experts::{ComputePool, Expert, ExpertKind, HomeExperts};
use expertmesh_kernels::{Format, NUMERICS};
use expertmesh_routing::{FreeExpert, WeightDtype};
use expertmesh_transport::{
    Emulation, LinkOptions, StreamHello, WorkerControl, monotonic_ns, open_stream,
};
use expertmesh_wire::{ErrorCode, RemoteError, check_protocol, protocol_version, v1};
use rayon::prelude::*;
use tracing::{info, info_span};

use crate::acceptor::ReplySink;
use crate::error::WorkerError;
use crate::layer::{format, layer};
use crate::registry::ExpertRegistry;
use crate::session::Session;

/// Peers to dial: endpoint id and address.
type Dials = Vec<(u32, String)>;

/// The sessions of a worker by id.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<u64, Opened>>,
}

struct Opened {
    session: Arc<Session>,
    /// Addresses of the peers that this worker dials, by endpoint id.
    dials: Dials,
    watchdog: tokio::task::JoinHandle<()>,
}

/// Answers the control calls.
pub(crate) struct Control {
    pub(crate) name: String,
    pub(crate) boot_id: String,
    pub(crate) compute: ComputePool,
    pub(crate) registry: ExpertRegistry,
    pub(crate) options: LinkOptions,
    pub(crate) sessions: Arc<Sessions>,
}

/// What a worker loads of a layer.
pub(crate) struct Loaded {
    /// Length of the rows that travel: latent ones where its experts work on those.
    pub(crate) hidden: usize,
    pub(crate) experts: Vec<Option<Arc<dyn Expert>>>,
    pub(crate) home: HomeExperts,
    pub(crate) rule: CombineRule,
}

// === impl Control ===

impl WorkerControl for Control {
    async fn describe(
        &self,
        _request: v1::DescribeRequest,
    ) -> Result<v1::DescribeReply, RemoteError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(v1::DescribeReply {
            protocol: Some(protocol_version()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.name.clone(),
            boot_id: self.boot_id.clone(),
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            threads: u32::try_from(self.compute.threads()).unwrap_or(u32::MAX),
            numerics: NUMERICS.to_owned(),
        })
    }

    async fn configure(
        &self,
        request: v1::ConfigureRequest,
    ) -> Result<v1::ConfigureReply, RemoteError> {
        check_protocol(request.protocol.as_ref(), "the coordinator")?;
        let started = monotonic_ns();
        let compute = self.compute.clone();
        let registry = self.registry.clone();
        let span = info_span!("load", session = request.session);
        let (request, loaded) = tokio::task::spawn_blocking(move || {
            let _entered = span.entered();
            let loaded = load(&request, &compute, &registry);
            (request, loaded)
        })
        .await
        .map_err(|error| RemoteError::new(ErrorCode::Internal, error.to_string()))?;
        let loaded = loaded.map_err(|error| error.to_remote().about(request.endpoint))?;
        let experts = loaded.experts.iter().flatten();
        let (count, bytes) = experts.fold((0u32, 0u64), |(n, b), one| {
            (n + 1, b + one.weight_bytes() as u64)
        });
        let limit = self.options.max_message_bytes;
        let layer = layer(&request, loaded, limit).map_err(|error| error.to_remote())?;
        let mut clocks = vec![ClockMap::unknown(); layer.names.len()];
        clocks[layer.me as usize] = ClockMap::shared();
        let emulation = self.options.emulation.as_ref();
        let stretch = emulation.map_or(1.0, Emulation::dilation);
        let session = Session::new(layer, self.compute.clone(), clocks).stretched(stretch);
        let session = Arc::new(session);
        let dials = dials(&request);
        self.sessions.insert(Arc::clone(&session), dials);
        info!(
            session = request.session,
            experts = count,
            bytes,
            "session configured"
        );
        Ok(v1::ConfigureReply {
            experts: count,
            weight_bytes: bytes,
            load_us: (monotonic_ns() - started) / 1000,
        })
    }

    async fn connect(&self, request: v1::ConnectRequest) -> Result<v1::ConnectReply, RemoteError> {
        let id = request.session;
        let (session, dials) = self.sessions.dials(id).ok_or_else(|| unknown(id))?;
        let me = session.layer.me;
        let twice = || RemoteError::invalid(format!("session {id:#x} is connected already"));
        if session.peers.get().is_some() {
            return Err(twice());
        }
        let mut streams: Vec<_> = session.layer.names.iter().map(|_| None).collect();
        let mut peers = 0;
        for (endpoint, address) in dials {
            let about = |error: WorkerError| error.to_remote().about(endpoint);
            let session = Arc::clone(&session);
            self.compare_clock(&session, endpoint, &address)
                .await
                .map_err(about)?;
            let hello = StreamHello::new(id, me);
            let stream = open_stream(&address, hello, &self.options, |_| {
                Box::new(ReplySink {
                    session,
                    from: endpoint,
                })
            })
            .await
            .map_err(|error| about(error.into()))?;
            if let Some(slot) = streams.get_mut(endpoint as usize) {
                *slot = Some(stream);
                peers += 1;
            }
        }
        session.peers.set(streams).map_err(|_| twice())?;
        if !self.sessions.is_current(&session) {
            // It was released while its peers were dialled.
            session.close_peers();
            return Err(unknown(id));
        }
        Ok(v1::ConnectReply { peers })
    }

    async fn release(&self, request: v1::ReleaseRequest) -> Result<v1::ReleaseReply, RemoteError> {
        match self.sessions.remove(request.session) {
            true => Ok(v1::ReleaseReply {}),
            false => Err(unknown(request.session)),
        }
    }

    async fn traffic(&self, request: v1::TrafficRequest) -> Result<v1::TrafficReply, RemoteError> {
        let id = request.session;
        let session = self.sessions.get(id).ok_or_else(|| unknown(id))?;
        let me = session.layer.me;
        let link = |to: u32, outbox: &expertmesh_transport::Outbox| v1::LinkTraffic {
            source: me,
            destination: to,
            messages: outbox.counters().messages_out(),
            message_bytes: outbox.counters().message_bytes_out(),
            wire_bytes: outbox.counters().wire_bytes_out(),
        };
        let mut links: Vec<_> = session
            .state()
            .incoming
            .iter()
            .map(|(to, outbox)| link(*to, outbox))
            .collect();
        let peers = session.peers.get().into_iter().flatten().enumerate();
        for (to, stream) in peers {
            if let (Some(stream), Ok(to)) = (stream, u32::try_from(to)) {
                links.push(link(to, stream.outbox()));
            }
        }
        Ok(v1::TrafficReply { links })
    }

    async fn chunks(&self, request: v1::ChunksRequest) -> Result<v1::ChunksReply, RemoteError> {
        let id = request.session;
        let session = self.sessions.get(id).ok_or_else(|| unknown(id))?;
        Ok(v1::ChunksReply {
            ways: session.chunks.of(request.step),
        })
    }
}

impl Control {
    /// A peer on the same kernel has our clock.
    async fn compare_clock(
        &self,
        session: &Session,
        endpoint: u32,
        address: &str,
    ) -> Result<(), WorkerError> {
        let client = expertmesh_transport::WorkerClient::connect(address, &self.options).await?;
        let request = v1::DescribeRequest {
            protocol: Some(protocol_version()),
        };
        let peer = client.describe(request).await?;
        let is_ours = !self.boot_id.is_empty() && peer.boot_id == self.boot_id;
        if is_ours && let Some(clock) = session.state().clocks.get_mut(endpoint as usize) {
            *clock = ClockMap::shared();
        }
        Ok(())
    }
}

fn unknown(session: u64) -> RemoteError {
    let message = format!("session {session:#x} is not configured on this worker");
    RemoteError::new(ErrorCode::NotFound, message)
}

/// Loads this worker's experts of the layer that `request` names.
fn load(
    request: &v1::ConfigureRequest,
    compute: &ComputePool,
    registry: &ExpertRegistry,
) -> Result<Loaded, WorkerError> {
    let model = request
        .model
        .as_ref()
        .ok_or_else(|| WorkerError::field("model", "nothing", "a model source"))?;
    let dtype = format(model.dtype, "model.dtype")?;
    let row_format = format(request.wire_dtype, "wire_dtype")?;
    let me = request.endpoint;
    let mine: Vec<bool> = request
        .placement
        .iter()
        .map(|one| one.endpoints.contains(&me))
        .collect();
    let source: Box<dyn LayerSource> = match &model.source {
        Some(v1::model_source::Source::Synthetic(spec)) => {
            let free = free_experts(spec)?;
            Box::new(SyntheticLayer::new(synthetic(spec, dtype)?)?.with_free(free))
        }
        Some(v1::model_source::Source::Checkpoint(from)) => {
            Box::new(Checkpoint::open(Path::new(&from.directory))?.layer(from.layer, dtype)?)
        }
        Some(v1::model_source::Source::Custom(custom)) => {
            return load_custom(custom, &mine, registry, [row_format, dtype]);
        }
        None => {
            return Err(WorkerError::field(
                "model.source",
                "nothing",
                "a model source",
            ));
        }
    };
    let spec = source.spec();
    let weight_in_dtype = spec.router.weight_dtype == WeightDtype::Model;
    if spec.routed_experts() != mine.len() {
        let expected = format!("{}, the layer's routed experts", spec.routed_experts());
        return Err(WorkerError::field("placement", mine.len(), expected));
    }
    let experts = compute.install(|| {
        (0..mine.len())
            .into_par_iter()
            .map(|expert| mine[expert].then(|| source.expert(expert)).transpose())
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok(Loaded {
        hidden: spec.row_width(),
        experts,
        home: source.home()?,
        rule: CombineRule {
            weight_on_input: spec.weight_on_input,
            routed_scale: spec.routed_scale,
            one_by_one: spec.one_by_one,
            shared_mean: spec
                .shared
                .is_some_and(|one| one.combine == Combine::Average),
            ..CombineRule::new(row_format, dtype, weight_in_dtype)
        },
    })
}

fn load_custom(
    custom: &v1::CustomModel,
    mine: &[bool],
    registry: &ExpertRegistry,
    [row_format, dtype]: [Format; 2],
) -> Result<Loaded, WorkerError> {
    let source = registry.get(&custom.name).ok_or_else(|| {
        let known = format!("one of the registered: [{}]", registry.names().join(", "));
        WorkerError::field("model.custom.name", &custom.name, known)
    })?;
    let hidden = custom.hidden as usize;
    let mut experts = Vec::with_capacity(mine.len());
    for (expert, mine) in mine.iter().enumerate() {
        let loaded = mine.then(|| source.load(expert)).transpose()?;
        if let Some(loaded) = &loaded
            && loaded.hidden() != hidden
        {
            let expected = format!("{hidden}, the layer's");
            return Err(WorkerError::field(
                "hidden of a custom expert",
                loaded.hidden(),
                expected,
            ));
        }
        experts.push(loaded);
    }
    Ok(Loaded {
        hidden,
        experts,
        home: HomeExperts::default(),
        rule: CombineRule::new(row_format, dtype, custom.weight_in_dtype),
    })
}

fn free_experts(spec: &v1::SyntheticModel) -> Result<Vec<FreeExpert>, WorkerError> {
    let known = |kind: &i32| match v1::FreeExpert::try_from(*kind) {
        Ok(v1::FreeExpert::Null) => Ok(FreeExpert::Null),
        Ok(v1::FreeExpert::Identity) => Ok(FreeExpert::Identity),
        Ok(v1::FreeExpert::Constant) => Ok(FreeExpert::Constant),
        Ok(v1::FreeExpert::Unspecified) | Err(_) => Err(WorkerError::field(
            "model.synthetic.free",
            kind,
            "1 (null), 2 (identity) or 3 (constant)",
        )),
    };
    spec.free.iter().map(known).collect()
}

fn synthetic(spec: &v1::SyntheticModel, dtype: Format) -> Result<SyntheticSpec, WorkerError> {
    let kind: ExpertKind = spec.expert.parse().map_err(|_| {
        WorkerError::field(
            "model.synthetic.expert",
            &spec.expert,
            "swiglu, mlp or identity",
        )
    })?;
    Ok(SyntheticSpec {
        hidden: spec.hidden as usize,
        ffn: spec.ffn as usize,
        experts: (spec.experts as usize).saturating_sub(spec.free.len()),
        top_k: spec.top_k as usize,
        kind,
        seed: spec.seed,
        layer: spec.layer,
        dtype,
    })
}

/// The peers to dial: every other worker, if rows travel between workers.
fn dials(request: &v1::ConfigureRequest) -> Dials {
    let kinds = [v1::ExchangeKind::AllToAll, v1::ExchangeKind::Hierarchical];
    if !kinds.contains(&request.exchange()) {
        return Vec::new();
    }
    request
        .endpoints
        .iter()
        .filter(|one| one.id != 0 && one.id != request.endpoint)
        .map(|one| (one.id, one.address.clone()))
        .collect()
}

// === impl Sessions ===

impl Sessions {
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Session>> {
        self.lock()
            .get(&id)
            .map(|opened| Arc::clone(&opened.session))
    }

    /// Forgets a session; `false` if there was none.
    pub(crate) fn remove(&self, id: u64) -> bool {
        let removed = self.lock().remove(&id);
        let Some(opened) = removed else { return false };
        opened.watchdog.abort();
        opened.session.close_peers();
        info!(session = id, "session released");
        true
    }

    /// Forgets `session`, unless another has its number by now.
    pub(crate) fn remove_same(&self, session: &Arc<Session>) {
        if self.is_current(session) {
            self.remove(session.layer.session);
        }
    }

    fn is_current(&self, session: &Arc<Session>) -> bool {
        self.get(session.layer.session)
            .is_some_and(|current| Arc::ptr_eq(&current, session))
    }

    fn insert(&self, session: Arc<Session>, dials: Dials) {
        let watched = Arc::downgrade(&session);
        let watchdog = tokio::spawn(async move {
            let Some(session) = watched.upgrade() else {
                return;
            };
            session.watchdog.watch(|| session.on_tick()).await;
        });
        let id = session.layer.session;
        let earlier = self.lock().insert(
            id,
            Opened {
                session,
                dials,
                watchdog,
            },
        );
        if let Some(earlier) = earlier {
            earlier.watchdog.abort();
            earlier.session.close_peers();
        }
    }

    fn dials(&self, id: u64) -> Option<(Arc<Session>, Dials)> {
        self.lock()
            .get(&id)
            .map(|one| (Arc::clone(&one.session), one.dials.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
