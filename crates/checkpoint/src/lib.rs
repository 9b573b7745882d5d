//! Gates and experts from files: Hugging Face checkpoints, and layers made from a seed.
//!
//! [`Checkpoint::open`] reads `config.json` and the headers of the safetensors files beside it;
//! [`Checkpoint::layer`] picks a mixture-of-experts layer; its [`LayerSource`] then hands over the
//! gate, one expert, or the shared expert, each read from the mapped file when it is asked for.
//! [`SyntheticLayer`] is the same thing out of random numbers. [`describe`] tells what is in a
//! directory; [`TensorFile`] and [`write()`] are the files that go in and out of a run.
//!
//! ```no_run
//! use expertmesh_checkpoint::{Checkpoint, LayerSource};
//! use expertmesh_kernels::Format;
//!
//! let checkpoint = Checkpoint::open("Mixtral-8x7B-v0.1".as_ref())?;
//! let layer = checkpoint.layer(0, Format::Bf16)?;
//! assert_eq!((layer.spec().experts, layer.spec().top_k), (8, 2));
//! let gate = layer.gate()?;
//! let expert = layer.expert(3)?; // 3 of 8 in memory, the rest still on disk
//! # Ok::<(), expertmesh_checkpoint::CheckpointError>(())
//! ```
//!
//! Reading order: `spec` (what a layer is), `config` and `families` (what a configuration means),
//! `header`, `tensors` and `store` (files, tensors, shards), `layout` (names and shapes), `weights`
//! (bytes to matrices), `checkpoint` (all of it together), `synthetic`, `inspect`, `write`,
//! `error`.
//!
//! Every file is untrusted: each length, offset, shape, name and format is compared with what is
//! there before it is used, and what does not fit is an error that names the file and the tensor
//! or field.
//!
//! This crate does not know the network, workers or placement: who loads which expert is the
//! caller's business. Nothing outside `families` asks for a model type.
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
mod error;
mod families;
mod header;
mod inspect;
mod layout;
mod spec;
mod store;
mod synthetic;
mod tensors;
mod weights;
mod write;

pub use checkpoint::{Checkpoint, CheckpointLayer};
pub use error::CheckpointError;
pub use inspect::{Inspection, LayerInspection, WorkerShare, describe};
pub use spec::{Combine, LayerSource, LayerSpec, LayerWeights, SharedKind, SharedSpec, Weight};
pub use synthetic::{SyntheticLayer, SyntheticSpec};
pub use tensors::TensorFile;
pub use write::{NamedTensor, TensorData, write};

/// The supported values of `model_type`, in alphabetical order.
#[must_use]
pub fn known_model_types() -> Vec<&'static str> {
    families::known()
}
