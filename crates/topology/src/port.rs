//! A port: a server that carries one byte after another.

use crate::path::Hop;

/// One direction of a network port, an uplink or an endpoint's own port.
///
/// Messages are served in the order in which they are taken. Equal rates pass bits through as they
/// come (cut-through), so a message on an idle path takes latency + bytes / rate however many ports
/// it passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Port {
    /// When the work of everything that was taken is done.
    pub free_ns: u64,
}

/// When a message passes a point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passage {
    /// Its first bit.
    pub begin_ns: u64,
    /// Its last bit.
    pub end_ns: u64,
}

// === impl Port ===

impl Port {
    /// Passes a message of `bytes` bytes whose first bit is there at `first_ns` and whose last bit
    /// can be there at `last_ns`.
    ///
    /// begin = max(first, free) + hold; end = max(begin + bytes / rate, last). The port is then free
    /// at begin + bytes / rate: a message that trickles in from a slower port leaves room for others,
    /// as packets do.
    pub fn take(&mut self, first_ns: u64, last_ns: u64, bytes: u64, hop: Hop) -> Passage {
        let begin_ns = first_ns.max(self.free_ns).saturating_add(hop.hold_ns);
        self.free_ns = begin_ns.saturating_add(transfer_ns(bytes, hop.bytes_per_ns));
        Passage {
            begin_ns,
            end_ns: self.free_ns.max(last_ns),
        }
    }
}

/// Nanoseconds that `bytes` take at a rate, rounded up.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
pub(crate) fn transfer_ns(bytes: u64, bytes_per_ns: f64) -> u64 {
    // A float becomes an integer by saturation: no rate is too small.
    (bytes as f64 / bytes_per_ns).ceil() as u64
}
