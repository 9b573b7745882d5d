//! `config.json`: typed reading of its fields, with aliases and errors that name the field.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::CheckpointError;

/// No published configuration comes near this; a larger file is not a configuration.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// The fields of one `config.json`.
///
/// `null` counts as absent, as it does in the configuration classes that write these files.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    file: PathBuf,
    fields: Map<String, Value>,
}

// === impl Config ===

impl Config {
    /// Reads `directory/config.json`.
    pub(crate) fn open(directory: &Path) -> Result<Self, CheckpointError> {
        let file = directory.join("config.json");
        let bytes = read_limited(&file, MAX_CONFIG_BYTES)?;
        Self::parse(file, &bytes)
    }

    /// Parses the bytes of `file`.
    pub(crate) fn parse(file: PathBuf, bytes: &[u8]) -> Result<Self, CheckpointError> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self { file, fields }),
            Ok(other) => Err(CheckpointError::ConfigSyntax {
                file,
                reason: format!("it holds {}, expected a JSON object", shown(&other)),
            }),
            Err(error) => Err(CheckpointError::ConfigSyntax {
                file,
                reason: format!("not JSON: {error}"),
            }),
        }
    }

    /// A whole number in `1..=limit` under one of `names`, which must be there.
    pub(crate) fn size(&self, names: &[&str], limit: usize) -> Result<usize, CheckpointError> {
        let (name, value) = self
            .alias(names)?
            .ok_or_else(|| CheckpointError::ConfigMissing {
                file: self.file.clone(),
                field: names.join(" (also spelled ") + &")".repeat(names.len().saturating_sub(1)),
            })?;
        self.whole(name, value, 1, limit)
    }

    /// As [`Config::size`], with a default for an absent field.
    pub(crate) fn size_or(
        &self,
        name: &str,
        default: usize,
        limit: usize,
    ) -> Result<usize, CheckpointError> {
        match self.field(name) {
            Some(value) => self.whole(name, value, 1, limit),
            None => Ok(default),
        }
    }

    /// A boolean, or `default` where the field is absent.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> Result<bool, CheckpointError> {
        match self.field(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(name, shown(other), "true or false")),
        }
    }

    /// A string, or `None` where the field is absent.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, CheckpointError> {
        match self.field(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, shown(other), "a string")),
        }
    }

    /// A list of layer numbers, empty where the field is absent.
    pub(crate) fn layers(&self, name: &str) -> Result<BTreeSet<u32>, CheckpointError> {
        let Some(value) = self.field(name) else {
            return Ok(BTreeSet::new());
        };
        let expected = "a list of layer numbers";
        let list = value
            .as_array()
            .ok_or_else(|| self.wrong(name, shown(value), expected))?;
        list.iter()
            .map(|item| {
                item.as_u64()
                    .and_then(|n| u32::try_from(n).ok())
                    .ok_or_else(|| self.wrong(name, format!("a list with {item}"), expected))
            })
            .collect()
    }

    /// The error for a field that holds `found` where `expected` was asked for.
    pub(crate) fn wrong(
        &self,
        field: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> CheckpointError {
        CheckpointError::ConfigField {
            file: self.file.clone(),
            field: field.to_owned(),
            found: found.into(),
            expected: expected.into(),
        }
    }

    /// The error for an absent `field`.
    pub(crate) fn missing(&self, field: &str) -> CheckpointError {
        CheckpointError::ConfigMissing {
            file: self.file.clone(),
            field: field.to_owned(),
        }
    }

    fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// The first of `names` that is present. Two spellings with different values are an error:
    /// picking one would silently build another model than the writer meant.
    fn alias<'a>(&self, names: &[&'a str]) -> Result<Option<(&'a str, &Value)>, CheckpointError> {
        let mut present = names
            .iter()
            .filter_map(|&name| Some((name, self.field(name)?)));
        let Some((name, value)) = present.next() else {
            return Ok(None);
        };
        match present.find(|(_, other)| *other != value) {
            Some((other, held)) => Err(self.wrong(
                other,
                shown(held),
                format!(
                    "the value of its other spelling {name}, which is {}",
                    shown(value)
                ),
            )),
            None => Ok(Some((name, value))),
        }
    }

    fn whole(
        &self,
        name: &str,
        value: &Value,
        least: usize,
        most: usize,
    ) -> Result<usize, CheckpointError> {
        value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| (least..=most).contains(n))
            .ok_or_else(|| {
                self.wrong(
                    name,
                    shown(value),
                    format!("a whole number from {least} to {most}"),
                )
            })
    }
}

/// Reads a whole regular file of at most `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, CheckpointError> {
    let io = |action| {
        move |source| CheckpointError::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    };
    // Asked before opening: opening a FIFO would wait for a writer for ever.
    let kind = std::fs::metadata(path).map_err(io("open"))?;
    let refuse = |reason: String| CheckpointError::File {
        path: path.to_path_buf(),
        reason,
    };
    if !kind.is_file() {
        return Err(refuse("is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io("open"))?;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(io("read"))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > limit) {
        return Err(refuse(format!(
            "is larger than {limit} bytes, which no such file needs"
        )));
    }
    Ok(bytes)
}

/// A JSON value for a message: short whatever the file held.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
