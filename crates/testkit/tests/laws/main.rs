//! The laws of the design, over real sockets in one process and over a shuffled bus.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and say what they measured"
)]

mod bits;
mod clocks;
mod common;
mod conservation;
mod depth;
mod frames;
mod gates;
mod goldens;
mod lanes;
mod latent;
mod ledger;
mod loss;
mod overflow;
mod sessions;
mod stack;
