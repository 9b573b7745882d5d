//! Listening, serving, stopping.

mod dispatch;
mod health;

use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

pub use crate::server::health::Health;

use crate::accept::Exchange;
use crate::control::{CoordinatorControl, CoordinatorService, WorkerControl, WorkerService};
use crate::counters::WireCounters;
use crate::error::{TransportError, chain};
use crate::glue::{coordinator_server, worker_server};
use crate::io::CountingIo;
use crate::options::LinkOptions;
use crate::server::dispatch::Dispatch;
use crate::server::health::Reporter;
use crate::stream::StreamAcceptor;

/// A bound address: connections queue until it is served.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    addr: SocketAddr,
    options: LinkOptions,
    health: Health,
}

/// Bytes of one stream that HTTP/2 takes from its outbox ahead of the socket. hyper takes 400 KiB
/// on servers unless told otherwise; this is what its clients take.
const SEND_BUFFER: usize = 1 << 20;

/// Pause after a failed accept: when descriptors run out, trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves a worker's control calls and exchange streams until `shutdown` completes.
///
/// Then the port is closed, streams end with `WORKER_LOST` for their callers and
/// `CloseReason::Local` for their sinks, calls in flight get `LinkOptions::close_grace`, and the
/// function returns.
///
/// # Errors
/// [`TransportError::Bind`] if the runtime cannot take the listener over.
pub async fn serve_worker<W: WorkerControl>(
    listener: Listener,
    control: Arc<W>,
    acceptor: Arc<dyn StreamAcceptor>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), TransportError> {
    let limit = listener.options.max_message_bytes;
    let service =
        worker_server::WorkerServer::new(WorkerService(control)).max_decoding_message_size(limit);
    let (stop, stopping) = watch::channel(false);
    let dispatch = Dispatch::new(
        Routes::new(service),
        Some(Exchange::new(acceptor, listener.options.clone(), stopping)),
    );
    serve(
        listener,
        worker_server::SERVICE_NAME,
        dispatch,
        stop,
        shutdown,
    )
    .await
}

/// Serves a coordinator's calls until `shutdown` completes; stops as [`serve_worker`] does.
///
/// # Errors
/// [`TransportError::Bind`] if the runtime cannot take the listener over.
pub async fn serve_coordinator<C: CoordinatorControl>(
    listener: Listener,
    control: Arc<C>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), TransportError> {
    let service = coordinator_server::CoordinatorServer::new(CoordinatorService(control))
        .max_decoding_message_size(listener.options.max_forward_bytes);
    let (stop, _) = watch::channel(false);
    let dispatch = Dispatch::new(Routes::new(service), None);
    serve(
        listener,
        coordinator_server::SERVICE_NAME,
        dispatch,
        stop,
        shutdown,
    )
    .await
}

async fn serve(
    listener: Listener,
    service_name: &'static str,
    dispatch: Dispatch,
    stop: watch::Sender<bool>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), TransportError> {
    let Listener {
        inner,
        addr,
        options,
        health,
    } = listener;
    let takeover = |source| TransportError::Bind {
        addr: addr.to_string(),
        source,
    };
    let inner = tokio::net::TcpListener::from_std(inner).map_err(takeover)?;
    let (mut reporter, health_service) = Reporter::new(&health, service_name).await;
    let dispatch = dispatch.with_health(health_service);
    let builder = Arc::new(http2_builder(&options));

    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = inner.accept() => match accepted {
                Ok((stream, peer)) => {
                    tracing::debug!(%peer, "connection accepted");
                    let stopping = stop.subscribe();
                    let dispatch = dispatch.clone();
                    connections.spawn(connection(stream, dispatch, Arc::clone(&builder), stopping));
                }
                Err(error) => {
                    tracing::warn!(%error, %addr, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = reporter.changed() => reporter.report().await,
        }
    }

    // The port is free again, and nobody starts to wait for an answer that will not come.
    drop(inner);
    drop(dispatch);
    reporter.stop().await;
    stop.send_replace(true);
    let drained = tokio::time::timeout(options.close_grace, async {
        while connections.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!(%addr, "calls still in flight after the grace period are cut off");
        connections.shutdown().await;
    }
    // Sinks are told before this returns: their tasks end as soon as they see `stop`.
    stop.closed().await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    dispatch: Dispatch,
    builder: Arc<Builder<TokioExecutor>>,
    mut stopping: watch::Receiver<bool>,
) {
    let wire = Arc::new(WireCounters::default());
    let io = match CountingIo::new(stream, Arc::clone(&wire)) {
        Ok(io) => io,
        Err(error) => return tracing::debug!(%error, "connection lost before its first byte"),
    };
    let service = TowerToHyperService::new(dispatch.on_connection(wire));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %chain(error.as_ref()), "connection ended");
    }
}

/// Waits until the server stops.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is the same.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn http2_builder(options: &LinkOptions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_frame_size(options.http2.max_frame_size)
        .initial_stream_window_size(options.http2.stream_window)
        .initial_connection_window_size(options.http2.connection_window)
        .keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .max_send_buf_size(SEND_BUFFER);
    builder
}

// === impl Listener ===

impl Listener {
    /// Listens on `addr`, `host:port`; port 0 takes any free one, told by [`Self::local_addr`].
    ///
    /// Needs no runtime. `options` hold for every connection that is accepted here.
    ///
    /// # Errors
    /// [`TransportError::Bind`] if the port is taken or not ours to take,
    /// [`TransportError::Address`] if `addr` names no address, [`TransportError::Option`] if an
    /// option is out of range.
    pub fn bind(addr: &str, options: &LinkOptions) -> Result<Self, TransportError> {
        options.validate()?;
        let bind = |source| TransportError::Bind {
            addr: addr.to_owned(),
            source,
        };
        let resolved = addr
            .to_socket_addrs()
            .map_err(|error| TransportError::Address {
                addr: addr.to_owned(),
                reason: error.to_string(),
            })?;
        let resolved: Vec<SocketAddr> = resolved.collect();
        let inner = TcpListener::bind(resolved.as_slice()).map_err(bind)?;
        inner.set_nonblocking(true).map_err(bind)?;
        let local = inner.local_addr().map_err(bind)?;
        Ok(Self {
            inner,
            addr: local,
            options: options.clone(),
            health: Health::default(),
        })
    }

    /// The address in use, with the port that the system chose if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Says to health probes whether this endpoint is ready.
    pub fn health(&self) -> Health {
        self.health.clone()
    }
}
