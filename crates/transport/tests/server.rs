//! Listening, control calls, readiness and stopping.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod common;

use std::time::{Duration, Instant};

use common::{PATIENCE, closed, echo, framed, message, open, probe, soon};
use expertmesh_transport::{
    CloseReason, CoordinatorClient, CoordinatorControl, LinkOptions, Listener, RemoteError,
    StreamHello, TransportError, WorkerClient, check_ready, open_stream, serve_coordinator,
};
use expertmesh_wire::{ErrorCode, protocol_version, v1};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_do() {
    let options = LinkOptions::default();
    let first = Listener::bind("127.0.0.1:0", &options).unwrap();
    let addr = first.local_addr().to_string();
    let error = Listener::bind(&addr, &options).unwrap_err();
    assert!(matches!(error, TransportError::Bind { .. }));
    let words = error.to_string();
    assert!(
        words.contains(&addr) && words.contains("port is taken"),
        "{words}"
    );
}

#[tokio::test]
async fn addresses_and_options_that_cannot_work_are_errors() {
    let options = LinkOptions::default();
    for addr in ["", "localhost", "127.0.0.1:99999", "::1:x"] {
        let error = Listener::bind(addr, &options).unwrap_err();
        assert!(
            matches!(error, TransportError::Address { .. }),
            "{addr}: {error:?}"
        );
        let error = WorkerClient::connect(addr, &options).await.unwrap_err();
        assert!(
            matches!(error, TransportError::Address { .. }),
            "{addr}: {error:?}"
        );
    }
    let mut options = LinkOptions::default();
    options.http2.max_frame_size = 1 << 24;
    let words = Listener::bind("127.0.0.1:0", &options)
        .unwrap_err()
        .to_string();
    assert!(
        words.contains("max_frame_size") && words.contains("16777215"),
        "{words}"
    );
}

#[tokio::test]
async fn nobody_listening_is_said_quickly() {
    let options = LinkOptions::default();
    let addr = {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        free.local_addr().unwrap().to_string()
    };
    let begun = Instant::now();
    let call = WorkerClient::connect(&addr, &options).await.unwrap_err();
    let stream = open_stream(&addr, StreamHello::new(1, 0), &options, |_| probe().0).await;
    for error in [call, stream.unwrap_err()] {
        let words = error.to_string();
        assert!(
            words.contains(&format!("no one listens at {addr}")),
            "{words}"
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_listener_that_never_answers_meets_the_deadline() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = mute.local_addr().unwrap().to_string();
    let limit = Duration::from_millis(50);
    let options = LinkOptions {
        connect_timeout: limit,
        call_timeout: limit,
        ..LinkOptions::default()
    };
    let stream = open_stream(&addr, StreamHello::new(1, 0), &options, |_| probe().0).await;
    let client = WorkerClient::connect(&addr, &options).await.unwrap();
    let call = client.describe(v1::DescribeRequest::default()).await;
    for error in [stream.unwrap_err(), call.unwrap_err()] {
        assert!(
            matches!(error, TransportError::Deadline { .. }),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_peer_that_speaks_something_else_is_an_error_not_a_hang() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = other.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        while let Ok((mut socket, _)) = other.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let options = LinkOptions::default();
    let stream = soon(open_stream(&addr, StreamHello::new(1, 0), &options, |_| {
        probe().0
    }))
    .await;
    assert!(matches!(stream.unwrap_err(), TransportError::Closed { .. }));
    let client = WorkerClient::connect(&addr, &options).await.unwrap();
    let call = soon(client.describe(v1::DescribeRequest::default())).await;
    assert!(matches!(call.unwrap_err(), TransportError::Closed { .. }));
}

#[tokio::test]
async fn control_calls_and_their_errors_keep_their_meaning() {
    let options = LinkOptions::default();
    let (server, _closes) = echo(&options);
    let client = WorkerClient::connect(&server.addr, &options).await.unwrap();

    let protocol = Some(protocol_version());
    let reply = client
        .describe(v1::DescribeRequest { protocol })
        .await
        .unwrap();
    assert_eq!(reply.name, "worker-3");

    let request = v1::ConfigureRequest {
        session: 11,
        protocol,
        ..Default::default()
    };
    let Err(TransportError::Remote(error)) = client.configure(request).await else {
        panic!("configure fails");
    };
    assert_eq!(error.code, ErrorCode::NotFound);
    assert_eq!(error.endpoint, Some(5));
    assert_eq!(error.message, "session 11 has no expert “α”");

    let reply = client
        .connect_peers(v1::ConnectRequest { session: 4 })
        .await
        .unwrap();
    assert_eq!(reply.peers, 4);

    let Err(TransportError::Remote(error)) = client.traffic(Default::default()).await else {
        panic!("traffic fails");
    };
    assert!(
        error.message.len() < 3000,
        "a long message is cut to what headers may hold"
    );

    let protocol = Some(v1::ProtocolVersion { major: 2, minor: 7 });
    let request = v1::ConfigureRequest {
        protocol,
        ..Default::default()
    };
    let error = client.configure(request).await.unwrap_err();
    assert!(
        matches!(error, TransportError::Protocol { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_client_outlives_the_connection_it_began_with() {
    let options = LinkOptions::default();
    let (server, _closes) = echo(&options);
    let client = WorkerClient::connect(&server.addr, &options).await.unwrap();
    let request = v1::DescribeRequest {
        protocol: Some(protocol_version()),
    };
    client.describe(request).await.unwrap();
    server.stop.send(()).unwrap();
    soon(server.task).await.unwrap().unwrap();

    let error = client.describe(request).await.unwrap_err();
    assert!(matches!(error, TransportError::Closed { .. }), "{error:?}");
    let words = error.to_string();
    assert!(
        words.contains("no one listens") || words.contains("refused"),
        "{words}"
    );
}

#[tokio::test]
async fn probes_see_readiness_change() {
    let options = LinkOptions::default();
    let (server, _closes) = echo(&options);
    assert!(!check_ready(&server.addr, &options).await.unwrap());
    server.health.set_ready(true);
    soon(async { while !check_ready(&server.addr, &options).await.unwrap() {} }).await;
    server.health.set_ready(false);
    soon(async { while check_ready(&server.addr, &options).await.unwrap() {} }).await;
}

#[tokio::test]
async fn stopping_ends_streams_at_once_and_lets_calls_finish() {
    let options = LinkOptions {
        close_grace: PATIENCE,
        ..LinkOptions::default()
    };
    let (server, mut closes) = echo(&options);
    let (stream, mut events) = open(&server.addr, &options).await;
    stream.outbox().send(framed(b"hello")).unwrap();
    message(&mut events).await;
    let client = WorkerClient::connect(&server.addr, &options).await.unwrap();
    let call = tokio::spawn(async move { client.release(v1::ReleaseRequest::default()).await });
    soon(server.control.entered.notified()).await;

    server.stop.send(()).unwrap();
    assert_eq!(soon(closes.recv()).await, Some(CloseReason::Local));
    let CloseReason::Remote(error) = closed(&mut events).await else {
        panic!("the caller is told");
    };
    assert_eq!(error.code, ErrorCode::WorkerLost);
    assert!(!call.is_finished() && !server.task.is_finished());
    server.control.go.notify_one();
    soon(call).await.unwrap().unwrap();
    soon(server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_call_beyond_the_grace() {
    let grace = Duration::from_millis(50);
    let options = LinkOptions {
        close_grace: grace,
        ..LinkOptions::default()
    };
    let (server, _closes) = echo(&options);
    let client = WorkerClient::connect(&server.addr, &options).await.unwrap();
    let call = tokio::spawn(async move { client.release(v1::ReleaseRequest::default()).await });
    soon(server.control.entered.notified()).await;
    let begun = Instant::now();
    server.stop.send(()).unwrap();
    soon(server.task).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    let error = soon(call).await.unwrap().unwrap_err();
    assert!(matches!(error, TransportError::Closed { .. }), "{error:?}");
}

struct Mirror;

impl CoordinatorControl for Mirror {
    async fn describe(&self, _: v1::DescribeRequest) -> Result<v1::DescribeReply, RemoteError> {
        // An endpoint of the future.
        let protocol = Some(v1::ProtocolVersion { major: 3, minor: 1 });
        Ok(v1::DescribeReply {
            protocol,
            ..Default::default()
        })
    }

    async fn cluster(&self, _: v1::ClusterRequest) -> Result<v1::ClusterReply, RemoteError> {
        Ok(v1::ClusterReply {
            family: "mixtral".to_owned(),
            ..Default::default()
        })
    }

    async fn forward(&self, request: v1::ForwardRequest) -> Result<v1::ForwardReply, RemoteError> {
        Ok(v1::ForwardReply {
            output: request.hidden_states,
            ..Default::default()
        })
    }

    async fn traffic(&self, _: v1::TrafficRequest) -> Result<v1::TrafficReply, RemoteError> {
        Ok(v1::TrafficReply::default())
    }
}

#[tokio::test]
async fn forward_carries_more_than_a_stream_message_but_not_more_than_its_limit() {
    let options = LinkOptions {
        max_message_bytes: 1 << 20,
        max_forward_bytes: 8 << 20,
        ..LinkOptions::default()
    };
    let listener = Listener::bind("127.0.0.1:0", &options).unwrap();
    let addr = listener.local_addr().to_string();
    tokio::spawn(serve_coordinator(
        listener,
        Mirror.into(),
        std::future::pending(),
    ));
    let client = CoordinatorClient::connect(&addr, &options).await.unwrap();
    let request = |len: usize| v1::ForwardRequest {
        protocol: Some(protocol_version()),
        hidden_states: common::payload(len, 1).into(),
        ..Default::default()
    };
    let reply = client.forward(request(6 << 20)).await.unwrap();
    assert!(reply.output == common::payload(6 << 20, 1));
    let error = client.forward(request(9 << 20)).await.unwrap_err();
    assert!(matches!(
        error,
        TransportError::Remote(RemoteError {
            code: ErrorCode::InvalidInput,
            ..
        })
    ));

    assert_eq!(
        client.cluster(v1::ClusterRequest {}).await.unwrap().family,
        "mixtral"
    );
    let request = v1::DescribeRequest {
        protocol: Some(protocol_version()),
    };
    let error = client.describe(request).await.unwrap_err();
    let words = error.to_string();
    assert!(words.contains("3.1") && words.contains("1.0"), "{words}");

    // A coordinator is no worker.
    let stream = open_stream(&addr, StreamHello::new(1, 0), &options, |_| probe().0).await;
    assert!(matches!(
        stream.unwrap_err(),
        TransportError::Unexpected { .. }
    ));
}

#[test]
fn what_callers_await_may_move_between_threads() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    fn movable<T: Send + Sync>() {}
    let options = LinkOptions::default();
    drop(send(open_stream(
        "x:1",
        StreamHello::new(1, 0),
        &options,
        |_| probe().0,
    )));
    drop(send(WorkerClient::connect("x:1", &options)));
    drop(send(check_ready("x:1", &options)));
    let listener = Listener::bind("127.0.0.1:0", &options).unwrap();
    drop(send(serve_coordinator(
        listener,
        Mirror.into(),
        std::future::pending(),
    )));
    movable::<expertmesh_transport::Outbox>();
    movable::<expertmesh_transport::StreamHandle>();
    movable::<WorkerClient>();
}
