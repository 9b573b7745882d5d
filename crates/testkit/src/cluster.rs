//! A cluster in one process: real workers, real sockets, a coordinator on the caller's runtime.

use std::sync::Arc;
use std::time::Duration;

use expertmesh_coordinator::{
    Coordinator, CoordinatorConfig, CoordinatorError, Defaults, StepOutput,
};
use expertmesh_exchange::{ExchangeKind, Groups, OnLoss};
use expertmesh_kernels::Format;
use expertmesh_placement::{Placement, Strategy};
use expertmesh_routing::{BiasUpdate, CapacityConfig, DepthRouter, Kind};
use expertmesh_transport::LinkOptions;
use expertmesh_worker::WorkerConfig;

use crate::digest::tensor;
use crate::model::Model;
use crate::node::Node;

/// What a cluster is made of. Every field has a default; set the ones that a test is about.
#[derive(Clone)]
pub struct ClusterSpec {
    /// The layer.
    pub model: Model,
    /// Number of workers.
    pub workers: usize,
    /// Which worker holds which expert; `None` places contiguously.
    pub placement: Option<Placement>,
    /// How rows travel.
    pub exchange: ExchangeKind,
    /// Workers of a group, where the exchange has groups.
    pub group_size: usize,
    /// Format of rows on the wire.
    pub wire_dtype: Format,
    /// Capacity of the experts.
    pub capacity: CapacityConfig,
    /// Which tokens pass through the layer; `None`: all of them.
    pub depth: Option<Arc<DepthRouter>>,
    /// Whose choices they are, if not the gate's.
    pub force: Option<Kind>,
    /// What a lost worker means.
    pub on_loss: OnLoss,
    /// A step that takes longer ends.
    pub deadline: Duration,
    /// The longest frame that rows or results are cut to, bytes.
    pub chunk_bytes: usize,
    /// Chunks under way at one host.
    pub credits: usize,
    /// How steps move the selection bias.
    pub bias_update: Option<BiasUpdate>,
    /// Whether gates draw their noise.
    pub training: bool,
    /// Compute threads of each endpoint.
    pub threads: usize,
    /// HTTP/2 settings and limits.
    pub options: LinkOptions,
}

/// Workers on threads of their own and a coordinator that is connected to them.
///
/// Dropping it kills the workers; [`Cluster::stop`] stops them in good order.
pub struct Cluster {
    coordinator: Coordinator,
    nodes: Vec<Option<Node>>,
    hidden: usize,
}

// === impl ClusterSpec ===

impl ClusterSpec {
    /// A cluster of `workers` workers for `model` with the defaults of the product. Rows travel
    /// in f32 unless a test says otherwise.
    pub fn new(model: Model, workers: usize) -> Self {
        Self {
            model,
            workers,
            placement: None,
            exchange: ExchangeKind::default(),
            group_size: 2,
            wire_dtype: Format::F32,
            capacity: CapacityConfig::default(),
            depth: None,
            force: None,
            on_loss: OnLoss::Fail,
            deadline: Defaults::DEADLINE,
            chunk_bytes: Defaults::CHUNK_BYTES,
            credits: Defaults::CREDITS,
            bias_update: None,
            training: false,
            threads: 1,
            options: LinkOptions::default(),
        }
    }

    /// The same with experts placed by `strategy`.
    #[must_use]
    pub fn placed(mut self, strategy: Strategy, seed: u64) -> Self {
        let experts = self.model.source.spec().routed_experts();
        let placement = strategy.place(experts, self.workers, seed);
        self.placement = Some(placement.expect("a placement"));
        self
    }

    /// The same with another exchange.
    #[must_use]
    pub fn exchange(mut self, exchange: ExchangeKind) -> Self {
        self.exchange = exchange;
        self
    }

    /// The same for an endpoint whose links are `options`.
    #[must_use]
    pub fn linked(mut self, options: LinkOptions) -> Self {
        self.options = options;
        self
    }

    /// Where the experts are.
    pub fn placement(&self) -> Placement {
        let experts = self.model.source.spec().routed_experts();
        self.placement
            .clone()
            .unwrap_or_else(|| Placement::contiguous(experts, self.workers).expect("a placement"))
    }

    /// A worker for this cluster, not yet known to any coordinator.
    pub fn worker(&self, name: &str) -> Node {
        Node::worker(WorkerConfig {
            name: name.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            threads: self.threads,
            options: self.options.clone(),
            registry: self.model.registry.clone(),
        })
    }

    /// A coordinator for workers at `addresses`.
    ///
    /// # Errors
    /// What [`Coordinator::connect`] says.
    pub async fn connect(&self, addresses: Vec<String>) -> Result<Coordinator, CoordinatorError> {
        Coordinator::connect(self.config(addresses)).await
    }

    /// What a coordinator for workers at `addresses` is told.
    pub fn config(&self, addresses: Vec<String>) -> CoordinatorConfig {
        CoordinatorConfig {
            name: "testkit".to_owned(),
            workers: addresses,
            source: self.model.source.clone(),
            model: self.model.wire.clone(),
            placement: self.placement(),
            exchange: self.exchange,
            groups: match self.exchange {
                ExchangeKind::Hierarchical => Groups::contiguous(self.workers, self.group_size),
                _ => Vec::new(),
            },
            wire_dtype: self.wire_dtype,
            capacity: self.capacity,
            seed: 0,
            bias_update: self.bias_update,
            training: self.training,
            depth: self.depth.clone(),
            force: self.force,
            on_loss: self.on_loss,
            deadline: self.deadline,
            chunk_bytes: self.chunk_bytes,
            credits: self.credits,
            threads: self.threads,
            options: self.options.clone(),
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// Starts the workers and connects a coordinator to them.
    ///
    /// # Panics
    /// If the cluster does not come up.
    pub async fn start(spec: ClusterSpec) -> Self {
        let nodes = (0..spec.workers)
            .map(|at| spec.worker(&format!("worker-{at}")))
            .collect();
        Self::of_nodes(&spec, nodes).await
    }

    /// A cluster of workers that run already, fake ones among them.
    ///
    /// # Panics
    /// If the cluster does not come up.
    pub async fn of_nodes(spec: &ClusterSpec, nodes: Vec<Node>) -> Self {
        let addresses = nodes.iter().map(Node::addr).collect();
        let coordinator = spec.connect(addresses).await;
        Self {
            coordinator: coordinator.expect("a cluster that comes up"),
            nodes: nodes.into_iter().map(Some).collect(),
            hidden: spec.model.source.spec().hidden,
        }
    }

    /// The coordinator.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// One step of `x` `[tokens, hidden]`.
    ///
    /// # Errors
    /// What [`Coordinator::forward`] says.
    pub async fn forward(&self, x: &[f32]) -> Result<StepOutput, CoordinatorError> {
        self.coordinator.forward(tensor(x, self.hidden), None).await
    }

    /// The outputs of a step that must go well, `[tokens × hidden]`.
    ///
    /// # Panics
    /// If the step fails.
    pub async fn outputs(&self, x: &[f32]) -> Vec<f32> {
        let step = self.forward(x).await.expect("a step that goes well");
        step.output.into_raw_vec_and_offset().0
    }

    /// Address of worker `worker`.
    ///
    /// # Panics
    /// If that worker was killed.
    pub fn addr(&self, worker: usize) -> String {
        self.nodes[worker].as_ref().expect("a live worker").addr()
    }

    /// Kills worker `worker`: its runtime is dropped, its sockets close.
    pub fn kill(&mut self, worker: usize) {
        if let Some(node) = self.nodes[worker].take() {
            node.kill();
        }
    }

    /// Takes worker `worker` out, for a test to kill it from elsewhere.
    pub fn take(&mut self, worker: usize) -> Option<Node> {
        self.nodes[worker].take()
    }

    /// Stops coordinator and workers in good order.
    pub async fn stop(self) {
        drop(self.coordinator);
        for node in self.nodes.into_iter().flatten() {
            node.stop().await;
        }
    }
}
