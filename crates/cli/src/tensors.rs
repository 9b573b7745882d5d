//! Hidden states from a safetensors file, with their masks.

use std::path::{Path, PathBuf};

use expertmesh_checkpoint::{CheckpointError, TensorFile};

use crate::error::Failure;

/// Tensors that an input may hold.
const KNOWN: [&str; 4] = [
    "hidden_states",
    "padding_mask",
    "attention_mask",
    "token_ids",
];

/// The input of a step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hidden {
    pub(crate) file: PathBuf,
    /// Shape as in the file: `[T, H]` or `[B, S, H]`.
    pub(crate) shape: Vec<usize>,
    /// T, or B · S.
    pub(crate) tokens: usize,
    /// H.
    pub(crate) hidden: usize,
    /// `[tokens, hidden]`, all finite.
    pub(crate) rows: Vec<f32>,
    /// `[tokens]`, true for padding, whose choices are skipped.
    pub(crate) padding: Option<Vec<bool>>,
    /// `[tokens]`, true for tokens that losses count.
    pub(crate) attention: Option<Vec<bool>>,
    /// `[tokens]`, for gates that hash them.
    pub(crate) token_ids: Option<Vec<u32>>,
}

// === impl Hidden ===

impl Hidden {
    /// Reads `hidden_states` (F32 or BF16), `padding_mask`, `attention_mask` and `token_ids` of
    /// `file`.
    ///
    /// # Errors
    /// [`Failure::Input`]: a file that is no safetensors file, a tensor that is missing, not known,
    /// or of another shape or format, a number that is not finite.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let tensors = TensorFile::open(file)?;
        if let Some(name) = tensors.names().find(|name| !KNOWN.contains(name)) {
            return Err(Failure::input(format!(
                "tensor {name:?} in {} is not one that an input may hold: {}",
                file.display(),
                KNOWN.join(", ")
            )));
        }
        let (shape, rows) = tensors.f32("hidden_states")?;
        let (tokens, hidden) = match *shape.as_slice() {
            [tokens, hidden] => (tokens, hidden),
            [batch, sequence, hidden] => (batch * sequence, hidden),
            _ => {
                return Err(wrong_shape(
                    file,
                    "hidden_states",
                    &shape,
                    "[T, H] or [B, S, H]",
                ));
            }
        };
        check_finite(file, &rows, hidden)?;
        let mask = |name| mask(&tensors, file, name, tokens);
        let padding = mask("padding_mask")?;
        let attention = mask("attention_mask")?;
        Ok(Self {
            file: file.to_path_buf(),
            shape,
            tokens,
            hidden,
            rows,
            padding,
            attention,
            token_ids: token_ids(&tensors, file, tokens)?,
        })
    }

    /// Tokens of a sequence: S of `[B, S, H]`, all of `[T, H]`.
    pub(crate) fn sequence(&self) -> usize {
        match *self.shape.as_slice() {
            [_, sequence, _] => sequence,
            _ => self.tokens,
        }
    }

    /// Checks the rows against a layer.
    ///
    /// # Errors
    /// [`Failure::Input`] if the layer's rows have another length.
    pub(crate) fn check_hidden(&self, expected: usize) -> Result<(), Failure> {
        if self.hidden == expected {
            return Ok(());
        }
        let expected = format!("rows of {expected}, the layer's hidden size");
        Err(wrong_shape(
            &self.file,
            "hidden_states",
            &self.shape,
            &expected,
        ))
    }
}

fn mask(
    tensors: &TensorFile,
    file: &Path,
    name: &'static str,
    tokens: usize,
) -> Result<Option<Vec<bool>>, Failure> {
    if !tensors.contains(name) {
        return Ok(None);
    }
    let (shape, values) = tensors.mask(name)?;
    if values.len() != tokens {
        let expected = format!("{tokens} values, one for each token of hidden_states");
        return Err(wrong_shape(file, name, &shape, &expected));
    }
    Ok(Some(values))
}

fn token_ids(
    tensors: &TensorFile,
    file: &Path,
    tokens: usize,
) -> Result<Option<Vec<u32>>, Failure> {
    const NAME: &str = "token_ids";
    if !tensors.contains(NAME) {
        return Ok(None);
    }
    let (shape, values) = tensors.i64(NAME)?;
    if values.len() != tokens {
        let expected = format!("{tokens} values, one for each token of hidden_states");
        return Err(wrong_shape(file, NAME, &shape, &expected));
    }
    let id = |(token, value): (usize, i64)| {
        u32::try_from(value).map_err(|_| {
            Failure::input(format!(
                "tensor {NAME:?} in {} holds {value} at token {token}, expected 0 to {}",
                file.display(),
                u32::MAX
            ))
        })
    };
    let ids = values.into_iter().enumerate().map(id);
    Ok(Some(ids.collect::<Result<_, _>>()?))
}

/// The coordinator would refuse them too; here the answer comes before a process is started.
fn check_finite(file: &Path, rows: &[f32], hidden: usize) -> Result<(), Failure> {
    match rows.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Failure::input(format!(
            "tensor \"hidden_states\" in {} holds {} at token {}, element {}, expected finite \
             numbers",
            file.display(),
            rows[at],
            at / hidden.max(1),
            at % hidden.max(1)
        ))),
    }
}

fn wrong_shape(file: &Path, tensor: &str, found: &[usize], expected: &str) -> Failure {
    Failure::from(CheckpointError::Shape {
        tensor: tensor.to_owned(),
        file: file.to_path_buf(),
        found: found.to_vec(),
        expected: expected.to_owned(),
    })
}
