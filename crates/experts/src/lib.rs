//! Expert networks: what a worker computes for the token rows that it is sent.
//!
//! An [`Expert`] maps rows `[m, hidden]` to rows `[m, hidden]`, each row by itself: its result has
//! the same bits alone and in any batch. Gate weights are not applied here; whoever combines the
//! results does that.
//!
//! # Reading order
//!
//! 1. [`ExpertSpec`]: which network, how large, in which format.
//! 2. [`Expert`], the trait, with [`Scratch`] for its intermediate rows and [`ExpertSource`] for
//!    where experts come from.
//! 3. [`SwigluExpert`] (with [`Clamp`], what some families do in its middle), [`MlpExpert`],
//!    [`IdentityExpert`], [`ConstantExpert`]: the networks.
//! 4. [`SharedExpert`]: the one that every token passes, with its own gate. [`LatentProjections`]:
//!    into and out of the rows of experts that do not work on hidden states.
//! 5. [`HomeExperts`]: the shared expert and the free ones, which a token's home computes itself.
//! 6. [`ComputePool`]: which thread computes, decided by the estimated cost; [`pieces`]: how work is
//!    cut.
//! 7. [`synthetic_expert`], [`synthetic_gate`] and [`synthetic_head`]: seeded weights for runs without a checkpoint.
//!
//! # Rounding
//!
//! In bf16 the intermediate results are rounded where the reference implementations store them:
//! after each product, each activation and each multiplication. Sums inside a product are f32. The
//! rows handed in must be exact in bf16 already, and the rows handed back are.
//!
//! # What this crate does not know
//!
//! Workers, gates and routes, files, time, and anything asynchronous. A network starts no thread by
//! itself: it runs on whichever calls it, and allocates nothing in [`Expert::forward`] once its
//! [`Scratch`] has grown.

#![forbid(unsafe_code)]

mod clamp;
mod constant;
mod error;
mod expert;
mod home;
mod identity;
mod latent;
mod mixed;
mod mlp;
pub mod pieces;
mod pool;
mod shared;
mod spec;
mod swiglu;
mod synthetic;
#[cfg(test)]
mod testing;

pub use clamp::Clamp;
pub use constant::ConstantExpert;
pub use error::ExpertError;
pub use expert::{Expert, ExpertSource, Scratch};
pub use home::{HomeExperts, HomeRows, decode_rows};
pub use identity::IdentityExpert;
pub use latent::LatentProjections;
pub use mixed::MixedExpert;
pub use mlp::MlpExpert;
pub use pool::{ComputePool, for_each_row_block};
pub use shared::SharedExpert;
pub use spec::{Activation, ExpertKind, ExpertSpec};
pub use swiglu::{SwigluBiases, SwigluExpert};
pub use synthetic::{
    SyntheticHead, synthetic_expert, synthetic_gate, synthetic_head, synthetic_mixed,
};
