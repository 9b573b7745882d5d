//! The serving side of exchange streams, below the generated code: frames stay bytes.

use std::sync::Arc;

use expertmesh_wire::{ErrorCode, RemoteError};
use http::{HeaderValue, Request, Response, header};
use tokio::sync::watch;
use tonic::body::Body;

use crate::counters::{LinkCounters, WireCounters};
use crate::protocol::{OURS, StreamHello, write_version};
use crate::server::stopped;
use crate::status::{to_response, to_status};
use crate::stream::{OutgoingBody, Reader, Side, StreamAcceptor};

/// Path of the one method whose messages this crate frames by itself.
pub(crate) const EXCHANGE_PATH: &str = "/expertmesh.v1.Worker/Exchange";

/// Turns requests for [`EXCHANGE_PATH`] into streams.
#[derive(Clone)]
pub(crate) struct Exchange {
    acceptor: Arc<dyn StreamAcceptor>,
    max_message_bytes: usize,
    /// Becomes true when the server stops; its sender waits until every stream has let go of it.
    stopping: watch::Receiver<bool>,
}

// === impl Exchange ===

impl Exchange {
    pub(crate) fn new(
        acceptor: Arc<dyn StreamAcceptor>,
        max_message_bytes: usize,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            acceptor,
            max_message_bytes,
            stopping,
        }
    }

    /// Answers at once, so that the caller knows before it sends; reading is a task of its own.
    pub(crate) fn open(&self, request: Request<Body>, wire: Arc<WireCounters>) -> Response<Body> {
        match self.accept(request, wire) {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%error, "exchange stream refused");
                to_response(to_status(&error))
            }
        }
    }

    fn accept(
        &self,
        request: Request<Body>,
        wire: Arc<WireCounters>,
    ) -> Result<Response<Body>, RemoteError> {
        let hello = StreamHello::read(request.headers())?;
        let mut stopping = self.stopping.clone();
        if *stopping.borrow() {
            return Err(stopping_error());
        }
        let (outbox, body) = OutgoingBody::new(Side::Server, Arc::new(LinkCounters::new(wire)));
        let sink = self.acceptor.accept(hello, outbox.clone())?;

        let limit = self.max_message_bytes;
        let farewell = outbox.downgrade();
        let reader = Reader::new(Side::Server, request.into_body(), limit, sink, &outbox);
        tokio::spawn(reader.run(async move {
            stopped(&mut stopping).await;
            farewell.fail(stopping_error());
        }));

        let mut response = Response::new(Body::new(body));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        write_version(headers, OURS);
        Ok(response)
    }
}

fn stopping_error() -> RemoteError {
    RemoteError::new(ErrorCode::WorkerLost, "the endpoint is shutting down")
}
