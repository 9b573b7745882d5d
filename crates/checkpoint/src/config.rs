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
    /// The fields around these, each with a dot behind it.
    outer: String,
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
            Ok(Value::Object(fields)) => Ok(Self {
                file,
                outer: String::new(),
                fields,
            }),
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

    /// The fields of the object `name`, which must be there.
    pub(crate) fn nested(&self, name: &str) -> Result<Self, CheckpointError> {
        match self.field(name) {
            Some(Value::Object(fields)) => Ok(Self {
                file: self.file.clone(),
                outer: format!("{}{name}.", self.outer),
                fields: fields.clone(),
            }),
            Some(other) => Err(self.wrong(name, shown(other), "a JSON object")),
            None => Err(self.missing(name)),
        }
    }

    /// Whether the field is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    /// Whether the field is there and null, which for some fields is not what absence means.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(Value::is_null)
    }

    /// A list of one mark for each of `layers` layers, 0 or 1 or a boolean.
    pub(crate) fn marks(&self, name: &str, layers: usize) -> Result<Vec<bool>, CheckpointError> {
        let mark = |value: &Value| value.as_bool().or(value.as_u64().map(|mark| mark > 0));
        let list = self.field(name).and_then(Value::as_array);
        let marks: Option<Vec<bool>> = list.and_then(|list| list.iter().map(mark).collect());
        marks.filter(|marks| marks.len() == layers).ok_or_else(|| {
            let found = self.field(name).map_or_else(String::new, shown);
            self.wrong(name, found, format!("0 or 1 for each of {layers} layers"))
        })
    }

    /// A whole number in `1..=limit` under one of `names`, which must be there.
    pub(crate) fn size(&self, names: &[&str], limit: usize) -> Result<usize, CheckpointError> {
        let (name, value) = self
            .alias(names)?
            .ok_or_else(|| self.missing(&spellings(names)))?;
        self.whole(name, value, 1, limit)
    }

    /// As [`Config::size`], one for each of `layers` layers: the field may be a number for all of
    /// them or a list of so many.
    pub(crate) fn sizes(
        &self,
        names: &[&str],
        layers: usize,
        limit: usize,
    ) -> Result<Vec<usize>, CheckpointError> {
        match self.alias(names)? {
            Some((name, Value::Array(list))) => {
                if list.len() != layers {
                    let found = format!("a list of {}", list.len());
                    let expected = format!("one number for each of {layers} layers");
                    return Err(self.wrong(name, found, expected));
                }
                list.iter()
                    .map(|value| self.whole(name, value, 1, limit))
                    .collect()
            }
            _ => Ok(vec![self.size(names, limit)?; layers]),
        }
    }

    /// A whole number in `0..=limit` under one of `names`, or `default` where none is there.
    pub(crate) fn count_or(
        &self,
        names: &[&str],
        default: usize,
        limit: usize,
    ) -> Result<usize, CheckpointError> {
        match self.alias(names)? {
            Some((name, value)) => self.whole(name, value, 0, limit),
            None => Ok(default),
        }
    }

    /// A finite number, or `None` where the field is absent.
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, CheckpointError> {
        let Some(value) = self.field(name) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|number| number.is_finite());
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(name, shown(value), "a number")),
        }
    }

    /// As [`Config::number`], in f32, with a default for an absent field.
    pub(crate) fn number_or(&self, name: &str, default: f32) -> Result<f32, CheckpointError> {
        match self.number(name)? {
            None => Ok(default),
            Some(number) => {
                let narrow = number as f32;
                if narrow.is_finite() {
                    Ok(narrow)
                } else {
                    Err(self.wrong(name, number.to_string(), "a number that f32 has"))
                }
            }
        }
    }

    /// A list of strings, or `None` where the field is absent.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<&str>>, CheckpointError> {
        let Some(value) = self.field(name) else {
            return Ok(None);
        };
        let texts = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect());
        match texts {
            Some(texts) => Ok(Some(texts)),
            None => Err(self.wrong(name, shown(value), "a list of strings")),
        }
    }

    /// Two whole numbers in `1..=limit`, or `default` where the field is absent.
    pub(crate) fn pair_or(
        &self,
        name: &str,
        default: [usize; 2],
        limit: usize,
    ) -> Result<[usize; 2], CheckpointError> {
        let Some(value) = self.field(name) else {
            return Ok(default);
        };
        match value.as_array().map(Vec::as_slice) {
            Some([first, second]) => Ok([
                self.whole(name, first, 1, limit)?,
                self.whole(name, second, 1, limit)?,
            ]),
            _ => Err(self.wrong(name, shown(value), "a list of two whole numbers")),
        }
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
            field: format!("{}{field}", self.outer),
            found: found.into(),
            expected: expected.into(),
        }
    }

    /// The error for an absent `field`.
    pub(crate) fn missing(&self, field: &str) -> CheckpointError {
        CheckpointError::ConfigMissing {
            file: self.file.clone(),
            field: format!("{}{field}", self.outer),
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

/// All spellings of a field, for a message.
pub(crate) fn spellings(names: &[&str]) -> String {
    names.join(" (also spelled ") + &")".repeat(names.len().saturating_sub(1))
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
