//! The report of expertmesh as people and programs read it.
//!
//! # Reading order
//!
//! 1. [`json`] and [`parse`]: the report as a file, and back, with a check of what it holds (`check`).
//! 2. [`terminal()`]: the report as a page of at most [`WIDTH`] columns. Its sections are one file
//!    each, in the order in which they are printed: who and what, latency, where a step goes,
//!    communication, overflow and balance, and a comparison when there are several runs.
//! 3. [`html()`]: the same and more as one file for a browser, with pictures.
//! 4. [`overflow`]: policies side by side, as a table and as a picture (drawn with `svg`).
//! 5. [`lanes_json`] and [`parse_lanes`]: when endpoints did what, as a file, and back; [`perfetto()`]
//!    shows it in a trace viewer.
//! 6. [`counterpart`]: which run was predicted and which measured. [`NcclMatrix`] and [`chakra()`]: what moved, for other tools to run or to simulate.
//! 7. [`human`]: numbers with units, at a bounded width.
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
mod check;
mod error;
mod html;
pub mod human;
mod json;
mod lanes;
mod nccl;
pub mod overflow;
mod pairs;
mod perfetto;
mod svg;
mod table;
mod terminal;

pub use chakra::chakra;
pub use error::ReportError;
pub use html::html;
pub use json::{json, parse};
pub use lanes::{LANES_SCHEMA, lanes_json, parse_lanes};
pub use nccl::{NcclMatrix, Ranks};
pub use pairs::{counterpart, side_by_side};
pub use perfetto::perfetto;
pub use terminal::{WIDTH, terminal};
