//! Opening an exchange stream to a peer.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, StatusCode, Version, header};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::body::Body;
use tower::ServiceExt as _;

use crate::accept::EXCHANGE_PATH;
use crate::channel::{Redial, connect};
use crate::counters::{LinkCounters, WireCounters};
use crate::emulation::{Link, Shaping, link_of_reply, write_hello};
use crate::error::{TransportError, chain};
use crate::options::LinkOptions;
use crate::protocol::StreamHello;
use crate::status::{from_status, read_status};
use crate::stream::{Outbox, OutgoingBody, Reader, Side, StreamSink};

/// One open exchange stream, on a connection of its own.
///
/// Dropping the handle ends the stream: what was queued still goes out, the peer may still answer
/// for `LinkOptions::close_grace`, then the sink hears `CloseReason::Local`. Await
/// [`StreamHandle::close`] before leaving the runtime, or what is queued dies with it.
#[derive(Debug)]
pub struct StreamHandle {
    outbox: Outbox,
    reader: JoinHandle<()>,
    /// Held by the handle; its drop tells the reader that the stream is no longer wanted.
    open: Option<oneshot::Sender<()>>,
}

/// Opens an exchange stream to the worker at `addr`, over a new connection.
///
/// Returns when the peer has accepted; `make_sink` is called once, after that, and the sink gets
/// every message from the first on. The reading task runs on the current runtime.
///
/// # Errors
/// [`TransportError::Connect`] if no one listens, [`TransportError::Protocol`] if the peer speaks
/// another major, [`TransportError::Remote`] with what the peer's acceptor refused,
/// [`TransportError::Deadline`] if accepting takes longer than `options.connect_timeout`,
/// [`TransportError::Unexpected`] if something else than a worker answers,
/// [`TransportError::Emulation`] if one end emulates links and the other does not.
pub async fn open_stream(
    addr: &str,
    hello: StreamHello,
    options: &LinkOptions,
    make_sink: impl FnOnce(Outbox) -> Box<dyn StreamSink>,
) -> Result<StreamHandle, TransportError> {
    open_shaped(addr, hello, options, Shaping::Full, make_sink).await
}

/// The same on an emulated link that a probe may have for itself.
pub(crate) async fn open_shaped(
    addr: &str,
    hello: StreamHello,
    options: &LinkOptions,
    shaping: Shaping,
    make_sink: impl FnOnce(Outbox) -> Box<dyn StreamSink>,
) -> Result<StreamHandle, TransportError> {
    let wire = Arc::new(WireCounters::default());
    let channel = connect(addr, options, Arc::clone(&wire), Redial::No).await?;
    let (outbox, body) = OutgoingBody::new(Side::Caller, Arc::new(LinkCounters::new(wire)));

    let mut request = request(hello, Body::new(body));
    write_hello(options.emulation.as_ref(), shaping, request.headers_mut());
    let reply = channel.clone().oneshot(request);
    let reply = tokio::time::timeout(options.connect_timeout, reply)
        .await
        .map_err(|_| TransportError::Deadline {
            addr: addr.to_owned(),
            waited: options.connect_timeout,
        })?
        .map_err(|error| TransportError::Closed {
            addr: addr.to_owned(),
            reason: chain(&error),
        })?;
    let headers = reply.headers().clone();
    let body = accepted(addr, reply)?;
    let link = link_of_reply(options.emulation.as_ref(), addr, &headers, shaping)?;
    let link = link.filter(Link::is_shaped_here);
    let line = link.as_ref().map(Link::line).transpose()?;
    if let Some(link) = link {
        outbox.emulate(link);
    }

    let sink = make_sink(outbox.clone());
    let limit = options.max_message_bytes;
    let reader = Reader::new(Side::Caller, body, limit, sink, &outbox, line);
    let (open, unwanted) = oneshot::channel::<()>();
    let grace = options.close_grace;
    let reader = tokio::spawn(async move {
        let closing = async move {
            // Never sent to: the wait ends when the handle is gone.
            let _ = unwanted.await;
            tokio::time::sleep(grace).await;
        };
        reader.run(closing).await;
        // The connection lives as long as its channel.
        drop(channel);
    });
    Ok(StreamHandle {
        outbox,
        reader,
        open: Some(open),
    })
}

fn request(hello: StreamHello, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    // Scheme and authority are the channel's.
    *request.uri_mut() = http::Uri::from_static(EXCHANGE_PATH);
    let headers = request.headers_mut();
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    hello.write(headers);
    request
}

/// The body of a reply that accepts the stream.
fn accepted(addr: &str, reply: http::Response<Body>) -> Result<Body, TransportError> {
    let unexpected = |reason| TransportError::Unexpected {
        addr: addr.to_owned(),
        reason,
    };
    if reply.status() != StatusCode::OK {
        return Err(unexpected(format!("HTTP status {}", reply.status())));
    }
    match read_status(reply.headers()) {
        Some(status) if status.code() == Code::Ok => {
            Err(unexpected("it ended the stream at once".to_owned()))
        }
        Some(status) => Err(from_status(addr, &status)),
        None => Ok(reply.into_body()),
    }
}

// === impl StreamHandle ===

impl StreamHandle {
    /// Sends to the peer; clone it for other holders.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Counters of this stream and its connection.
    pub fn counters(&self) -> &Arc<LinkCounters> {
        self.outbox.counters()
    }

    /// Whether the stream is over and its sink has been told.
    pub fn is_closed(&self) -> bool {
        self.reader.is_finished()
    }

    /// Ends the stream in good order and waits until the sink has been told, at most
    /// `LinkOptions::close_grace`. A queue that takes longer keeps going out as long as the
    /// runtime runs, but what the peer says to it is not heard any more.
    pub async fn close(mut self) {
        self.outbox.finish();
        self.open = None;
        // An error means that the sink panicked or the runtime is shutting down: told either way.
        let _ = (&mut self.reader).await;
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.outbox.finish();
    }
}
