//! Machines and what lies between them: hosts, devices, racks, links, and the arithmetic of a message
//! on its way.
//!
//! # Reading order
//!
//! 1. [`Topology`]: what a TOML file says, with [`Host`], [`Device`], [`Link`] and [`Tiers`].
//!    [`Topology::read`] takes a file or the name of a preset.
//! 2. [`Fabric`]: a topology with endpoints placed on its hosts. It names every port and gives the
//!    [`Path`] between two endpoints.
//! 3. [`Port`]: what a message does to a port, and the port to the message.
//! 4. [`jitter_ns`], [`retransmission_ns`]: seeded noise, a function of who sends what to whom.
//! 5. [`Scale`]: the same machines with one thing faster.
//!
//! `docs/topology.md` has the file format and every formula with its source.
//!
//! ```
//! use expertmesh_topology::{Fabric, Port, Topology};
//!
//! let topology = Topology::parse(
//!     r#"
//!     [[host]]
//!     count = 2
//!     [tier.rack]
//!     latency = "2 ms"
//!     bandwidth = "1 Gbit/s"
//!     "#,
//!     "lab.toml",
//! )?;
//! let fabric = Fabric::new(&topology, 2)?;
//! // Worker 1 to worker 2: 1 MB takes 2 ms and 8 ms.
//! let path = fabric.path(1, 2);
//! let mut ports = vec![Port::default(); fabric.ports()];
//! let arrived = path.carry(0, 1_000_000, 0, |hop, window, bytes| {
//!     ports[hop.port.index()].take(window.begin_ns, window.end_ns, bytes, hop)
//! });
//! assert_eq!(arrived.end_ns, 10_000_000);
//! # Ok::<(), expertmesh_topology::TopologyError>(())
//! ```
//!
//! # Invariants
//!
//! * This crate does not know experts, rows or what a message holds.
//! * It reads no clock: every moment is an argument, in integer nanoseconds.
//! * Equal arguments give equal answers on every machine: of floating point it uses the operations
//!   that IEEE 754 rounds exactly.
#![forbid(unsafe_code)]

mod error;
mod fabric;
mod file;
mod model;
mod noise;
mod path;
mod port;
mod preset;
mod scaled;
mod units;

#[cfg(test)]
mod tests;

pub use error::TopologyError;
pub use fabric::Fabric;
pub use model::{Device, Grows, Host, Link, LinkOverride, Origin, Spine, Tiers, Topology, Uplink};
pub use noise::{is_lost, jitter_ns, retransmission_ns};
pub use path::{Hop, Path, PortId, Tier};
pub use port::{Passage, Port};
pub use scaled::Scale;
pub use units::{show_rate, show_time};
