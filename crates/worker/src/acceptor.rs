//! The streams of a worker: who opens one, and where its frames go.

use std::sync::Arc;

use bytes::Bytes;
use expertmesh_exchange::COORDINATOR;
use expertmesh_transport::{CloseReason, Outbox, StreamAcceptor, StreamHello, StreamSink};
use expertmesh_wire::{ErrorCode, RemoteError};
use tracing::debug;

use crate::control::Sessions;
use crate::session::Session;

/// Accepts streams for configured sessions.
pub(crate) struct Acceptor {
    pub(crate) sessions: Arc<Sessions>,
}

/// Requests of the coordinator or of a peer that is home to tokens.
struct RequestSink {
    session: Arc<Session>,
    sessions: Arc<Sessions>,
    from: u32,
    outbox: Outbox,
}

/// Replies of a peer to rows that this worker sent.
pub(crate) struct ReplySink {
    pub(crate) session: Arc<Session>,
    pub(crate) from: u32,
}

// === impl Acceptor ===

impl StreamAcceptor for Acceptor {
    fn accept(
        &self,
        hello: StreamHello,
        outbox: Outbox,
    ) -> Result<Box<dyn StreamSink>, RemoteError> {
        let session = self.sessions.get(hello.session).ok_or_else(|| {
            RemoteError::new(
                ErrorCode::NotFound,
                format!(
                    "session {:#x} is not configured on this worker; call Configure first",
                    hello.session
                ),
            )
        })?;
        let endpoints = session.layer.names.len();
        if hello.endpoint as usize >= endpoints {
            return Err(RemoteError::invalid(format!(
                "stream names endpoint {} as its caller, expected one of the session's {endpoints}",
                hello.endpoint
            )));
        }
        session
            .state()
            .incoming
            .push((hello.endpoint, outbox.clone()));
        Ok(Box::new(RequestSink {
            session,
            sessions: Arc::clone(&self.sessions),
            from: hello.endpoint,
            outbox,
        }))
    }
}

// === impl RequestSink ===

impl StreamSink for RequestSink {
    fn on_message(&mut self, message: Bytes) {
        self.session.on_request(self.from, &self.outbox, message);
    }

    fn on_close(&mut self, reason: CloseReason) {
        debug!(from = self.from, %reason, "stream to this worker ended");
        if self.from == COORDINATOR && self.is_first() {
            // Nobody else can use the session: its experts are freed.
            self.sessions.remove_same(&self.session);
        }
    }
}

impl RequestSink {
    /// Whether this is the stream that the session's coordinator opened: a later one that claims
    /// its id ends nothing.
    fn is_first(&self) -> bool {
        let state = self.session.state();
        let first = state.incoming.iter().find(|(from, _)| *from == self.from);
        first.is_some_and(|(_, outbox)| Arc::ptr_eq(outbox.counters(), self.outbox.counters()))
    }
}

// === impl ReplySink ===

impl StreamSink for ReplySink {
    fn on_message(&mut self, message: Bytes) {
        self.session.on_reply(self.from, message);
    }

    fn on_close(&mut self, reason: CloseReason) {
        self.session.on_peer_closed(self.from, &reason.to_string());
    }
}
