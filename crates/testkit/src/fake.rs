//! What poses as a worker: control calls go well, frames are answered as a test wants.

use std::sync::Arc;

use bytes::Bytes;
use expertmesh_kernels::NUMERICS;
use expertmesh_transport::{
    CloseReason, LinkOptions, Listener, Outbox, RemoteError, StreamAcceptor, StreamHello,
    StreamSink, WorkerControl, boot_id, serve_worker,
};
use expertmesh_wire::{FrameView, PROTOCOL_MAJOR, PROTOCOL_MINOR, v1};

use crate::node::Node;

/// What a fake worker says to a frame from an endpoint: messages, each with its prefix.
pub type Answer = Arc<dyn Fn(u32, &FrameView) -> Vec<Bytes> + Send + Sync>;

/// A worker that holds nothing.
#[derive(Clone)]
pub struct FakeWorker {
    /// The protocol version that it says it speaks.
    pub protocol: (u32, u32),
    /// Its answer to every frame.
    pub answer: Answer,
}

struct Sink {
    from: u32,
    outbox: Outbox,
    answer: Answer,
}

// === impl FakeWorker ===

impl FakeWorker {
    /// Accepts rows and never answers.
    pub fn swallows() -> Self {
        Self::answers(|_, _| Vec::new())
    }

    /// Answers each frame with the messages that `answer` gives.
    pub fn answers(answer: impl Fn(u32, &FrameView) -> Vec<Bytes> + Send + Sync + 'static) -> Self {
        Self {
            protocol: (PROTOCOL_MAJOR, PROTOCOL_MINOR),
            answer: Arc::new(answer),
        }
    }

    /// Serves it.
    pub fn start(self) -> Node {
        self.start_on(&LinkOptions::default())
    }

    /// Serves it on links of a kind.
    pub fn start_on(self, options: &LinkOptions) -> Node {
        let listener = Listener::bind("127.0.0.1:0", options).expect("a free port");
        let addr = listener.local_addr();
        Node::serve(addr, |shutdown| async move {
            let acceptor: Arc<dyn StreamAcceptor> = Arc::new(self.clone());
            let served = serve_worker(listener, Arc::new(self), acceptor, shutdown).await;
            served.expect("a fake worker that serves");
        })
    }
}

impl WorkerControl for FakeWorker {
    async fn describe(
        &self,
        _request: v1::DescribeRequest,
    ) -> Result<v1::DescribeReply, RemoteError> {
        let (major, minor) = self.protocol;
        Ok(v1::DescribeReply {
            protocol: Some(v1::ProtocolVersion { major, minor }),
            version: "fake".to_owned(),
            name: "fake".to_owned(),
            boot_id: boot_id(),
            cores: 1,
            threads: 1,
            numerics: NUMERICS.to_owned(),
        })
    }

    async fn configure(
        &self,
        _request: v1::ConfigureRequest,
    ) -> Result<v1::ConfigureReply, RemoteError> {
        Ok(v1::ConfigureReply::default())
    }

    async fn connect(&self, _request: v1::ConnectRequest) -> Result<v1::ConnectReply, RemoteError> {
        Ok(v1::ConnectReply::default())
    }

    async fn release(&self, _request: v1::ReleaseRequest) -> Result<v1::ReleaseReply, RemoteError> {
        Ok(v1::ReleaseReply::default())
    }

    async fn traffic(&self, _request: v1::TrafficRequest) -> Result<v1::TrafficReply, RemoteError> {
        Ok(v1::TrafficReply::default())
    }
}

impl StreamAcceptor for FakeWorker {
    fn accept(
        &self,
        hello: StreamHello,
        outbox: Outbox,
    ) -> Result<Box<dyn StreamSink>, RemoteError> {
        Ok(Box::new(Sink {
            from: hello.endpoint,
            outbox,
            answer: Arc::clone(&self.answer),
        }))
    }
}

// === impl Sink ===

impl StreamSink for Sink {
    fn on_message(&mut self, message: Bytes) {
        let Ok(frame) = FrameView::read(message) else {
            return;
        };
        for message in (self.answer)(self.from, &frame) {
            // The caller may be gone, as far as a fake cares.
            let _ = self.outbox.send(message);
        }
    }

    fn on_close(&mut self, _reason: CloseReason) {}
}
