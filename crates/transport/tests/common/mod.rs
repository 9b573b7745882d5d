//! A served worker, an echoing acceptor and sinks that remember.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use expertmesh_transport::{
    CloseReason, Health, LinkOptions, Listener, Outbox, RemoteError, StreamAcceptor, StreamHandle,
    StreamHello, StreamSink, TransportError, WorkerControl, open_stream, serve_worker,
};
use expertmesh_wire::{ErrorCode, protocol_version, v1};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

/// Longest wait for something that must happen; only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Message(Bytes),
    Closed(CloseReason),
}

pub(crate) type Events = mpsc::UnboundedReceiver<Event>;

/// Remembers everything.
pub(crate) struct Probe(pub(crate) mpsc::UnboundedSender<Event>);

/// Sends every message back, and reports how its streams ended.
pub(crate) struct Echo {
    pub(crate) closed: mpsc::UnboundedSender<CloseReason>,
}

struct EchoSink {
    outbox: Outbox,
    closed: mpsc::UnboundedSender<CloseReason>,
}

/// A worker whose `configure` fails, and whose `release` waits for `go`.
#[derive(Default)]
pub(crate) struct Control {
    pub(crate) go: Notify,
    pub(crate) entered: Notify,
}

pub(crate) struct Server {
    pub(crate) addr: String,
    pub(crate) health: Health,
    pub(crate) control: Arc<Control>,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) task: JoinHandle<Result<(), TransportError>>,
}

pub(crate) fn probe() -> (Box<dyn StreamSink>, Events) {
    let (sender, events) = mpsc::unbounded_channel();
    (Box::new(Probe(sender)), events)
}

pub(crate) fn start(options: &LinkOptions, acceptor: Arc<dyn StreamAcceptor>) -> Server {
    let listener = Listener::bind("127.0.0.1:0", options).unwrap();
    let (addr, health) = (listener.local_addr().to_string(), listener.health());
    let control = Arc::new(Control::default());
    let (stop, stopped) = oneshot::channel();
    let serving = serve_worker(listener, Arc::clone(&control), acceptor, async {
        let _ = stopped.await;
    });
    Server {
        addr,
        health,
        control,
        stop,
        task: tokio::spawn(serving),
    }
}

/// A server that echoes, and the ends of its streams.
pub(crate) fn echo(options: &LinkOptions) -> (Server, mpsc::UnboundedReceiver<CloseReason>) {
    let (closed, closes) = mpsc::unbounded_channel();
    (start(options, Arc::new(Echo { closed })), closes)
}

pub(crate) async fn open(addr: &str, options: &LinkOptions) -> (StreamHandle, Events) {
    let (sink, events) = probe();
    let handle = open_stream(addr, StreamHello::new(7, 3), options, |_| sink)
        .await
        .unwrap();
    (handle, events)
}

/// `payload` with its gRPC prefix.
pub(crate) fn framed(payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + payload.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(payload.len()).unwrap());
    message.extend_from_slice(payload);
    message.freeze()
}

/// `len` bytes that differ from place to place and from message to message.
pub(crate) fn payload(len: usize, salt: usize) -> Vec<u8> {
    (0..len)
        .map(|at| ((at * 31) ^ (at >> 8) ^ (salt * 7)) as u8)
        .collect()
}

pub(crate) async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("it happens in time")
}

pub(crate) async fn message(events: &mut Events) -> Bytes {
    match soon(events.recv()).await {
        Some(Event::Message(message)) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

pub(crate) async fn closed(events: &mut Events) -> CloseReason {
    match soon(events.recv()).await {
        Some(Event::Closed(reason)) => reason,
        other => panic!("expected the end, got {other:?}"),
    }
}

// === impl Probe ===

impl StreamSink for Probe {
    fn on_message(&mut self, message: Bytes) {
        let _ = self.0.send(Event::Message(message));
    }

    fn on_close(&mut self, reason: CloseReason) {
        let _ = self.0.send(Event::Closed(reason));
    }
}

// === impl Echo ===

impl StreamAcceptor for Echo {
    fn accept(&self, _: StreamHello, outbox: Outbox) -> Result<Box<dyn StreamSink>, RemoteError> {
        Ok(Box::new(EchoSink {
            outbox,
            closed: self.closed.clone(),
        }))
    }
}

impl StreamSink for EchoSink {
    fn on_message(&mut self, message: Bytes) {
        let _ = self.outbox.send(framed(&message));
    }

    fn on_close(&mut self, reason: CloseReason) {
        let _ = self.closed.send(reason);
    }
}

// === impl Control ===

impl WorkerControl for Control {
    async fn describe(&self, _: v1::DescribeRequest) -> Result<v1::DescribeReply, RemoteError> {
        Ok(v1::DescribeReply {
            protocol: Some(protocol_version()),
            name: "worker-3".to_owned(),
            ..Default::default()
        })
    }

    async fn configure(
        &self,
        request: v1::ConfigureRequest,
    ) -> Result<v1::ConfigureReply, RemoteError> {
        let words = format!("session {} has no expert “α”", request.session);
        Err(RemoteError::new(ErrorCode::NotFound, words).about(5))
    }

    async fn connect(&self, request: v1::ConnectRequest) -> Result<v1::ConnectReply, RemoteError> {
        Ok(v1::ConnectReply {
            peers: u32::try_from(request.session).unwrap(),
        })
    }

    async fn release(&self, _: v1::ReleaseRequest) -> Result<v1::ReleaseReply, RemoteError> {
        self.entered.notify_one();
        self.go.notified().await;
        Ok(v1::ReleaseReply {})
    }

    async fn traffic(&self, _: v1::TrafficRequest) -> Result<v1::TrafficReply, RemoteError> {
        Err(RemoteError::new(ErrorCode::Internal, "x".repeat(100_000)))
    }
}
