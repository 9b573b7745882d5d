//! Typed errors across the wire: the only place where [`RemoteError`] and gRPC status meet.
//!
//! The error itself travels as an encoded `ErrorDetail` in the status details; code and message
//! of the status say the same to clients that know gRPC only.

use bytes::Bytes;
use expertmesh_wire::{ErrorCode, RemoteError, v1};
use http::HeaderMap;
use prost::Message as _;
use tonic::{Code, Status};

use crate::error::{CloseReason, TransportError, chain};
use crate::protocol::{OURS, PROTOCOL, read_version, write_version};

/// Longest error message in bytes that is put into headers: percent-encoded in the message and
/// base64 in the details it stays well below the 16 KiB that HTTP/2 peers accept.
const MAX_MESSAGE: usize = 2048;

const GRPC_STATUS: &str = "grpc-status";
const GRPC_DETAILS: &str = "grpc-status-details-bin";

/// The status that carries `error` to a caller.
pub(crate) fn to_status(error: &RemoteError) -> Status {
    let mut detail = error.to_detail();
    truncate(&mut detail.message);
    let message = detail.message.clone();
    let details = Bytes::from(detail.encode_to_vec());
    let mut status = Status::with_details(code_of(error.code), message, details);
    if error.code == ErrorCode::ProtocolMismatch {
        let version = format!("{}.{}", OURS.0, OURS.1);
        if let Ok(value) = version.parse() {
            status.metadata_mut().insert(PROTOCOL, value);
        }
    }
    status
}

/// The trailers that end a stream: in good order, or with an error.
pub(crate) fn to_trailers(error: Option<&RemoteError>) -> HeaderMap {
    let status = error.map_or_else(|| Status::ok(""), to_status);
    let mut trailers = HeaderMap::new();
    // Fails only if a header value is illegal, which percent-encoding and base64 rule out; the
    // peer would then see a stream without a status and count it as lost.
    let _ = status.add_header(&mut trailers);
    trailers
}

/// The reply head of a stream: accepted when there is no error.
pub(crate) fn to_response<B: Default>(status: Status) -> http::Response<B> {
    let mut response = status.into_http::<B>();
    write_version(response.headers_mut(), OURS);
    response
}

/// What a failed call means to its caller.
pub(crate) fn from_status(addr: &str, status: &Status) -> TransportError {
    let addr = addr.to_owned();
    if let Some(error) = detail_of(status) {
        let theirs = read_version(status.metadata().as_ref());
        return match (error.code, theirs) {
            (ErrorCode::ProtocolMismatch, Some(theirs)) => TransportError::Protocol {
                addr,
                ours: OURS,
                theirs,
            },
            _ => TransportError::Remote(error),
        };
    }
    match status.code() {
        Code::Unimplemented => {
            let reason = "the call is not implemented there: another role, or another program";
            TransportError::Unexpected {
                addr,
                reason: reason.to_owned(),
            }
        }
        // A status that the peer sent has no cause in this process.
        _ if std::error::Error::source(status).is_some() => TransportError::Closed {
            addr,
            reason: words(status),
        },
        Code::Unavailable | Code::Cancelled => TransportError::Closed {
            addr,
            reason: words(status),
        },
        _ => TransportError::Remote(foreign(status)),
    }
}

/// The status in headers or trailers that the peer sent, if there is one.
pub(crate) fn read_status(headers: &HeaderMap) -> Option<Status> {
    headers.get(GRPC_STATUS)?;
    match headers.get(GRPC_DETAILS) {
        // The library panics on details that are not base64.
        Some(details) if !is_base64(details.as_bytes()) => {
            let mut headers = headers.clone();
            headers.remove(GRPC_DETAILS);
            Status::from_header_map(&headers)
        }
        _ => Status::from_header_map(headers),
    }
}

/// How a stream ended, by the trailers of the serving side.
pub(crate) fn close_reason(trailers: &HeaderMap) -> CloseReason {
    match read_status(trailers) {
        None => CloseReason::Lost("the stream ended without a status".to_owned()),
        Some(status) if status.code() == Code::Ok => CloseReason::Finished,
        Some(status) => CloseReason::Remote(detail_of(&status).unwrap_or_else(|| foreign(&status))),
    }
}

/// What is known of a connection that failed.
pub(crate) fn words(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(cause) => chain(cause),
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    }
}

fn detail_of(status: &Status) -> Option<RemoteError> {
    if status.details().is_empty() {
        return None;
    }
    let detail = v1::ErrorDetail::decode(status.details()).ok()?;
    Some(RemoteError::from_detail(&detail))
}

/// The nearest kind for a status that no expertmesh endpoint made.
fn foreign(status: &Status) -> RemoteError {
    let code = match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted => {
            ErrorCode::InvalidInput
        }
        Code::NotFound => ErrorCode::NotFound,
        Code::DeadlineExceeded => ErrorCode::Deadline,
        Code::Unavailable => ErrorCode::WorkerLost,
        _ => ErrorCode::Internal,
    };
    RemoteError::new(code, words(status))
}

fn code_of(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidInput | ErrorCode::BadFrame => Code::InvalidArgument,
        ErrorCode::ProtocolMismatch => Code::FailedPrecondition,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::WorkerLost => Code::Unavailable,
        ErrorCode::Deadline => Code::DeadlineExceeded,
        ErrorCode::Internal | ErrorCode::Unspecified => Code::Internal,
    }
}

fn truncate(message: &mut String) {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE)
            .rev()
            .find(|&at| message.is_char_boundary(at))
            .unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
}

/// Whether `text` is canonical base64, with or without padding.
fn is_base64(text: &[u8]) -> bool {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let body = match text {
        [body @ .., b'=', b'='] if text.len().is_multiple_of(4) => body,
        [body @ .., b'='] if text.len().is_multiple_of(4) => body,
        _ => text,
    };
    let unused_bits = match body.len() % 4 {
        0 => 0,
        2 => 0b1111,
        3 => 0b0011,
        _ => return false,
    };
    body.iter().all(|&byte| value(byte).is_some())
        && body
            .last()
            .is_none_or(|&byte| value(byte).is_some_and(|bits| bits & unused_bits == 0))
}
