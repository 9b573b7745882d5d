//! The serving side of exchange streams, below the generated code: frames stay bytes.

use std::sync::Arc;

use expertmesh_wire::{ErrorCode, RemoteError};
use http::{HeaderValue, Request, Response, header};
use tokio::sync::watch;
use tonic::body::Body;

use crate::counters::{LinkCounters, WireCounters};
use crate::emulation::{Link, ProbeSink, Shaping, link_of_caller, write_hello};
use crate::options::LinkOptions;
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
    options: LinkOptions,
    /// Becomes true when the server stops; its sender waits until every stream has let go of it.
    stopping: watch::Receiver<bool>,
}

// === impl Exchange ===

impl Exchange {
    pub(crate) fn new(
        acceptor: Arc<dyn StreamAcceptor>,
        options: LinkOptions,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            acceptor,
            options,
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
        let emulation = self.options.emulation.as_ref();
        let link = link_of_caller(emulation, request.headers())?;
        let shaping = link.as_ref().map_or(Shaping::Full, |link| link.shaping());
        let link = link.filter(Link::is_shaped_here);
        let line = link.as_ref().map(Link::line).transpose();
        let line =
            line.map_err(|error| RemoteError::new(ErrorCode::Internal, error.to_string()))?;
        if let Some(link) = link {
            outbox.emulate(link);
        }
        let sink = match shaping {
            Shaping::Full => self.acceptor.accept(hello, outbox.clone())?,
            Shaping::Quiet | Shaping::Bare => ProbeSink::boxed(outbox.clone(), &self.options),
        };

        let limit = self.options.max_message_bytes;
        let farewell = outbox.downgrade();
        let reader = Reader::new(
            Side::Server,
            request.into_body(),
            limit,
            sink,
            &outbox,
            line,
        );
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
        write_hello(emulation, shaping, headers);
        Ok(response)
    }
}

fn stopping_error() -> RemoteError {
    RemoteError::new(ErrorCode::WorkerLost, "the endpoint is shutting down")
}
