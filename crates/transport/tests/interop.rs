//! Exchange streams whose other end is generated gRPC code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod common;

#[allow(missing_docs, unreachable_pub, dead_code, clippy::all)]
#[rustfmt::skip]
mod stub {
    include!("../src/generated/expertmesh.v1.rs");
}

use common::{closed, echo, framed, message, open, soon};
use expertmesh_transport::{CloseReason, LinkOptions, RemoteError};
use expertmesh_wire::{ErrorCode, v1};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

async fn generated_client(addr: &str) -> stub::worker_client::WorkerClient<Channel> {
    let channel = Channel::from_shared(format!("http://{addr}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    stub::worker_client::WorkerClient::new(channel)
}

fn frame(rows: usize) -> v1::Frame {
    let rows = common::payload(rows, rows).into();
    v1::Frame {
        index: vec![1, 2, 3, 4].into(),
        rows,
        ..Default::default()
    }
}

fn request<T>(frames: T, session: &str) -> Request<T> {
    let mut request = Request::new(frames);
    let metadata = request.metadata_mut();
    metadata.insert("expertmesh-protocol", "1.0".parse().unwrap());
    metadata.insert("expertmesh-session", session.parse().unwrap());
    metadata.insert("expertmesh-endpoint", "4".parse().unwrap());
    request
}

#[tokio::test]
async fn a_generated_client_talks_to_our_exchange() {
    let (server, mut closes) = echo(&LinkOptions::default());
    let mut client = generated_client(&server.addr).await;
    let (sender, frames) = mpsc::unbounded_channel();
    let frames = UnboundedReceiverStream::new(frames);
    let reply = client.exchange(request(frames, "7")).await.unwrap();
    let mut replies = reply.into_inner();
    for rows in [0, 1, 1000, 100_000, 3_000_000] {
        sender.send(frame(rows)).unwrap();
        let reply = soon(replies.next()).await.unwrap().unwrap();
        assert!(reply == frame(rows), "{rows} bytes came back changed");
    }
    // Many at once: the generated side packs several messages into one DATA frame.
    for rows in 0..500 {
        sender.send(frame(rows)).unwrap();
    }
    for rows in 0..500 {
        assert!(soon(replies.next()).await.unwrap().unwrap() == frame(rows));
    }
    drop(sender);
    assert!(soon(replies.next()).await.is_none(), "ends with status OK");
    assert_eq!(soon(closes.recv()).await, Some(CloseReason::Finished));
}

#[tokio::test]
async fn a_generated_client_is_told_what_its_metadata_lacks() {
    let (server, _closes) = echo(&LinkOptions::default());
    let mut client = generated_client(&server.addr).await;
    let bare = Request::new(tokio_stream::empty());
    let status = client.exchange(bare).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("1.0"), "{status}");

    let status = client
        .exchange(request(tokio_stream::empty(), "seven"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("expertmesh-session"), "{status}");
    let detail = v1::ErrorDetail::decode(status.details()).unwrap();
    assert_eq!(
        RemoteError::from_detail(&detail).code,
        ErrorCode::InvalidInput
    );
}

/// Echoes frames, and ends with an error at an empty one.
struct Generated;

type Frames = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::Frame, Status>> + Send>>;

#[tonic::async_trait]
impl stub::worker_server::Worker for Generated {
    async fn describe(
        &self,
        _: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn configure(
        &self,
        _: Request<v1::ConfigureRequest>,
    ) -> Result<Response<v1::ConfigureReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn connect(
        &self,
        _: Request<v1::ConnectRequest>,
    ) -> Result<Response<v1::ConnectReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn release(
        &self,
        _: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn traffic(
        &self,
        _: Request<v1::TrafficRequest>,
    ) -> Result<Response<v1::TrafficReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn chunks(
        &self,
        _: Request<v1::ChunksRequest>,
    ) -> Result<Response<v1::ChunksReply>, Status> {
        Err(Status::unimplemented(""))
    }

    type ExchangeStream = Frames;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::Frame>>,
    ) -> Result<Response<Frames>, Status> {
        assert_eq!(request.metadata().get("expertmesh-endpoint").unwrap(), "3");
        let replies = request.into_inner().map(|frame| match frame {
            Ok(frame) if frame.rows.is_empty() => Err(Status::resource_exhausted("no rows")),
            frame => frame,
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

async fn generated_server() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let service =
        stub::worker_server::WorkerServer::new(Generated).max_decoding_message_size(1 << 26);
    let server = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    addr
}

#[tokio::test]
async fn our_stream_talks_to_a_generated_server() {
    let addr = generated_server().await;
    let (stream, mut events) = open(&addr, &LinkOptions::default()).await;
    for rows in [1, 1000, 100_000, 3_000_000] {
        stream
            .outbox()
            .send(framed(&frame(rows).encode_to_vec()))
            .unwrap();
        let reply = v1::Frame::decode(message(&mut events).await).unwrap();
        assert!(reply == frame(rows), "{rows} bytes came back changed");
    }
    soon(stream.close()).await;
    assert_eq!(closed(&mut events).await, CloseReason::Finished);
}

#[tokio::test]
async fn a_status_of_a_generated_server_becomes_a_typed_error() {
    let addr = generated_server().await;
    let (stream, mut events) = open(&addr, &LinkOptions::default()).await;
    stream
        .outbox()
        .send(framed(&frame(0).encode_to_vec()))
        .unwrap();
    let CloseReason::Remote(error) = closed(&mut events).await else {
        panic!("the server ends with an error");
    };
    assert_eq!(
        (error.code, error.message.as_str()),
        (ErrorCode::InvalidInput, "no rows")
    );
    drop(stream);
}
