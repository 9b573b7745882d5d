//! Passing rows on inside the own group: `hierarchical`.

use std::sync::Arc;

use expertmesh_exchange::{RelayFrame, error_frame};
use expertmesh_transport::{Outbox, monotonic_ns};
use expertmesh_wire::{ErrorCode, FrameView, Header, RemoteError, WireError};

use crate::session::{Reply, Session, field};

// === impl Session ===

impl Session {
    /// Rows for several workers of this one's group, from a home of another.
    pub(crate) fn on_relay(
        self: &Arc<Self>,
        from: u32,
        frame: FrameView,
        outbox: &Outbox,
        received_ns: u64,
    ) -> Result<(), WireError> {
        let layer = &self.layer;
        let relay = RelayFrame::read(frame, layer.hidden, [layer.me, from], &layer.table)?;
        let budget_ns = relay.header().budget_ns;
        let stamp = || {
            let now = monotonic_ns();
            (
                now,
                budget_ns.saturating_sub(now.saturating_sub(received_ns)),
            )
        };
        // The others' rows are on their way before this worker's own are looked at.
        let (own, others): (Vec<_>, Vec<_>) = relay
            .parts()
            .iter()
            .partition(|part| part.endpoint == layer.me);
        for part in others {
            let message = relay.rows_frame(part, &self.pool, stamp);
            if !self.send_to_peer(part.endpoint, message) {
                self.cannot_pass_on(part.endpoint, relay.header(), outbox);
            }
        }
        for part in own {
            let message = relay.rows_frame(part, &self.pool, stamp);
            let rows = FrameView::read_prefixed(message)?;
            self.on_rows(rows, Reply::Stream(outbox.clone()), received_ns)?;
        }
        Ok(())
    }

    /// Tells the home: it may have a stream that still works, and must not wait.
    fn cannot_pass_on(&self, endpoint: u32, request: &Header, outbox: &Outbox) {
        let names = &self.layer.names;
        let (me, to) = (&names[self.layer.me as usize], &names[endpoint as usize]);
        let message = format!("{me} could not pass rows on to {to}: the stream is closed");
        let error = RemoteError::new(ErrorCode::WorkerLost, message).about(endpoint);
        self.send(outbox, error_frame(&self.pool, request, &error));
    }

    /// Where the answer to rows goes: to the sender, or to the home that had a worker of this group
    /// pass them on, on the stream that it opened.
    pub(crate) fn home_outbox(
        &self,
        from: u32,
        header: &Header,
        outbox: &Outbox,
    ) -> Result<Outbox, WireError> {
        let home = header.tag.shard;
        let Some(groups) = self.layer.table.groups().filter(|_| home != from) else {
            return Ok(outbox.clone());
        };
        let me = self.layer.me;
        let relayed = groups.together(from, me) && !groups.together(home, me);
        let state = self.state();
        let stream = state.incoming.iter().find(|(one, _)| *one == home);
        match stream.filter(|_| relayed && groups.group(home).is_some()) {
            Some((_, outbox)) => Ok(outbox.clone()),
            None => {
                let held = format!("{home} in rows from endpoint {from}");
                let expected = "the sender, or a home of another group that is connected here";
                Err(field("shard", held, expected))
            }
        }
    }
}
