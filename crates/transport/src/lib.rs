//! Connections between endpoints: control calls, and the exchange streams that carry rows.
//!
//! Reading order:
//!
//! 1. [`LinkOptions`]: what can be set about a link, and why it is set so.
//! 2. [`Listener`], [`serve_worker`], [`serve_coordinator`]: an endpoint that answers the calls
//!    of [`WorkerControl`] or [`CoordinatorControl`], and says to probes when it is ready
//!    ([`Health`]).
//! 3. [`WorkerClient`], [`CoordinatorClient`]: the same calls from the other side.
//! 4. [`open_stream`], [`StreamAcceptor`]: both ends of an exchange stream. Each has an
//!    [`Outbox`] to send with and a [`StreamSink`] that is told what arrives and, exactly once,
//!    how it ended.
//! 5. [`LinkCounters`]: what a stream was handed and what its socket carried.
//! 6. [`monotonic_ns`], [`boot_id`], [`Watchdog`]: the local clock, whose clock it is, and
//!    waiting for the next of several deadlines on it.
//!
//! 7. [`Emulation`]: links that behave as those of a topology, between processes of one machine;
//!    [`probe`] holds them against what was asked for. [`Switch`]: the same, packet by packet,
//!    between processes with networks of their own.
//!
//! # Two ways through one protocol
//!
//! Control calls take the way of the gRPC library: typed messages in and out. An exchange stream
//! does not. Its messages are framed by whoever makes them, prefix included, and go to HTTP/2 as
//! the bytes they are; what arrives is cut at the prefixes and handed on as a slice of what the
//! socket gave. On the wire both are gRPC as `proto/` has it, and a generated client or server of
//! any language can be the peer of either.
//!
//! A message travels without a copy if it fits one DATA frame ([`Http2::max_frame_size`]); a
//! longer one is gathered into one buffer on arrival.
//!
//! # Errors
//!
//! A [`RemoteError`] that a role returns is the [`RemoteError`] that its caller gets, with code
//! and endpoint. What the transport itself finds is a [`TransportError`].
//!
//! # What this crate does not know
//!
//! **Gates, capacity, tensors, policy**: a message is bytes. **Retries**: a lost connection is
//! reported, never hidden. And nobody but this crate knows **the gRPC library**: none of its
//! types are public here, so that it can be replaced.
//!
//! Everything runs on the caller's tokio runtime, current-thread or not, with its IO and time
//! drivers enabled.
#![forbid(unsafe_code)]

mod accept;
mod channel;
mod client;
mod control;
mod counters;
mod emulation;
mod error;
mod framing;
mod io;
mod open;
mod options;
mod protocol;
mod server;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod watchdog;

/// Service glue generated from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
mod glue {
    include!("generated/expertmesh.v1.rs");
}

pub use client::{CoordinatorClient, WorkerClient, check_ready};
pub use control::{CoordinatorControl, WorkerControl};
pub use counters::{LinkCounters, LinkTotals};
pub use emulation::{
    Emulation, OneWay, PortWords, ProbePlan, Probed, Switch, SwitchShaping, probe, probe_between,
};
pub use error::{CloseReason, Closed, TransportError};
pub use expertmesh_wire::RemoteError;
pub use open::{StreamHandle, open_stream};
pub use options::{Http2, LinkOptions};
pub use protocol::StreamHello;
pub use server::{Health, Listener, serve_coordinator, serve_worker};
pub use stream::{Outbox, StreamAcceptor, StreamSink};
pub use watchdog::{Watchdog, boot_id, monotonic_ns};
