//! gRPC channels over counted connections.

use std::io;
use std::sync::{Arc, Mutex};

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

use crate::counters::WireCounters;
use crate::error::{TransportError, chain};
use crate::io::{CountingIo, dial};
use crate::options::LinkOptions;

/// What a channel does when its connection has ended and another call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redial {
    /// Connects again: control calls do not depend on each other.
    Yes,
    /// Fails: what a stream carried is gone with its connection.
    No,
}

/// Connects to `addr`, at once, so that the error is the operating system's own.
pub(crate) async fn connect(
    addr: &str,
    options: &LinkOptions,
    wire: Arc<WireCounters>,
    redial: Redial,
) -> Result<Channel, TransportError> {
    options.validate()?;
    let endpoint = endpoint(addr, options)?;
    let first = dial(addr, Arc::clone(&wire), options.connect_timeout).await?;

    let first = Mutex::new(Some(first));
    let (again, limit) = (addr.to_owned(), options.connect_timeout);
    let connector = tower::service_fn(move |_: http::Uri| {
        let ready = first.lock().map_or(None, |mut first| first.take());
        let (addr, wire) = (again.clone(), Arc::clone(&wire));
        async move {
            let io: CountingIo = match (ready, redial) {
                (Some(io), _) => io,
                (None, Redial::Yes) => dial(&addr, wire, limit).await.map_err(io::Error::other)?,
                (None, Redial::No) => return Err(io::ErrorKind::NotConnected.into()),
            };
            Ok::<_, io::Error>(TokioIo::new(io))
        }
    });
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| TransportError::Closed {
            addr: addr.to_owned(),
            reason: chain(&error),
        })
}

fn endpoint(addr: &str, options: &LinkOptions) -> Result<Endpoint, TransportError> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(|error| {
        TransportError::Address {
            addr: addr.to_owned(),
            reason: chain(&error),
        }
    })?;
    let mut endpoint = endpoint
        .max_frame_size(options.http2.max_frame_size)
        .initial_stream_window_size(options.http2.stream_window)
        .initial_connection_window_size(options.http2.connection_window)
        .keep_alive_timeout(options.keepalive_timeout);
    if let Some(interval) = options.keepalive_interval {
        endpoint = endpoint.http2_keep_alive_interval(interval);
    }
    Ok(endpoint)
}
