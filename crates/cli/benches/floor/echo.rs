//! The reference: tonic and nothing of ours.
//!
//! A request's first eight bytes say how many bytes its reply has; both are gRPC messages that
//! are handed to the HTTP/2 body as one `Bytes`.

use std::convert::Infallible;
use std::io::Write as _;
use std::process::Command;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::body::Body;
use tonic::transport::{Endpoint, Server};
use tower::{Service, ServiceExt as _};

use crate::cluster::{Guard, spawn};

/// Tells this program to be an echo server.
pub(crate) const ARGUMENT: &str = "echo-server";
const PATH: &str = "/reference.Echo/Echo";
const PREFIX: usize = 5;
const FRAME: u32 = 1 << 20;
const STREAM_WINDOW: u32 = 64 << 20;
const CONNECTION_WINDOW: u32 = 128 << 20;

#[derive(Clone)]
struct Echo;

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "reference.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (replies, body) = outgoing();
        tokio::spawn(async move {
            let zeros = Bytes::from(vec![0; 64 << 20]);
            let mut body = request.into_body();
            let (mut left, mut wanted) = (0, 0);
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(data) = frame.into_data() else { break };
                if left == 0 {
                    let message = u32::from_be_bytes(data[1..PREFIX].try_into().unwrap());
                    left = PREFIX + message as usize;
                    wanted = u64::from_le_bytes(data[PREFIX..PREFIX + 8].try_into().unwrap());
                }
                left -= data.len();
                if left == 0 && replies.send(zeros.slice(..wanted as usize)).is_err() {
                    break;
                }
            }
        });
        let response = http::Response::builder().header("content-type", "application/grpc");
        Box::pin(async move { Ok(response.body(body).unwrap()) })
    }
}

/// A body that sends what its sender is given.
fn outgoing() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = UnboundedReceiverStream::new(receiver)
        .map(|bytes| Ok::<_, Infallible>(http_body::Frame::data(bytes)));
    (sender, Body::new(StreamBody::new(frames)))
}

/// Prints its address and echoes until it is killed.
pub(crate) async fn serve() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    let incoming = TcpListenerStream::new(listener).map(|stream| {
        let stream = stream?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(stream)
    });
    Server::builder()
        .max_frame_size(FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_service(Echo)
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

/// Streams to echo servers of their own processes.
pub(crate) struct Client {
    streams: Vec<Stream>,
    _servers: Vec<Guard>,
}

struct Stream {
    requests: mpsc::UnboundedSender<Bytes>,
    replies: Body,
}

impl Client {
    pub(crate) async fn start(servers: usize) -> Self {
        let mut guards = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..servers {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let (guard, address) = spawn(command.arg(ARGUMENT));
            guards.push(guard);
            let channel = Endpoint::from_shared(format!("http://{address}"))
                .unwrap()
                .tcp_nodelay(true)
                .max_frame_size(FRAME)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .connect()
                .await
                .unwrap();
            let (requests, body) = outgoing();
            let request = http::Request::post(format!("http://{address}{PATH}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(body)
                .unwrap();
            let replies = channel.oneshot(request).await.unwrap().into_body();
            streams.push(Stream { requests, replies });
        }
        Self {
            streams,
            _servers: guards,
        }
    }

    /// Sends every server its request and waits for all replies.
    pub(crate) async fn round(&mut self, requests: &[Request]) {
        for (stream, request) in self.streams.iter().zip(requests) {
            if !request.message.is_empty() {
                stream.requests.send(request.message.clone()).unwrap();
            }
        }
        let replies = self
            .streams
            .iter_mut()
            .zip(requests)
            .map(|(stream, request)| async move {
                let mut left = request.reply;
                while left > 0 {
                    let frame = stream.replies.frame().await.unwrap().unwrap();
                    left -= frame.into_data().unwrap().len();
                }
            });
        futures_util::future::join_all(replies).await;
    }
}

/// A message made before the rounds, so that the reference does no work but sending it.
pub(crate) struct Request {
    message: Bytes,
    reply: usize,
}

impl Request {
    /// A gRPC message of `len` bytes, prefix included, that asks for a reply of `reply` bytes.
    pub(crate) fn new((len, reply): (usize, usize)) -> Self {
        if len == 0 {
            return Self {
                message: Bytes::new(),
                reply: 0,
            };
        }
        let mut bytes = vec![0; len];
        bytes[1..PREFIX].copy_from_slice(&((len - PREFIX) as u32).to_be_bytes());
        bytes[PREFIX..PREFIX + 8].copy_from_slice(&(reply as u64).to_le_bytes());
        Self {
            message: bytes.into(),
            reply,
        }
    }
}
