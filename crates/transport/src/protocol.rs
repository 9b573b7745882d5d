//! The first words on an exchange stream: who calls, for which session, in which protocol.
//!
//! They travel as gRPC metadata, so that they are checked before the first frame is read:
//!
//! | header | holds |
//! |---|---|
//! | `expertmesh-protocol` | `major.minor`, in requests and in replies |
//! | `expertmesh-session` | the session, decimal |
//! | `expertmesh-endpoint` | the caller's endpoint id, decimal |
//!
//! Streams on emulated links say more, see `emulation::link`.

use std::str::FromStr;

use expertmesh_wire::{PROTOCOL_MAJOR, PROTOCOL_MINOR, RemoteError, check_protocol, v1};
use http::{HeaderMap, HeaderValue};

/// What a caller says when it opens an exchange stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHello {
    /// The session whose rows will travel.
    pub session: u64,
    /// The caller's own endpoint id in that session.
    pub endpoint: u32,
    /// Protocol major of the caller; another one is refused.
    pub protocol_major: u32,
    /// Protocol minor of the caller.
    pub protocol_minor: u32,
}

pub(crate) const PROTOCOL: &str = "expertmesh-protocol";
const SESSION: &str = "expertmesh-session";
const ENDPOINT: &str = "expertmesh-endpoint";

/// Major and minor of this build.
pub(crate) const OURS: (u32, u32) = (PROTOCOL_MAJOR, PROTOCOL_MINOR);

// === impl StreamHello ===

impl StreamHello {
    /// A hello in the protocol of this build.
    pub fn new(session: u64, endpoint: u32) -> Self {
        Self {
            session,
            endpoint,
            protocol_major: PROTOCOL_MAJOR,
            protocol_minor: PROTOCOL_MINOR,
        }
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let version = (self.protocol_major, self.protocol_minor);
        write_version(headers, version);
        headers.insert(SESSION, HeaderValue::from(self.session));
        headers.insert(ENDPOINT, HeaderValue::from(self.endpoint));
    }

    /// Reads and checks what a caller sent.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, RemoteError> {
        let version = read_version(headers);
        let message = version.map(|(major, minor)| v1::ProtocolVersion { major, minor });
        check_protocol(message.as_ref(), "the caller of the stream")?;
        let (protocol_major, protocol_minor) = version.unwrap_or(OURS);
        Ok(Self {
            session: number(headers, SESSION)?,
            endpoint: number(headers, ENDPOINT)?,
            protocol_major,
            protocol_minor,
        })
    }
}

/// The version that a peer's headers state, if they state one.
pub(crate) fn read_version(headers: &HeaderMap) -> Option<(u32, u32)> {
    let (major, minor) = headers.get(PROTOCOL)?.to_str().ok()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

pub(crate) fn write_version(headers: &mut HeaderMap, (major, minor): (u32, u32)) {
    if let Ok(value) = HeaderValue::try_from(format!("{major}.{minor}")) {
        headers.insert(PROTOCOL, value);
    }
}

fn number<T: FromStr>(headers: &HeaderMap, name: &'static str) -> Result<T, RemoteError> {
    let Some(value) = headers.get(name) else {
        return Err(RemoteError::invalid(format!(
            "metadata `{name}` is missing, expected a decimal number"
        )));
    };
    value
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            RemoteError::invalid(format!(
                "metadata `{name}` holds {value:?}, expected a decimal number"
            ))
        })
}
