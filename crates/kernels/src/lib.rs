//! The arithmetic of expertmesh: matrix products, number formats, transcendentals, CPU dispatch and
//! mapped files.
//!
//! Everything here promises **the same bits on every CPU**. A result may depend on its inputs and on
//! [`NUMERICS`], never on the instruction set, the number of rows in a batch, a tile size or a
//! thread. (The payload and sign of a NaN are the one exception: IEEE 754 leaves them open.)
//!
//! # Reading order
//!
//! 1. [`Format`] and the row functions ([`encode_row`], [`decode_row`], [`axpy_row`]): how a token
//!    row becomes bytes, and how result rows are added up.
//! 2. [`PackedMatrix`]: weights laid out once so that a product streams them once.
//! 3. [`matmul`]: `y = x Wᵀ`; each element is one ascending chain of fused multiply-adds.
//! 4. [`math`]: `exp` and its relatives, written out here so that no libm changes a bit.
//! 5. [`rows`]: what a selection does to rows of scores, without a branch that depends on them.
//!    [`prefetch_to_write`]: for writers of many streams.
//! 6. [`MappedFile`]: a file as bytes, without reading it. [`SharedWords`]: atomics that several
//!    processes share.
//!
//! # What this crate does not know
//!
//! Experts, gates, who owns the threads that call it, and anything of the network. It starts no
//! thread and reads no environment variable. It is the only crate with `unsafe`, which stays inside
//! the modules marked below.

#![deny(unsafe_code, clippy::undocumented_unsafe_blocks)]

mod error;
mod format;
mod gemm;
mod isa;
#[allow(unsafe_code, reason = "mapping a file trusts that nobody truncates it")]
mod mapped;
pub mod math;
mod packed;
#[allow(unsafe_code, reason = "an intrinsic that older compilers call unsafe")]
mod prefetch;
pub mod rows;
#[allow(unsafe_code, reason = "mapped words become a slice of atomics")]
mod shared;

pub use error::KernelError;
pub use format::{
    Format, ParseFormatError, axpy_row, bf16_round, bf16_to_f32, decode_row, encode_row,
    f32_to_bf16, round_bf16, scale_row,
};
pub use gemm::{NUMERICS, matmul};
pub use isa::kernel_name;
pub use mapped::MappedFile;
pub use packed::PackedMatrix;
pub use prefetch::prefetch_to_write;
pub use shared::SharedWords;
