//! The receiving half: reads a body, cuts it into messages and tells the sink.

use std::pin::pin;
use std::sync::Arc;

use expertmesh_wire::{GRPC_PREFIX, RemoteError};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tonic::body::Body;

use crate::counters::LinkCounters;
use crate::error::CloseReason;
use crate::framing::{Deframer, bad_frame};
use crate::status::{close_reason, words};
use crate::stream::outbox::OutboxEnd;
use crate::stream::{Outbox, Side, StreamSink};

/// Everything that one direction of a stream needs; [`Reader::run`] is its task.
pub(crate) struct Reader {
    side: Side,
    body: Body,
    deframer: Deframer,
    sink: ToldOnce,
    outbox: OutboxEnd,
    counters: Arc<LinkCounters>,
}

/// Sees to it that a sink hears of the end exactly once, even if its task is dropped midway.
struct ToldOnce {
    sink: Option<Box<dyn StreamSink>>,
}

// === impl Reader ===

impl Reader {
    pub(crate) fn new(
        side: Side,
        body: Body,
        max_message_bytes: usize,
        sink: Box<dyn StreamSink>,
        outbox: &Outbox,
    ) -> Self {
        Self {
            side,
            body,
            deframer: Deframer::new(max_message_bytes),
            sink: ToldOnce { sink: Some(sink) },
            outbox: outbox.downgrade(),
            counters: Arc::clone(outbox.counters()),
        }
    }

    /// Delivers until the stream ends, or until `closing` does.
    pub(crate) async fn run(mut self, closing: impl Future<Output = ()>) {
        let mut closing = pin!(closing);
        let reason = loop {
            let frame = tokio::select! {
                biased;
                () = &mut closing => break CloseReason::Local,
                frame = self.body.frame() => frame,
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(status)) => break CloseReason::Lost(words(&status)),
                None => break self.ended(),
            };
            match frame.into_data() {
                Ok(chunk) => {
                    let (sink, counters) = (&mut self.sink, &self.counters);
                    let taken = self.deframer.push(chunk, |message| {
                        counters.received(GRPC_PREFIX + message.len());
                        sink.message(message);
                    });
                    if let Err(error) = taken {
                        break self.refuse(error);
                    }
                }
                // Callers have no trailers to send; a server's hold the status.
                Err(frame) => {
                    if let (Side::Caller, Ok(trailers)) = (self.side, frame.into_trailers()) {
                        let reason = close_reason(&trailers);
                        break self.unless_midway(reason);
                    }
                }
            }
        };
        self.outbox.finish();
        self.sink.close(reason);
    }

    /// The body has no more frames.
    fn ended(&mut self) -> CloseReason {
        match self.side {
            Side::Caller => CloseReason::Lost("the stream ended without a status".to_owned()),
            // A reset with NO_ERROR ends the body as well, without ending the HTTP/2 stream.
            Side::Server if !self.body.is_end_stream() => {
                CloseReason::Lost("the peer cancelled the stream".to_owned())
            }
            Side::Server => self.unless_midway(CloseReason::Finished),
        }
    }

    fn unless_midway(&mut self, reason: CloseReason) -> CloseReason {
        if reason == CloseReason::Finished && self.deframer.is_midway() {
            return self.refuse(bad_frame("the stream ended inside a message".to_owned()));
        }
        reason
    }

    fn refuse(&mut self, error: RemoteError) -> CloseReason {
        self.outbox.fail(error.clone());
        CloseReason::Refused(error)
    }
}

// === impl ToldOnce ===

impl ToldOnce {
    fn message(&mut self, message: bytes::Bytes) {
        if let Some(sink) = &mut self.sink {
            sink.on_message(message);
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if let Some(mut sink) = self.sink.take() {
            tracing::debug!(%reason, "exchange stream closed");
            sink.on_close(reason);
        }
    }
}

impl Drop for ToldOnce {
    fn drop(&mut self) {
        self.close(CloseReason::Local);
    }
}
