//! Control calls to workers and coordinators.

use std::sync::Arc;
use std::time::Duration;

use expertmesh_wire::v1;
use tonic::transport::Channel;
use tonic::{Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::channel::{Redial, connect};
use crate::counters::WireCounters;
use crate::error::TransportError;
use crate::glue::coordinator_client::CoordinatorClient as CoordinatorStub;
use crate::glue::worker_client::WorkerClient as WorkerStub;
use crate::options::LinkOptions;
use crate::protocol::OURS;
use crate::status::from_status;

/// Control calls to one worker. Clones share a connection, which is made anew if it ends.
///
/// Every call fails with [`TransportError::Deadline`] after the call timeout,
/// [`TransportError::Closed`] if the connection ends, and [`TransportError::Remote`] with the
/// worker's own error.
#[derive(Debug, Clone)]
pub struct WorkerClient {
    peer: Peer,
    stub: WorkerStub<Channel>,
}

/// Control calls to one coordinator, with the rules of [`WorkerClient`].
#[derive(Debug, Clone)]
pub struct CoordinatorClient {
    peer: Peer,
    stub: CoordinatorStub<Channel>,
}

/// Who is called, and how long the answer may take.
#[derive(Debug, Clone)]
struct Peer {
    addr: Arc<str>,
    call_timeout: Duration,
}

/// Whether the endpoint at `addr` says that it is ready: the gRPC health of the service with the
/// empty name.
///
/// # Errors
/// As [`WorkerClient::connect`]; [`TransportError::Unexpected`] if it offers no health service.
pub async fn check_ready(addr: &str, options: &LinkOptions) -> Result<bool, TransportError> {
    let (peer, channel) = Peer::connect(addr, options).await?;
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let reply = peer.call(HealthClient::new(channel).check(request)).await?;
    Ok(reply.status() == ServingStatus::Serving)
}

// === impl WorkerClient ===

impl WorkerClient {
    /// Connects to the worker at `addr`.
    ///
    /// # Errors
    /// [`TransportError::Connect`] at once if no one listens there, and after
    /// `options.connect_timeout` if nothing answers; [`TransportError::Address`] and
    /// [`TransportError::Option`] for what cannot work anywhere.
    pub async fn connect(addr: &str, options: &LinkOptions) -> Result<Self, TransportError> {
        let (peer, channel) = Peer::connect(addr, options).await?;
        let stub = WorkerStub::new(channel).max_decoding_message_size(options.max_message_bytes);
        Ok(Self { peer, stub })
    }

    /// The same connection with another limit on the time of a call.
    #[must_use]
    pub fn with_call_timeout(mut self, call_timeout: Duration) -> Self {
        self.peer.call_timeout = call_timeout;
        self
    }

    /// Address as given to [`Self::connect`].
    pub fn addr(&self) -> &str {
        &self.peer.addr
    }

    /// Asks who is there.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] if the worker speaks another major; see [`WorkerClient`].
    pub async fn describe(
        &self,
        request: v1::DescribeRequest,
    ) -> Result<v1::DescribeReply, TransportError> {
        let reply = self.peer.call(self.stub.clone().describe(request)).await?;
        self.peer.check_version(reply)
    }

    /// Installs a layer.
    ///
    /// # Errors
    /// See [`WorkerClient`].
    pub async fn configure(
        &self,
        request: v1::ConfigureRequest,
    ) -> Result<v1::ConfigureReply, TransportError> {
        self.peer.call(self.stub.clone().configure(request)).await
    }

    /// Has the worker open its streams to its peers (the call `Connect`).
    ///
    /// # Errors
    /// See [`WorkerClient`].
    pub async fn connect_peers(
        &self,
        request: v1::ConnectRequest,
    ) -> Result<v1::ConnectReply, TransportError> {
        self.peer.call(self.stub.clone().connect(request)).await
    }

    /// Lets go of a session.
    ///
    /// # Errors
    /// See [`WorkerClient`].
    pub async fn release(
        &self,
        request: v1::ReleaseRequest,
    ) -> Result<v1::ReleaseReply, TransportError> {
        self.peer.call(self.stub.clone().release(request)).await
    }

    /// Reads the worker's traffic counters.
    ///
    /// # Errors
    /// See [`WorkerClient`].
    pub async fn traffic(
        &self,
        request: v1::TrafficRequest,
    ) -> Result<v1::TrafficReply, TransportError> {
        self.peer.call(self.stub.clone().traffic(request)).await
    }

    /// Asks what became of the chunks that the worker sent as a home in a step.
    ///
    /// # Errors
    /// See [`WorkerClient`].
    pub async fn chunks(
        &self,
        request: v1::ChunksRequest,
    ) -> Result<v1::ChunksReply, TransportError> {
        self.peer.call(self.stub.clone().chunks(request)).await
    }
}

// === impl CoordinatorClient ===

impl CoordinatorClient {
    /// Connects to the coordinator at `addr`.
    ///
    /// # Errors
    /// As [`WorkerClient::connect`].
    pub async fn connect(addr: &str, options: &LinkOptions) -> Result<Self, TransportError> {
        let (peer, channel) = Peer::connect(addr, options).await?;
        let stub =
            CoordinatorStub::new(channel).max_decoding_message_size(options.max_forward_bytes);
        Ok(Self { peer, stub })
    }

    /// The same connection with another limit on the time of a call.
    #[must_use]
    pub fn with_call_timeout(mut self, call_timeout: Duration) -> Self {
        self.peer.call_timeout = call_timeout;
        self
    }

    /// Address as given to [`Self::connect`].
    pub fn addr(&self) -> &str {
        &self.peer.addr
    }

    /// Asks who is there.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] if the coordinator speaks another major; see
    /// [`WorkerClient`].
    pub async fn describe(
        &self,
        request: v1::DescribeRequest,
    ) -> Result<v1::DescribeReply, TransportError> {
        let reply = self.peer.call(self.stub.clone().describe(request)).await?;
        self.peer.check_version(reply)
    }

    /// Asks for the layer and the placement in use.
    ///
    /// # Errors
    /// See [`WorkerClient`].
    pub async fn cluster(
        &self,
        request: v1::ClusterRequest,
    ) -> Result<v1::ClusterReply, TransportError> {
        self.peer.call(self.stub.clone().cluster(request)).await
    }

    /// Runs one step.
    ///
    /// # Errors
    /// See [`WorkerClient`]; a request or reply beyond `max_forward_bytes` is an error too.
    pub async fn forward(
        &self,
        request: v1::ForwardRequest,
    ) -> Result<v1::ForwardReply, TransportError> {
        self.peer.call(self.stub.clone().forward(request)).await
    }

    /// Reads the traffic counters of the whole cluster.
    ///
    /// # Errors
    /// See [`WorkerClient`].
    pub async fn traffic(
        &self,
        request: v1::TrafficRequest,
    ) -> Result<v1::TrafficReply, TransportError> {
        self.peer.call(self.stub.clone().traffic(request)).await
    }
}

// === impl Peer ===

impl Peer {
    async fn connect(addr: &str, options: &LinkOptions) -> Result<(Self, Channel), TransportError> {
        let wire = Arc::new(WireCounters::default());
        let channel = connect(addr, options, wire, Redial::Yes).await?;
        Ok((
            Self {
                addr: addr.into(),
                call_timeout: options.call_timeout,
            },
            channel,
        ))
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, TransportError> {
        match tokio::time::timeout(self.call_timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(from_status(&self.addr, &status)),
            Err(_) => Err(TransportError::Deadline {
                addr: self.addr.to_string(),
                waited: self.call_timeout,
            }),
        }
    }

    fn check_version(&self, reply: v1::DescribeReply) -> Result<v1::DescribeReply, TransportError> {
        let theirs = reply
            .protocol
            .as_ref()
            .map_or((0, 0), |v| (v.major, v.minor));
        if theirs.0 != OURS.0 {
            let addr = self.addr.to_string();
            return Err(TransportError::Protocol {
                addr,
                ours: OURS,
                theirs,
            });
        }
        Ok(reply)
    }
}
