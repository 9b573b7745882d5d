//! What every frame says about itself.

use expertmesh_kernels::Format;

use crate::error::WireError;
use crate::v1::{FrameHeader, FrameKind};
use crate::{format_from_wire, format_to_wire};

/// Which chunk of which shard of which step a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tag {
    /// The configured layer on a set of workers, chosen by its coordinator.
    pub session: u64,
    /// Version of the placement.
    pub epoch: u64,
    /// Step number, unique within the session.
    pub step: u64,
    /// Layer of the model.
    pub layer: u32,
    /// Endpoint id of the shard's home.
    pub shard: u32,
    /// Position among the chunks of this shard for one host.
    pub chunk: u32,
    /// 0 for the first try.
    pub attempt: u32,
}

/// Moments on the sender's monotonic clock, nanoseconds; 0 where they do not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// A reply: when the request had arrived.
    pub received_ns: u64,
    /// A reply: when its experts began.
    pub started_ns: u64,
    /// A reply: when its experts had finished.
    pub computed_ns: u64,
    /// When this message was handed to the transport.
    pub sent_ns: u64,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: FrameKind,
    /// Which piece of work it belongs to.
    pub tag: Tag,
    /// Number of rows in `rows`.
    pub row_count: u32,
    /// Elements in a row.
    pub hidden: u32,
    /// Number format of the rows.
    pub format: Format,
    /// Chunks that all homes together send to this host in this step before they wait for results,
    /// or the floor bytes wanted in reply.
    pub extent: u32,
    /// Time left until the step's deadline, nanoseconds; 0 in replies.
    pub budget_ns: u64,
    /// Moments on the sender's clock.
    pub times: Times,
}

/// Encoded length of a [`FrameHeader`] with all its fields: 9 of 4 bytes and 8 of 8 bytes with one
/// byte of key each, and a second key byte for the two field numbers above 15.
pub(crate) const HEADER_LEN: usize = 9 * (1 + 4) + 8 * (1 + 8) + 2;

// === impl Header ===

impl Header {
    /// A header of `kind` for a piece of work, without rows or times.
    pub fn new(kind: FrameKind, tag: Tag, hidden: u32, format: Format) -> Self {
        Self {
            kind,
            tag,
            row_count: 0,
            hidden,
            format,
            extent: 0,
            budget_ns: 0,
            times: Times::default(),
        }
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.hidden as usize * self.format.bytes()
    }

    pub(crate) fn to_wire(self) -> FrameHeader {
        FrameHeader {
            kind: Some(self.kind as u32),
            session: Some(self.tag.session),
            epoch: Some(self.tag.epoch),
            step: Some(self.tag.step),
            layer: Some(self.tag.layer),
            shard: Some(self.tag.shard),
            chunk: Some(self.tag.chunk),
            attempt: Some(self.tag.attempt),
            row_count: Some(self.row_count),
            hidden: Some(self.hidden),
            format: Some(format_to_wire(self.format) as u32),
            extent: Some(self.extent),
            budget_ns: Some(self.budget_ns),
            received_ns: Some(self.times.received_ns),
            started_ns: Some(self.times.started_ns),
            computed_ns: Some(self.times.computed_ns),
            sent_ns: Some(self.times.sent_ns),
        }
    }

    pub(crate) fn from_wire(wire: &FrameHeader) -> Result<Self, WireError> {
        let kind = need(wire.kind, "kind")?;
        let kind = i32::try_from(kind)
            .ok()
            .and_then(|value| FrameKind::try_from(value).ok())
            .filter(|kind| *kind != FrameKind::Unspecified)
            .ok_or_else(|| WireError::field("kind", kind, "a frame kind of protocol 1"))?;
        let format = need(wire.format, "format")?;
        let format = i32::try_from(format)
            .ok()
            .and_then(format_from_wire)
            .ok_or_else(|| WireError::field("format", format, "1 (f32) or 2 (bf16)"))?;
        Ok(Self {
            kind,
            tag: Tag {
                session: need(wire.session, "session")?,
                epoch: need(wire.epoch, "epoch")?,
                step: need(wire.step, "step")?,
                layer: need(wire.layer, "layer")?,
                shard: need(wire.shard, "shard")?,
                chunk: need(wire.chunk, "chunk")?,
                attempt: need(wire.attempt, "attempt")?,
            },
            row_count: need(wire.row_count, "row_count")?,
            hidden: need(wire.hidden, "hidden")?,
            format,
            extent: need(wire.extent, "extent")?,
            budget_ns: need(wire.budget_ns, "budget_ns")?,
            times: Times {
                received_ns: need(wire.received_ns, "received_ns")?,
                started_ns: need(wire.started_ns, "started_ns")?,
                computed_ns: need(wire.computed_ns, "computed_ns")?,
                sent_ns: need(wire.sent_ns, "sent_ns")?,
            },
        })
    }
}

fn need<T>(value: Option<T>, field: &'static str) -> Result<T, WireError> {
    value.ok_or(WireError::Missing { field })
}
