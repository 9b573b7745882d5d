//! The receiving half: reads a body, cuts it into messages and tells the sink.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use expertmesh_wire::{GRPC_PREFIX, RemoteError};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tonic::body::Body;

use crate::counters::LinkCounters;
use crate::emulation::{Line, due};
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
    /// What an emulated link still holds.
    line: Option<Line>,
}

/// What a reader wakes up for.
enum Event {
    /// The emulated link has something to do.
    Due,
    Frame(Option<Result<http_body::Frame<Bytes>, tonic::Status>>),
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
        line: Option<Line>,
    ) -> Self {
        Self {
            side,
            body,
            deframer: Deframer::new(max_message_bytes),
            sink: ToldOnce { sink: Some(sink) },
            outbox: outbox.downgrade(),
            counters: Arc::clone(outbox.counters()),
            line,
        }
    }

    /// Delivers until the stream ends, or until `closing` does.
    pub(crate) async fn run(mut self, closing: impl Future<Output = ()>) {
        let mut closing = pin!(closing);
        let reason = loop {
            let event = tokio::select! {
                biased;
                () = &mut closing => break CloseReason::Local,
                () = due(self.line.as_mut()) => Event::Due,
                frame = self.body.frame() => Event::Frame(frame),
            };
            let frame = match event {
                Event::Due => {
                    self.deliver_due();
                    continue;
                }
                Event::Frame(Some(Ok(frame))) => frame,
                Event::Frame(Some(Err(status))) => break CloseReason::Lost(words(&status)),
                Event::Frame(None) => break self.ended(),
            };
            match frame.into_data() {
                Ok(chunk) => {
                    if let Err(error) = self.take(chunk) {
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
        // What left the peer arrives, whatever became of the peer since.
        while reason != CloseReason::Local
            && self.line.as_ref().is_some_and(|line| !line.is_empty())
        {
            tokio::select! {
                biased;
                () = &mut closing => break,
                () = due(self.line.as_mut()) => self.deliver_due(),
            }
        }
        self.outbox.finish();
        self.sink.close(reason);
    }

    /// Cuts a chunk into messages, and delivers those that no link holds back.
    fn take(&mut self, chunk: Bytes) -> Result<(), RemoteError> {
        let (sink, counters) = (&mut self.sink, &self.counters);
        let Some(line) = &mut self.line else {
            return self.deframer.push(chunk, |message| {
                counters.received(GRPC_PREFIX + message.len());
                sink.message(message);
            });
        };
        let mut refused = Ok(());
        self.deframer.push(chunk, |message| {
            if refused.is_ok() {
                refused = line.push(message);
            }
        })?;
        refused?;
        self.deliver_due();
        Ok(())
    }

    /// Delivers what an emulated link lets go by now.
    fn deliver_due(&mut self) {
        while let Some(message) = self.line.as_mut().and_then(Line::pop_due) {
            self.counters.received(GRPC_PREFIX + message.len());
            self.sink.message(message);
        }
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
        let is_midway =
            self.deframer.is_midway() || self.line.as_ref().is_some_and(Line::is_midway);
        if reason == CloseReason::Finished && is_midway {
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
