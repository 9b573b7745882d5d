//! Which request goes to whom.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tower::{BoxError, Service};

use crate::accept::{EXCHANGE_PATH, Exchange};
use crate::counters::WireCounters;

/// Exchange streams go to our own framing, health probes to the health service, and everything
/// else to the generated service.
///
/// The generated service and the exchange share a name, so the name alone cannot tell them apart.
#[derive(Clone)]
pub(super) struct Dispatch {
    service: Routes,
    health: Routes,
    exchange: Option<Exchange>,
    wire: Arc<WireCounters>,
}

const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";

// === impl Dispatch ===

impl Dispatch {
    pub(super) fn new(service: Routes, exchange: Option<Exchange>) -> Self {
        Self {
            service,
            health: Routes::default(),
            exchange,
            wire: Arc::default(),
        }
    }

    pub(super) fn with_health(mut self, health: Routes) -> Self {
        self.health = health;
        self
    }

    /// The dispatch of one connection, whose streams find their wire counters in it.
    pub(super) fn on_connection(mut self, wire: Arc<WireCounters>) -> Self {
        self.wire = wire;
        self
    }
}

impl<B> Service<Request<B>> for Dispatch
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        if let (EXCHANGE_PATH, Some(exchange)) = (path, &self.exchange) {
            let response = exchange.open(request.map(Body::new), Arc::clone(&self.wire));
            return Box::pin(std::future::ready(Ok(response)));
        }
        let routes = if path.starts_with(HEALTH_PREFIX) {
            &mut self.health
        } else {
            &mut self.service
        };
        Box::pin(routes.call(request))
    }
}
