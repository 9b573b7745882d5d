//! What can go wrong between two endpoints, in words that say what to do.

use std::io;
use std::time::Duration;

use expertmesh_wire::RemoteError;

/// An error of a listener, a call or a stream.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// An option that HTTP/2 does not allow.
    #[error("option `{field}` holds {held}, expected {expected}")]
    Option {
        /// Name of the field of `LinkOptions`.
        field: &'static str,
        /// What it held.
        held: String,
        /// What HTTP/2 allows.
        expected: &'static str,
    },
    /// An address that is not `host:port`, or whose host does not resolve.
    #[error(
        "address `{addr}` cannot be used: {reason}; expected host:port with a host that resolves, for example 10.0.0.7:7400"
    )]
    Address {
        /// The address as given.
        addr: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}; {}", bind_hint(.source))]
    Bind {
        /// The address as given.
        addr: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Nobody answers at the address.
    #[error("{}: {source}; {}", connect_what(.addr, .source), connect_hint(.source))]
    Connect {
        /// The address as given.
        addr: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The peer answered with an error; its kind survived the wire.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The peer did not answer in time.
    #[error("{addr} did not answer within {waited:?}")]
    Deadline {
        /// Address of the peer.
        addr: String,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The connection ended before the answer came.
    #[error("connection to {addr} was closed: {reason}")]
    Closed {
        /// Address of the peer.
        addr: String,
        /// What the connection said last.
        reason: String,
    },
    /// The peer speaks another protocol major.
    #[error(
        "{addr} speaks protocol {}.{}, this build speaks {}.{}; run the same release on every endpoint",
        .theirs.0, .theirs.1, .ours.0, .ours.1
    )]
    Protocol {
        /// Address of the peer.
        addr: String,
        /// Major and minor of this build.
        ours: (u32, u32),
        /// Major and minor of the peer.
        theirs: (u32, u32),
    },
    /// Links that cannot be emulated, between these endpoints or at all.
    #[error("links cannot be emulated: {reason}")]
    Emulation {
        /// What stands against it, and what would work.
        reason: String,
    },
    /// Whoever answered is not an endpoint of the kind that was asked for.
    #[error("{addr} does not answer as the endpoint that was expected there: {reason}")]
    Unexpected {
        /// Address of the peer.
        addr: String,
        /// What it answered.
        reason: String,
    },
}

/// The stream is over: nothing more can be sent on it.
///
/// Its sink has been told why, or is about to be, through `StreamSink::on_close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is closed")]
pub struct Closed;

/// Why a stream ended. Every sink is told exactly once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer ended its direction in good order: all that it sent has been delivered.
    #[error("the peer ended the stream")]
    Finished,
    /// This side closed it: the handle was dropped, or the server is shutting down.
    #[error("closed by this side")]
    Local,
    /// The peer ended it with an error.
    #[error("the peer ended the stream: {0}")]
    Remote(RemoteError),
    /// The peer sent what the protocol does not allow, and this side ended the stream.
    #[error("refused what the peer sent: {0}")]
    Refused(RemoteError),
    /// The connection died: the peer is gone, or the network between.
    #[error("the connection was lost: {0}")]
    Lost(String),
}

fn bind_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is taken: stop the process that holds it, choose another port, \
             or give port 0 for any free one"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need privileges: choose a higher one",
        io::ErrorKind::AddrNotAvailable => {
            "the address is not one of this machine's: 0.0.0.0 listens on all of them"
        }
        _ => "expected an address of this machine and a free port",
    }
}

fn connect_what(addr: &str, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => format!("no one listens at {addr}"),
        _ => format!("cannot reach {addr}"),
    }
}

fn connect_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => {
            "start the endpoint there first, or correct the address"
        }
        _ => "check the address and the network between",
    }
}

/// The words of an error and of everything that caused it, outermost first, each once.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words.push_str(": ");
            words.push_str(&text);
        }
        cause = error.source();
    }
    words
}

// === impl TransportError ===

impl TransportError {
    /// Whether what the caller gave is at fault (an address, an option, an input that the peer
    /// refused) and not the network or the peer.
    pub fn is_input(&self) -> bool {
        use expertmesh_wire::ErrorCode;
        match self {
            Self::Option { .. }
            | Self::Address { .. }
            | Self::Bind { .. }
            | Self::Connect { .. }
            | Self::Protocol { .. }
            | Self::Emulation { .. } => true,
            Self::Remote(remote) => matches!(
                remote.code,
                ErrorCode::InvalidInput | ErrorCode::ProtocolMismatch | ErrorCode::NotFound
            ),
            _ => false,
        }
    }
}
