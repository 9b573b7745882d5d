//! What a peer can do wrong below gRPC, written as HTTP/2 frames by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod common;

use common::{echo, framed, soon};
use expertmesh_transport::{CloseReason, LinkOptions};
use expertmesh_wire::ErrorCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Reasons of a reset that people use to mean "enough": NO_ERROR and CANCEL.
const RESETS: [[u8; 4]; 2] = [[0, 0, 0, 0], [0, 0, 0, 8]];

/// One HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![
        length[1], length[2], length[3], kind, flags, 0, 0, 0, stream,
    ];
    frame.extend_from_slice(payload);
    frame
}

/// Headers as literals without indexing (RFC 7541, section 6.2.2).
fn headers(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in pairs {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A connection on which stream 1 is an open exchange stream.
async fn exchange(addr: &str) -> TcpStream {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    socket.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let block = headers(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "worker"),
        (":path", "/expertmesh.v1.Worker/Exchange"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("expertmesh-protocol", "1.0"),
        ("expertmesh-session", "7"),
        ("expertmesh-endpoint", "3"),
    ]);
    socket
        .write_all(&frame(HEADERS, END_HEADERS, 1, &block))
        .await
        .unwrap();
    socket
}

async fn await_echo(socket: &mut TcpStream) {
    let mut seen = Vec::new();
    while !seen.windows(5).any(|bytes| bytes == b"whole") {
        assert!(
            soon(socket.read_buf(&mut seen)).await.unwrap() > 0,
            "the server hung up"
        );
    }
}

#[tokio::test]
async fn a_stream_that_ends_between_messages_is_finished() {
    let (server, mut closes) = echo(&LinkOptions::default());
    let mut socket = exchange(&server.addr).await;
    socket
        .write_all(&frame(DATA, END_STREAM, 1, &framed(b"whole")))
        .await
        .unwrap();
    assert_eq!(soon(closes.recv()).await, Some(CloseReason::Finished));
}

#[tokio::test]
async fn a_stream_that_is_cancelled_is_lost_not_finished() {
    for reset in RESETS {
        let (server, mut closes) = echo(&LinkOptions::default());
        let mut socket = exchange(&server.addr).await;
        socket
            .write_all(&frame(DATA, 0, 1, &framed(b"whole")))
            .await
            .unwrap();
        // Without its echo the stream might be gone before it was accepted.
        await_echo(&mut socket).await;
        socket
            .write_all(&frame(RST_STREAM, 0, 1, &reset))
            .await
            .unwrap();
        let reason = soon(closes.recv()).await;
        assert!(
            matches!(reason, Some(CloseReason::Lost(_))),
            "{reset:?}: {reason:?}"
        );
    }
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_message_is_refused() {
    let (server, mut closes) = echo(&LinkOptions::default());
    let mut socket = exchange(&server.addr).await;
    socket
        .write_all(&frame(DATA, END_STREAM, 1, &framed(b"half")[..7]))
        .await
        .unwrap();
    let Some(CloseReason::Refused(error)) = soon(closes.recv()).await else {
        panic!("half a message is refused");
    };
    assert_eq!(error.code, ErrorCode::BadFrame);
}

#[tokio::test]
async fn compressed_and_endless_messages_are_refused() {
    for (bytes, words) in [
        ([1, 0, 0, 0, 1], "compression flag 1"),
        ([0, 0xff, 0xff, 0xff, 0xff], "4294967295 bytes"),
    ] {
        let (server, mut closes) = echo(&LinkOptions::default());
        let mut socket = exchange(&server.addr).await;
        socket.write_all(&frame(DATA, 0, 1, &bytes)).await.unwrap();
        let Some(CloseReason::Refused(error)) = soon(closes.recv()).await else {
            panic!("{words} is refused");
        };
        assert_eq!(error.code, ErrorCode::BadFrame);
        assert!(error.message.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_socket_that_closes_without_a_word_is_lost() {
    let (server, mut closes) = echo(&LinkOptions::default());
    let mut socket = exchange(&server.addr).await;
    socket
        .write_all(&frame(DATA, 0, 1, &framed(b"whole")))
        .await
        .unwrap();
    // Without its echo the request might die unread, together with the socket.
    await_echo(&mut socket).await;
    drop(socket);
    let reason = soon(closes.recv()).await;
    assert!(matches!(reason, Some(CloseReason::Lost(_))), "{reason:?}");
}
