//! Exchange streams between two of our own ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{Event, closed, echo, framed, message, open, payload, probe, soon, start};
use expertmesh_transport::{
    CloseReason, LinkOptions, Outbox, RemoteError, StreamAcceptor, StreamHello, StreamSink,
    TransportError, open_stream,
};
use expertmesh_wire::ErrorCode;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const SIZES: [usize; 12] = [
    0,
    1,
    5,
    64,
    4 << 10,
    16_379,
    16_384,
    64 << 10,
    (1 << 20) - 5,
    1 << 20,
    (1 << 20) + 1,
    5 << 20,
];

#[tokio::test]
async fn messages_of_every_size_come_back_as_they_were() {
    let options = LinkOptions::default();
    let (server, mut closes) = echo(&options);
    let (stream, mut events) = open(&server.addr, &options).await;
    for (salt, len) in SIZES.into_iter().enumerate() {
        let sent = payload(len, salt);
        stream.outbox().send(framed(&sent)).unwrap();
        assert!(
            message(&mut events).await == sent,
            "{len} bytes came back changed"
        );
    }
    soon(stream.close()).await;
    assert_eq!(closed(&mut events).await, CloseReason::Finished);
    assert_eq!(events.recv().await, None, "nothing follows the end");
    assert_eq!(soon(closes.recv()).await, Some(CloseReason::Finished));
}

#[tokio::test]
async fn a_burst_of_messages_keeps_its_order() {
    let options = LinkOptions::default();
    let (server, _closes) = echo(&options);
    let (stream, mut events) = open(&server.addr, &options).await;
    for index in 0..5_000_u32 {
        stream.outbox().send(framed(&index.to_le_bytes())).unwrap();
    }
    for index in 0..5_000_u32 {
        assert_eq!(message(&mut events).await, index.to_le_bytes().as_slice());
    }
}

#[tokio::test]
async fn what_is_queued_before_a_drop_still_arrives() {
    let options = LinkOptions::default();
    let (server, mut closes) = echo(&options);
    let (stream, mut events) = open(&server.addr, &options).await;
    stream.outbox().send(framed(b"last words")).unwrap();
    let outbox = stream.outbox().clone();
    drop(stream);
    assert!(outbox.send(framed(b"too late")).is_err());
    assert_eq!(message(&mut events).await, b"last words".as_slice());
    assert_eq!(closed(&mut events).await, CloseReason::Finished);
    assert_eq!(soon(closes.recv()).await, Some(CloseReason::Finished));
}

#[tokio::test]
async fn counters_say_what_was_handed_over_and_what_the_sockets_carried() {
    const STREAMS: usize = 4;
    const MESSAGES: usize = 16;
    let options = LinkOptions::default();
    let (server, mut closes) = echo(&options);
    let sent = framed(&payload(256 << 10, 1));
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(open(&server.addr, &options).await);
    }
    for _ in 0..MESSAGES {
        for (stream, _) in &streams {
            stream.outbox().send(sent.clone()).unwrap();
        }
    }
    let handed = (sent.len() * MESSAGES) as u64;
    for (stream, events) in &mut streams {
        for _ in 0..MESSAGES {
            message(events).await;
        }
        let totals = stream.counters().totals();
        assert_eq!(totals.messages_out, MESSAGES as u64);
        assert_eq!(totals.message_bytes_out, handed);
        assert_eq!(totals.messages_in, MESSAGES as u64);
        assert_eq!(totals.message_bytes_in, handed);
        for wire in [totals.wire_bytes_out, totals.wire_bytes_in] {
            let overhead = wire as f64 / handed as f64 - 1.0;
            assert!(
                (0.0..0.03).contains(&overhead),
                "overhead {overhead} of {wire} wire bytes"
            );
        }
    }
    for (stream, _) in streams {
        soon(stream.close()).await;
        assert_eq!(soon(closes.recv()).await, Some(CloseReason::Finished));
    }
}

#[tokio::test]
async fn the_serving_side_counts_the_same_bytes() {
    struct Counted(tokio::sync::mpsc::UnboundedSender<Outbox>);
    impl StreamAcceptor for Counted {
        fn accept(&self, hello: StreamHello, outbox: Outbox) -> Accepted {
            assert_eq!((hello.session, hello.endpoint), (7, 3));
            self.0.send(outbox).unwrap();
            Ok(probe().0)
        }
    }
    let options = LinkOptions::default();
    let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
    let server = start(&options, Arc::new(Counted(sender)));
    let (stream, mut events) = open(&server.addr, &options).await;
    let outbox = soon(accepted.recv()).await.unwrap();
    let ours = Arc::clone(stream.counters());
    let theirs = Arc::clone(outbox.counters());

    stream.outbox().send(framed(&payload(1000, 0))).unwrap();
    stream.outbox().finish();
    outbox.send(framed(b"ok")).unwrap();
    assert_eq!(message(&mut events).await, b"ok".as_slice());
    outbox.finish();
    assert_eq!(closed(&mut events).await, CloseReason::Finished);
    soon(stream.close()).await;
    server.stop.send(()).unwrap();
    soon(server.task).await.unwrap().unwrap();

    let (ours, theirs) = (ours.totals(), theirs.totals());
    assert_eq!(ours.message_bytes_out, 1005);
    assert_eq!(theirs.message_bytes_in, 1005);
    assert_eq!((theirs.messages_out, theirs.message_bytes_out), (1, 7));
    assert_eq!(theirs.wire_bytes_in, ours.wire_bytes_out);
    assert!(theirs.wire_bytes_out >= ours.wire_bytes_in && ours.wire_bytes_in > 7);
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_the_stream_and_both_sides_hear_why() {
    let small = LinkOptions {
        max_message_bytes: 1000,
        ..LinkOptions::default()
    };
    let (server, mut closes) = echo(&small);
    let (stream, mut events) = open(&server.addr, &LinkOptions::default()).await;
    stream.outbox().send(framed(&payload(1000, 0))).unwrap();
    assert_eq!(message(&mut events).await.len(), 1000);
    stream.outbox().send(framed(&payload(1001, 0))).unwrap();

    let Some(CloseReason::Refused(refused)) = soon(closes.recv()).await else {
        panic!("the server refuses");
    };
    assert_eq!(refused.code, ErrorCode::BadFrame);
    assert!(refused.message.contains("1001 bytes") && refused.message.contains("1000 bytes"));
    assert_eq!(closed(&mut events).await, CloseReason::Remote(refused));
    assert!(stream.outbox().send(framed(b"more")).is_err());
}

#[tokio::test]
async fn the_caller_refuses_an_oversized_message_too() {
    let small = LinkOptions {
        max_message_bytes: 1000,
        ..LinkOptions::default()
    };
    let (server, mut closes) = echo(&LinkOptions::default());
    let (stream, mut events) = open(&server.addr, &small).await;
    stream.outbox().send(framed(&payload(1001, 0))).unwrap();
    let CloseReason::Refused(refused) = closed(&mut events).await else {
        panic!("the caller refuses");
    };
    assert_eq!(refused.code, ErrorCode::BadFrame);
    assert!(soon(closes.recv()).await.is_some());
}

#[tokio::test]
async fn another_protocol_major_is_refused_with_both_versions() {
    let options = LinkOptions::default();
    let (server, _closes) = echo(&options);
    let hello = StreamHello {
        protocol_major: 9,
        protocol_minor: 4,
        ..StreamHello::new(1, 0)
    };
    let error = open_stream(&server.addr, hello, &options, |_| probe().0)
        .await
        .unwrap_err();
    let TransportError::Protocol { ours, theirs, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(
        (ours, theirs),
        ((1, 0), (1, 0)),
        "the server states its own version"
    );

    let mut hello = StreamHello::new(1, 0);
    hello.protocol_minor = 99;
    open_stream(&server.addr, hello, &options, |_| probe().0)
        .await
        .unwrap();
}

type Accepted = Result<Box<dyn StreamSink>, RemoteError>;

#[tokio::test]
async fn a_refusal_of_the_acceptor_keeps_code_and_endpoint() {
    struct Refuse;
    impl StreamAcceptor for Refuse {
        fn accept(&self, hello: StreamHello, _: Outbox) -> Accepted {
            let words = format!("no session {}", hello.session);
            Err(RemoteError::new(ErrorCode::NotFound, words).about(2))
        }
    }
    let options = LinkOptions::default();
    let server = start(&options, Arc::new(Refuse));
    let hello = StreamHello::new(u64::MAX, 0);
    let error = open_stream(&server.addr, hello, &options, |_| probe().0)
        .await
        .unwrap_err();
    let TransportError::Remote(error) = error else {
        panic!("{error}")
    };
    assert_eq!(error.code, ErrorCode::NotFound);
    assert_eq!(error.endpoint, Some(2));
    assert_eq!(error.message, format!("no session {}", u64::MAX));
}

#[tokio::test]
async fn a_server_that_lets_go_of_its_outbox_ends_the_stream() {
    struct Deaf;
    struct Nothing;
    impl StreamAcceptor for Deaf {
        fn accept(&self, _: StreamHello, outbox: Outbox) -> Accepted {
            outbox.send(framed(b"bye")).unwrap();
            Ok(Box::new(Nothing))
        }
    }
    impl StreamSink for Nothing {
        fn on_message(&mut self, _: Bytes) {}
        fn on_close(&mut self, _: CloseReason) {}
    }
    let options = LinkOptions::default();
    let server = start(&options, Arc::new(Deaf));
    let (stream, mut events) = open(&server.addr, &options).await;
    assert_eq!(message(&mut events).await, b"bye".as_slice());
    assert_eq!(closed(&mut events).await, CloseReason::Finished);
    soon(stream.close()).await;
}

/// A wire between two ends that can be cut: both sockets then send RST.
async fn cuttable(to: String) -> (String, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (cut, cutting) = oneshot::channel();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        for socket in [&near, &far] {
            socket.set_zero_linger().unwrap();
        }
        tokio::select! {
            _ = copy_bidirectional(&mut near, &mut far) => {}
            _ = cutting => {}
        }
    });
    (addr, cut)
}

#[tokio::test]
async fn both_sinks_hear_of_an_abrupt_death_once() {
    let options = LinkOptions::default();
    let (server, mut closes) = echo(&options);
    let (addr, cut) = cuttable(server.addr.clone()).await;
    let (stream, mut events) = open(&addr, &options).await;
    stream.outbox().send(framed(b"alive")).unwrap();
    message(&mut events).await;

    cut.send(()).unwrap();
    assert!(matches!(closed(&mut events).await, CloseReason::Lost(_)));
    assert!(matches!(
        soon(closes.recv()).await,
        Some(CloseReason::Lost(_))
    ));
    assert_eq!(events.recv().await, None);
    assert!(stream.outbox().send(framed(b"into the void")).is_err());
    soon(stream.close()).await;
    assert!(closes.try_recv().is_err(), "told once");
}

#[tokio::test]
async fn a_peer_that_vanishes_midway_in_a_message_is_lost() {
    struct Slow(tokio::sync::mpsc::UnboundedSender<Event>);
    impl StreamAcceptor for Slow {
        fn accept(&self, _: StreamHello, outbox: Outbox) -> Accepted {
            std::mem::forget(outbox);
            Ok(Box::new(common::Probe(self.0.clone())))
        }
    }
    let options = LinkOptions::default();
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let server = start(&options, Arc::new(Slow(sender)));
    let (addr, cut) = cuttable(server.addr.clone()).await;
    let (stream, mut ours) = open(&addr, &options).await;
    // Too much for the socket buffers between: some of it is still here when the wire is cut.
    stream.outbox().send(framed(&payload(60 << 20, 0))).unwrap();
    tokio::task::yield_now().await;
    cut.send(()).unwrap();
    assert!(matches!(closed(&mut events).await, CloseReason::Lost(_)));
    assert!(matches!(closed(&mut ours).await, CloseReason::Lost(_)));
}
