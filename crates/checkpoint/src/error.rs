//! What can be wrong with a checkpoint, one variant a kind of mistake.

use std::io;
use std::path::PathBuf;

use expertmesh_experts::ExpertError;
use expertmesh_kernels::KernelError;
use expertmesh_routing::RoutingError;

/// Why a checkpoint, one of its layers or a tensor file could not be used.
///
/// Each message names the file and the field or tensor, what it held and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system refused a file or directory.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done: "open", "read", "write".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file is not a regular file, or is larger than its kind may be.
    #[error("{} {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory holds neither `model.safetensors` nor an index of shards.
    #[error(
        "no weights in {}: expected model.safetensors or model.safetensors.index.json",
        directory.display()
    )]
    NoWeights {
        /// The directory that was searched.
        directory: PathBuf,
    },
    /// The header of a safetensors file does not hold together.
    #[error("bad safetensors header in {}: {reason}", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// What the header claimed and what the file has.
        reason: String,
    },
    /// The header's entry of one tensor does not hold together.
    #[error("bad safetensors header in {}: tensor {tensor:?} {reason}", file.display())]
    HeaderTensor {
        /// The file.
        file: PathBuf,
        /// The tensor's name in the header.
        tensor: String,
        /// What its entry claimed and what was expected.
        reason: String,
    },
    /// The index of a sharded checkpoint is not usable.
    #[error("bad weight index {}: {reason}", file.display())]
    Index {
        /// The index file.
        file: PathBuf,
        /// What it held and what was expected.
        reason: String,
    },
    /// A tensor is in none of the files.
    #[error("tensor {tensor:?} is missing from {} ({tensors} tensors)", place.display())]
    MissingTensor {
        /// The name that was looked for.
        tensor: String,
        /// The file, or the index of the shards, that was searched.
        place: PathBuf,
        /// How many tensors it names.
        tensors: usize,
    },
    /// A tensor's shape is not the one that the configuration implies.
    #[error("tensor {tensor:?} in {} has shape {found:?}, expected {expected}", file.display())]
    Shape {
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        file: PathBuf,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that was expected, with the fields that ask for it.
        expected: String,
    },
    /// A tensor's number format cannot be used.
    #[error("tensor {tensor:?} in {} is {found}, expected {expected}", file.display())]
    Dtype {
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        file: PathBuf,
        /// Its number format, as safetensors spells it.
        found: String,
        /// The formats that are accepted.
        expected: &'static str,
    },
    /// An element of a tensor has a value that it must not have.
    #[error("tensor {tensor:?} in {} holds {found}, expected {expected}", file.display())]
    Value {
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        file: PathBuf,
        /// The value, and where it stands.
        found: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// `config.json` is not JSON, or not an object.
    #[error("cannot read {}: {reason}", file.display())]
    ConfigSyntax {
        /// The configuration file.
        file: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// A field of `config.json` that has no safe default is absent.
    #[error("{} has no field {field}", file.display())]
    ConfigMissing {
        /// The configuration file.
        file: PathBuf,
        /// The field, with its other spellings.
        field: String,
    },
    /// A field of `config.json` holds something else than expected.
    #[error("{}: {field} is {found}, expected {expected}", file.display())]
    ConfigField {
        /// The configuration file.
        file: PathBuf,
        /// The field.
        field: String,
        /// What it held.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// The model has fewer layers than asked for.
    #[error(
        "layer {layer} is not there: the model has {layers} layers, numbered from 0 \
         (layers with experts: {moe_layers})"
    )]
    NoSuchLayer {
        /// The layer that was asked for.
        layer: u32,
        /// How many layers the model has.
        layers: u32,
        /// The layers that have experts, abbreviated.
        moe_layers: String,
    },
    /// The layer is an ordinary feed-forward layer.
    #[error("layer {layer} is not a mixture-of-experts layer (layers with experts: {moe_layers})")]
    NotMoe {
        /// The layer that was asked for.
        layer: u32,
        /// The layers that have experts, abbreviated.
        moe_layers: String,
    },
    /// The layer has fewer experts than asked for.
    #[error("expert {expert} is not there: the layer has {experts} experts, numbered from 0")]
    NoSuchExpert {
        /// The expert that was asked for.
        expert: usize,
        /// How many experts the layer has.
        experts: usize,
    },
    /// An argument of a call is out of its range.
    #[error("{argument} is {found}, expected {expected}")]
    Argument {
        /// The argument.
        argument: &'static str,
        /// What it held.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// The routing crate refused the gate.
    #[error("gate of layer {layer}: {source}")]
    Gate {
        /// The layer.
        layer: u32,
        /// Its reason.
        source: RoutingError,
    },
    /// The experts crate refused an expert.
    #[error("{what} of layer {layer}: {source}")]
    Expert {
        /// "expert 7", "shared expert" or "latent projections".
        what: String,
        /// The layer.
        layer: u32,
        /// Its reason.
        source: ExpertError,
    },
    /// The kernels refused a matrix.
    #[error("tensor {tensor:?}: {source}")]
    Matrix {
        /// The tensor, or what stands for it.
        tensor: String,
        /// Their reason.
        source: KernelError,
    },
}
