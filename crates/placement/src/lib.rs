//! Which worker holds which expert.
//!
//! A [`Placement`] is a table from experts to worker indices `0..workers`. An expert has one or
//! more replicas; the first one listed is its primary. Tables come from a [`Strategy`], from a
//! list in code or from a TOML file, and every one of them is checked when it is made: each
//! expert has a holder, each holder exists, and no worker holds an expert twice.
//!
//! ```
//! use expertmesh_placement::{Placement, Strategy};
//!
//! let placement = Strategy::Contiguous.place(8, 3, 0)?;
//! assert_eq!(placement.experts_of(0), [0, 1, 2]);
//! assert_eq!(placement.primary(7), 2);
//! assert_eq!(
//!     placement.to_string(),
//!     "8 experts on 3 workers: w0 [0-2], w1 [3-5], w2 [6-7]"
//! );
//!
//! let replicated = Placement::parse_toml("experts = [[0], [1], [0, 1]]", 3, 2)?;
//! assert_eq!(replicated.replicas(2), [0, 1]);
//! # Ok::<(), expertmesh_placement::PlacementError>(())
//! ```
//!
//! Reading order: [`mod@placement`] (the table and its digest), [`strategy`] (how tables are
//! made), [`file`](mod@file) (the TOML form), [`error`].
//!
//! This crate does not know the network, gates, or what an expert computes. It is pure: equal
//! arguments give equal tables on every machine.
#![forbid(unsafe_code)]

pub mod error;
pub mod file;
pub mod placement;
pub mod strategy;

#[cfg(test)]
mod tests;

pub use error::PlacementError;
pub use placement::{MAX_EXPERTS, MAX_WORKERS, Placement};
pub use strategy::Strategy;
