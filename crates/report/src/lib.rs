//! The report of expertmesh as people and programs read it.
//!
//! # Reading order
//!
//! 1. [`json`] and [`parse`]: the report as a file, and back.
//! 2. [`terminal`]: the report as a page of at most [`WIDTH`] columns. Its sections are one file
//!    each, in the order in which they are printed: who and what, latency, where a step goes,
//!    communication, overflow and balance, and a comparison when there are several runs.
//! 3. [`overflow`]: policies side by side, as a table and as a picture (drawn with `svg`).
//! 4. [`lanes_json`] and [`parse_lanes`]: when endpoints did what, as a file, and back; [`perfetto`]
//!    shows it in a trace viewer.
//! 5. [`NcclMatrix`] and [`chakra`]: what moved, for other tools to run or to simulate.
//! 6. [`human`]: numbers with units, at a bounded width.
//!
//! # Invariants
//!
//! * This crate does not know a live cluster: a report from a file prints like one that was just
//!   measured.
//! * This crate does not measure or derive: what it prints is in the report, or is a ratio or a
//!   rate of two figures that are.
//! * It prints nothing itself and colours nothing: it returns text. Names in a report may come
//!   from other machines, so control characters never pass through.
#![forbid(unsafe_code)]

pub mod chakra;
mod error;
pub mod human;
mod json;
mod lanes;
mod nccl;
pub mod overflow;
mod perfetto;
mod svg;
mod table;
mod terminal;

pub use error::ReportError;
pub use json::{json, parse};
pub use lanes::{LANES_SCHEMA, lanes_json, parse_lanes};
pub use nccl::{NcclMatrix, Ranks};
pub use perfetto::perfetto;
pub use terminal::{WIDTH, terminal};
