//! The weights of a directory: one safetensors file, or shards with their index.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::config::read_limited;
use crate::error::CheckpointError;
use crate::tensors::{TensorFile, TensorView};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// As much as a header may have: the index repeats the names of the headers.
const MAX_INDEX_BYTES: u64 = 100_000_000;

/// Every tensor of a checkpoint by name. Opening reads headers only.
#[derive(Debug)]
pub(crate) struct Store {
    /// The single file or the index: what a message about a missing tensor points at.
    place: PathBuf,
    files: Vec<TensorFile>,
    /// Tensor → position in `files`; `None` for a single file, which knows its own names.
    index: Option<BTreeMap<String, usize>>,
}

/// `model.safetensors.index.json`, as far as it is needed.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

// === impl Store ===

impl Store {
    /// Opens `model.safetensors`, or else the shards that `model.safetensors.index.json` names:
    /// the order in which the libraries that write these directories look for them.
    pub(crate) fn open(directory: &Path) -> Result<Self, CheckpointError> {
        // Asked about the name, not its target: a link into a cache that was cleaned is an error to
        // be reported, not an absent file.
        let there = |path: &Path| path.symlink_metadata().is_ok();
        let single = directory.join(SINGLE);
        if there(&single) {
            let file = TensorFile::open(&single)?;
            return Ok(Self {
                place: single,
                files: vec![file],
                index: None,
            });
        }
        let index = directory.join(INDEX);
        if there(&index) {
            return Self::sharded(directory, index);
        }
        Err(CheckpointError::NoWeights {
            directory: directory.to_path_buf(),
        })
    }

    fn sharded(directory: &Path, place: PathBuf) -> Result<Self, CheckpointError> {
        let bad = |reason: String| CheckpointError::Index {
            file: place.clone(),
            reason,
        };
        let bytes = read_limited(&place, MAX_INDEX_BYTES)?;
        let Index { weight_map } =
            serde_json::from_slice(&bytes).map_err(|error| bad(format!("not valid: {error}")))?;

        let mut files: Vec<TensorFile> = Vec::new();
        let mut shards: BTreeMap<String, usize> = BTreeMap::new();
        let mut index = BTreeMap::new();
        for (tensor, shard) in weight_map {
            let at = match shards.get(&shard) {
                Some(&at) => at,
                None => {
                    if !is_file_name(&shard) {
                        return Err(bad(format!(
                            "tensor {tensor:?} is said to be in {shard:?}, expected the name of a \
                             file in the same directory"
                        )));
                    }
                    let path = directory.join(&shard);
                    if !path.exists() {
                        return Err(bad(format!(
                            "tensor {tensor:?} is said to be in {shard:?}, which is not there; \
                             fetch that file too"
                        )));
                    }
                    files.push(TensorFile::open(&path)?);
                    shards.insert(shard.clone(), files.len() - 1);
                    files.len() - 1
                }
            };
            if !files[at].contains(&tensor) {
                return Err(bad(format!(
                    "tensor {tensor:?} is said to be in {shard:?}, whose header does not name it"
                )));
            }
            index.insert(tensor, at);
        }
        Ok(Self {
            place,
            files,
            index: Some(index),
        })
    }

    /// Whether a tensor of this name is there.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.file_of(name).is_some()
    }

    /// The tensor `name` and the file that holds it.
    pub(crate) fn tensor(
        &self,
        name: &str,
    ) -> Result<(&TensorFile, TensorView<'_>), CheckpointError> {
        let file = self
            .file_of(name)
            .ok_or_else(|| CheckpointError::MissingTensor {
                tensor: name.to_owned(),
                place: self.place.clone(),
                tensors: self.tensors(),
            })?;
        Ok((file, file.view(name)?))
    }

    /// How many tensors there are.
    pub(crate) fn tensors(&self) -> usize {
        match &self.index {
            Some(index) => index.len(),
            None => self.files.iter().map(|file| file.names().len()).sum(),
        }
    }

    /// How many files hold them.
    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }

    fn file_of(&self, name: &str) -> Option<&TensorFile> {
        match &self.index {
            Some(index) => index.get(name).and_then(|&at| self.files.get(at)),
            None => self.files.first().filter(|file| file.contains(name)),
        }
    }
}

/// Whether `shard` names a file right in the checkpoint's directory. The index is as untrusted as
/// the weights: `../../secrets` or an absolute path must not be opened on its word.
fn is_file_name(shard: &str) -> bool {
    let mut parts = Path::new(shard).components();
    let plain = matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
    // A trailing slash vanishes in components(); a backslash separates on other systems.
    plain && !shard.contains(['/', '\\', '\0'])
}
