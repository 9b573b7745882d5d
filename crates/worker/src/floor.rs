//! The floor of a bench: messages of given sizes in the pattern of an exchange, and no work.
//!
//! A `FLOOR` frame asks for a `FLOOR_REPLY` of `extent` bytes. Its index may list peers as triples
//! (endpoint, bytes to send, bytes wanted back): then the worker asks those peers first and answers
//! when all of them have, which is the pattern of an `all-to-all` home. Rows are neither read nor
//! written.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use expertmesh_transport::Outbox;
use expertmesh_wire::{FrameKind, FrameView, FrameWriter, Header, WireError, rows_len_for, words};

use crate::session::{Session, field};

/// Floor requests that wait for peers, by step.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    open: Mutex<HashMap<u64, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    request: Header,
    outbox: Outbox,
    left: usize,
}

// === impl Session ===

impl Session {
    pub(crate) fn on_floor(
        self: &Arc<Self>,
        outbox: &Outbox,
        frame: &FrameView,
    ) -> Result<(), WireError> {
        let header = frame.header;
        let longest = self.layer.max_message_bytes;
        let check = |name, bytes: u32| match bytes as usize <= longest {
            true => Ok(()),
            false => Err(field(name, bytes, format!("at most {longest} bytes"))),
        };
        check("extent", header.extent)?;
        let peers: Vec<u32> = words(&frame.index).collect();
        if !peers.len().is_multiple_of(3) {
            let expected = "triples of endpoint, bytes out, bytes back";
            return Err(field("index", format!("{} words", peers.len()), expected));
        }
        if peers.is_empty() {
            self.floor_reply(outbox, &header);
            return Ok(());
        }
        let mut requests = Vec::with_capacity(peers.len() / 3);
        for triple in peers.chunks_exact(3) {
            let (endpoint, out, back) = (triple[0], triple[1], triple[2]);
            check("index", out)?;
            check("index", back)?;
            let streams = self.peers.get();
            let stream = streams
                .and_then(|all| all.get(endpoint as usize))
                .and_then(Option::as_ref);
            let Some(stream) = stream else {
                return Err(field(
                    "index",
                    format!("endpoint {endpoint}"),
                    "a connected peer",
                ));
            };
            let header = Header {
                extent: back,
                ..header
            };
            requests.push((stream, header, rows_len_for(out as usize, 0)));
        }
        let waiting = Waiting {
            request: header,
            outbox: outbox.clone(),
            left: requests.len(),
        };
        self.floors.lock().insert(header.tag.step, waiting);
        for (stream, header, rows) in requests {
            let message = FrameWriter::new(&self.pool, &header, 0, rows).finish();
            self.send(stream.outbox(), message);
        }
        Ok(())
    }

    pub(crate) fn on_floor_reply(self: &Arc<Self>, frame: &FrameView) {
        let done = {
            let mut open = self.floors.lock();
            let step = frame.header.tag.step;
            let Some(waiting) = open.get_mut(&step) else {
                return;
            };
            waiting.left = waiting.left.saturating_sub(1);
            if waiting.left > 0 {
                return;
            }
            open.remove(&step)
        };
        if let Some(waiting) = done {
            self.floor_reply(&waiting.outbox, &waiting.request);
        }
    }

    fn floor_reply(&self, outbox: &Outbox, request: &Header) {
        let mut header = *request;
        header.kind = FrameKind::FloorReply;
        header.row_count = 0;
        let rows = rows_len_for(request.extent as usize, 0);
        self.send(
            outbox,
            FrameWriter::new(&self.pool, &header, 0, rows).finish(),
        );
    }
}

// === impl Floors ===

impl Floors {
    /// A peer is gone: rounds that wait for it are void, as their requester will find.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Waiting>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
