//! The sending half: a queue whose messages become the DATA of an HTTP/2 body.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use expertmesh_wire::{GRPC_PREFIX, RemoteError};
use http_body::Frame;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::counters::LinkCounters;
use crate::emulation::Link;
use crate::error::Closed;
use crate::status::to_trailers;

/// Sends messages to the peer of one stream, from any thread, in order.
///
/// The queue is unbounded: credits above this crate bound what is under way. Dropping every clone
/// ends this direction once everything queued is out, as [`Outbox::finish`] does.
#[derive(Debug, Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

/// Can end the direction of an [`Outbox`] but does not keep it open.
#[derive(Debug, Clone)]
pub(crate) struct OutboxEnd {
    shared: Weak<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: UnboundedSender<Outgoing>,
    finished: AtomicBool,
    counters: Arc<LinkCounters>,
    /// The emulated link, once the peer has said who it is; the lock keeps messages in the order in
    /// which they took its ports.
    link: OnceLock<Mutex<Link>>,
}

#[derive(Debug)]
enum Outgoing {
    Message(Bytes),
    /// A message behind the stamp of an emulated link.
    Stamped(Bytes, Bytes),
    End(Option<RemoteError>),
}

/// Which side of the stream a body belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Ends with the end of the body.
    Caller,
    /// Ends with trailers that hold a status.
    Server,
}

/// What was queued, as the body that HTTP/2 sends.
#[derive(Debug)]
pub(crate) struct OutgoingBody {
    queue: UnboundedReceiver<Outgoing>,
    /// The message whose stamp went before it.
    behind: Option<Bytes>,
    side: Side,
    ended: bool,
}

// === impl Outbox ===

impl Outbox {
    /// Hands `message` over; it begins with its 5-byte gRPC prefix and is passed on as it is.
    ///
    /// # Errors
    /// [`Closed`] if the stream is over. A message that was taken may still be lost if the
    /// connection dies; the sink is told then.
    pub fn send(&self, message: Bytes) -> Result<(), Closed> {
        debug_assert!(
            has_prefix(&message),
            "a message begins with its gRPC prefix"
        );
        if self.shared.finished.load(Ordering::Relaxed) {
            return Err(Closed);
        }
        let bytes = message.len();
        // Counted first: the peer's answer may be here before `send` returns.
        self.shared.counters.sent(bytes);
        let queued = self.shared.queue(message);
        queued.inspect_err(|Closed| self.shared.counters.unsent(bytes))
    }

    /// Ends this direction after everything that was queued; later messages are refused.
    ///
    /// On the serving side this ends the whole stream, in good order.
    pub fn finish(&self) {
        self.shared.end(None);
    }

    /// Counters of this stream.
    pub fn counters(&self) -> &Arc<LinkCounters> {
        &self.shared.counters
    }

    /// Shapes what is sent from here on.
    pub(crate) fn emulate(&self, link: Link) {
        // A stream has one peer: it is said once.
        let _ = self.shared.link.set(Mutex::new(link));
    }

    pub(crate) fn downgrade(&self) -> OutboxEnd {
        OutboxEnd {
            shared: Arc::downgrade(&self.shared),
        }
    }
}

// === impl OutboxEnd ===

impl OutboxEnd {
    pub(crate) fn finish(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.end(None);
        }
    }

    /// Ends the direction with an error, which only a serving side can state.
    pub(crate) fn fail(&self, error: RemoteError) {
        if let Some(shared) = self.shared.upgrade() {
            shared.end(Some(error));
        }
    }
}

// === impl Shared ===

impl Shared {
    fn queue(&self, message: Bytes) -> Result<(), Closed> {
        let sent = match self.link.get() {
            None => self.queue.send(Outgoing::Message(message)),
            Some(link) => {
                let link = link.lock().unwrap_or_else(PoisonError::into_inner);
                let stamp = link.stamp(message.len());
                self.queue.send(Outgoing::Stamped(stamp, message))
            }
        };
        sent.map_err(|_| Closed)
    }

    fn end(&self, error: Option<RemoteError>) {
        if !self.finished.swap(true, Ordering::Relaxed) {
            // Refused when the body is gone already, which is an end too.
            let _ = self.queue.send(Outgoing::End(error));
        }
    }
}

fn has_prefix(message: &[u8]) -> bool {
    match message.split_at_checked(GRPC_PREFIX) {
        Some(([0, length @ ..], rest)) => <[u8; 4]>::try_from(length).is_ok_and(|length| {
            usize::try_from(u32::from_be_bytes(length)).is_ok_and(|n| n == rest.len())
        }),
        _ => false,
    }
}

// === impl OutgoingBody ===

impl OutgoingBody {
    pub(crate) fn new(side: Side, counters: Arc<LinkCounters>) -> (Outbox, Self) {
        let (sender, queue) = unbounded_channel();
        let finished = AtomicBool::new(false);
        let outbox = Outbox {
            shared: Arc::new(Shared {
                queue: sender,
                finished,
                counters,
                link: OnceLock::new(),
            }),
        };
        (
            outbox,
            Self {
                queue,
                behind: None,
                side,
                ended: false,
            },
        )
    }
}

impl http_body::Body for OutgoingBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(message) = self.behind.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        let error = match ready!(self.queue.poll_recv(cx)) {
            Some(Outgoing::Message(message)) => {
                return Poll::Ready(Some(Ok(Frame::data(message))));
            }
            Some(Outgoing::Stamped(stamp, message)) => {
                self.behind = Some(message);
                return Poll::Ready(Some(Ok(Frame::data(stamp))));
            }
            Some(Outgoing::End(error)) => error,
            None => None,
        };
        self.ended = true;
        self.queue.close();
        Poll::Ready(match self.side {
            Side::Caller => None,
            Side::Server => Some(Ok(Frame::trailers(to_trailers(error.as_ref())))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
