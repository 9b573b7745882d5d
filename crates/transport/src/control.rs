//! The control calls, as the roles answer them.

use std::sync::Arc;

use expertmesh_wire::{ErrorCode, RemoteError, check_protocol, v1};
use tonic::{Request, Response, Status, async_trait};

use crate::glue::coordinator_server::Coordinator;
use crate::glue::worker_server::Worker;
use crate::status::to_status;

/// What a worker answers on its control calls.
///
/// Futures run on the IO runtime and are dropped when their caller gives up: work that must not
/// stop halfway belongs in a task of its own. Errors reach the caller with code and endpoint
/// intact. Requests that state another protocol major, or none, are refused before they get here.
pub trait WorkerControl: Send + Sync + 'static {
    /// Who is there.
    fn describe(
        &self,
        request: v1::DescribeRequest,
    ) -> impl Future<Output = Result<v1::DescribeReply, RemoteError>> + Send;

    /// Installs one layer for one session.
    fn configure(
        &self,
        request: v1::ConfigureRequest,
    ) -> impl Future<Output = Result<v1::ConfigureReply, RemoteError>> + Send;

    /// Opens the worker's streams to its peers.
    fn connect(
        &self,
        request: v1::ConnectRequest,
    ) -> impl Future<Output = Result<v1::ConnectReply, RemoteError>> + Send;

    /// Forgets a session.
    fn release(
        &self,
        request: v1::ReleaseRequest,
    ) -> impl Future<Output = Result<v1::ReleaseReply, RemoteError>> + Send;

    /// What this worker's streams were handed and what their sockets carried.
    fn traffic(
        &self,
        request: v1::TrafficRequest,
    ) -> impl Future<Output = Result<v1::TrafficReply, RemoteError>> + Send;

    /// What became of the chunks that this worker sent as a home in one of its last steps; for
    /// pictures, so a worker that keeps none need not say more than that.
    fn chunks(
        &self,
        _request: v1::ChunksRequest,
    ) -> impl Future<Output = Result<v1::ChunksReply, RemoteError>> + Send {
        std::future::ready(Ok(v1::ChunksReply::default()))
    }
}

/// What a coordinator answers to its clients; the rules of [`WorkerControl`] hold here too.
pub trait CoordinatorControl: Send + Sync + 'static {
    /// Who is there.
    fn describe(
        &self,
        request: v1::DescribeRequest,
    ) -> impl Future<Output = Result<v1::DescribeReply, RemoteError>> + Send;

    /// The layer, placement and options that `forward` uses.
    fn cluster(
        &self,
        request: v1::ClusterRequest,
    ) -> impl Future<Output = Result<v1::ClusterReply, RemoteError>> + Send;

    /// One step: hidden states in, outputs in token order out.
    fn forward(
        &self,
        request: v1::ForwardRequest,
    ) -> impl Future<Output = Result<v1::ForwardReply, RemoteError>> + Send;

    /// What every data link of the cluster was handed and carried.
    fn traffic(
        &self,
        request: v1::TrafficRequest,
    ) -> impl Future<Output = Result<v1::TrafficReply, RemoteError>> + Send;
}

/// A [`WorkerControl`] behind the generated service.
pub(crate) struct WorkerService<C>(pub(crate) Arc<C>);

/// A [`CoordinatorControl`] behind the generated service.
pub(crate) struct CoordinatorService<C>(pub(crate) Arc<C>);

type Reply<T> = Result<Response<T>, Status>;

fn reply<T>(result: Result<T, RemoteError>) -> Reply<T> {
    result.map(Response::new).map_err(|error| to_status(&error))
}

fn check(protocol: Option<&v1::ProtocolVersion>) -> Result<(), Status> {
    check_protocol(protocol, "the caller").map_err(|error| to_status(&error))
}

// === impl WorkerService ===

#[async_trait]
impl<C: WorkerControl> Worker for WorkerService<C> {
    async fn describe(&self, request: Request<v1::DescribeRequest>) -> Reply<v1::DescribeReply> {
        check(request.get_ref().protocol.as_ref())?;
        reply(self.0.describe(request.into_inner()).await)
    }

    async fn configure(&self, request: Request<v1::ConfigureRequest>) -> Reply<v1::ConfigureReply> {
        check(request.get_ref().protocol.as_ref())?;
        reply(self.0.configure(request.into_inner()).await)
    }

    async fn connect(&self, request: Request<v1::ConnectRequest>) -> Reply<v1::ConnectReply> {
        reply(self.0.connect(request.into_inner()).await)
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Reply<v1::ReleaseReply> {
        reply(self.0.release(request.into_inner()).await)
    }

    async fn traffic(&self, request: Request<v1::TrafficRequest>) -> Reply<v1::TrafficReply> {
        reply(self.0.traffic(request.into_inner()).await)
    }

    async fn chunks(&self, request: Request<v1::ChunksRequest>) -> Reply<v1::ChunksReply> {
        reply(self.0.chunks(request.into_inner()).await)
    }

    type ExchangeStream = tonic::Streaming<v1::Frame>;

    /// Never reached: `server` hands this method's requests to `accept::Exchange`.
    async fn exchange(
        &self,
        _: Request<tonic::Streaming<v1::Frame>>,
    ) -> Reply<Self::ExchangeStream> {
        let words = "exchange streams are not routed to the generated service";
        Err(to_status(&RemoteError::new(ErrorCode::Internal, words)))
    }
}

// === impl CoordinatorService ===

#[async_trait]
impl<C: CoordinatorControl> Coordinator for CoordinatorService<C> {
    async fn describe(&self, request: Request<v1::DescribeRequest>) -> Reply<v1::DescribeReply> {
        check(request.get_ref().protocol.as_ref())?;
        reply(self.0.describe(request.into_inner()).await)
    }

    async fn cluster(&self, request: Request<v1::ClusterRequest>) -> Reply<v1::ClusterReply> {
        reply(self.0.cluster(request.into_inner()).await)
    }

    async fn forward(&self, request: Request<v1::ForwardRequest>) -> Reply<v1::ForwardReply> {
        check(request.get_ref().protocol.as_ref())?;
        reply(self.0.forward(request.into_inner()).await)
    }
    async fn traffic(&self, request: Request<v1::TrafficRequest>) -> Reply<v1::TrafficReply> {
        reply(self.0.traffic(request.into_inner()).await)
    }
}
