//! One field at a time: its value, or an error with its line.

use toml::{Spanned, Value};

use crate::error::TopologyError;
use crate::units;

/// A field that may be there, with its place.
pub(super) type Cell = Option<Spanned<Value>>;

/// The file that errors are about.
pub(super) struct Reader<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

// === impl Reader ===

impl Reader<'_> {
    /// Line of a byte of the text, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    /// What the reader of TOML says, in one line. Of a value that it does not take it does not say
    /// whose it is; the line does.
    pub(super) fn syntax(&self, error: &toml::de::Error) -> TopologyError {
        let line = self.line(error.span().map_or(0, |span| span.start));
        let said = error.message().trim().replace('\n', ", ");
        let text = self.text.lines().nth(line - 1).unwrap_or_default().trim();
        let is_list = text.starts_with('[') && said.ends_with("expected a sequence");
        let reason = match said.starts_with("unknown field") || text.is_empty() {
            true => said,
            false if is_list => {
                format!("`{text}` is one table, expected a list of them: `[{text}]`")
            }
            false => format!("{said}, in `{}`", text.replace(char::is_control, " ")),
        };
        TopologyError::Syntax {
            file: self.file.to_owned(),
            line,
            reason,
        }
    }

    pub(super) fn field(
        &self,
        at: usize,
        field: &str,
        held: &str,
        expected: &str,
    ) -> TopologyError {
        TopologyError::Field {
            file: self.file.to_owned(),
            line: self.line(at),
            field: field.to_owned(),
            held: held.to_owned(),
            expected: expected.to_owned(),
        }
    }

    fn wrong(&self, field: &str, cell: &Spanned<Value>, expected: &str) -> TopologyError {
        let held = match cell.get_ref() {
            Value::Table(_) => "holds a table".to_owned(),
            Value::Array(list) if list.is_empty() => "holds an empty list".to_owned(),
            Value::Array(_) => "holds a list".to_owned(),
            Value::String(text) => format!("holds {text:?}"),
            value => format!("holds {value}"),
        };
        self.field(cell.span().start, field, &held, expected)
    }

    pub(super) fn text_of(
        &self,
        field: &str,
        cell: &Cell,
    ) -> Result<Option<String>, TopologyError> {
        let read = |cell: &Spanned<Value>| match cell.get_ref().as_str() {
            Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
            _ => Err(self.wrong(field, cell, "a text")),
        };
        cell.as_ref().map(read).transpose()
    }

    /// A name that stands in tables and that an override can mean.
    pub(super) fn host_name(&self, cell: &Cell) -> Result<Option<String>, TopologyError> {
        let name = self.text_of("host.name", cell)?;
        let is_none = |name: &String| name == "*" || name.contains(char::is_control);
        match (name.as_ref().is_some_and(is_none), cell) {
            (true, Some(cell)) => {
                let expected = "a name of one line that is not \"*\", which is every host";
                Err(self.wrong("host.name", cell, expected))
            }
            _ => Ok(name),
        }
    }

    pub(super) fn names(
        &self,
        field: &str,
        cell: &Cell,
    ) -> Result<Option<Vec<String>>, TopologyError> {
        let read = |cell: &Spanned<Value>| {
            let list = cell.get_ref().as_array().into_iter().flatten();
            let names: Option<Vec<String>> =
                list.map(|name| Some(name.as_str()?.to_owned())).collect();
            let names = names.filter(|names| !names.is_empty());
            names
                .ok_or_else(|| self.wrong(field, cell, "a list of host names, one for each worker"))
        };
        cell.as_ref().map(read).transpose()
    }

    /// A text with a unit, read by `parse`.
    pub(super) fn quantity<T>(
        &self,
        field: &str,
        cell: &Cell,
        parse: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>, TopologyError> {
        let read = |cell: &Spanned<Value>| {
            let value = cell.get_ref().as_str().and_then(&parse);
            value.ok_or_else(|| self.wrong(field, cell, expected))
        };
        cell.as_ref().map(read).transpose()
    }

    pub(super) fn time(&self, field: &str, cell: &Cell) -> Result<Option<u64>, TopologyError> {
        self.quantity(field, cell, units::time, units::TIME)
    }

    pub(super) fn rate(&self, field: &str, cell: &Cell) -> Result<Option<f64>, TopologyError> {
        self.quantity(field, cell, units::rate, units::RATE)
    }

    /// A share as a text with `%` or as a number.
    pub(super) fn share(&self, field: &str, cell: &Cell) -> Result<Option<f64>, TopologyError> {
        let read = |cell: &Spanned<Value>| {
            let value = match cell.get_ref() {
                Value::String(text) => units::share(text),
                value => number(value).filter(|share| units::is_share(*share)),
            };
            value.ok_or_else(|| self.wrong(field, cell, units::SHARE))
        };
        cell.as_ref().map(read).transpose()
    }

    pub(super) fn number(&self, field: &str, cell: &Cell) -> Result<Option<f64>, TopologyError> {
        let read = |cell: &Spanned<Value>| {
            let value = number(cell.get_ref()).filter(|value| value.is_finite());
            value.ok_or_else(|| self.wrong(field, cell, "a number"))
        };
        cell.as_ref().map(read).transpose()
    }

    pub(super) fn flag(&self, field: &str, cell: &Cell) -> Result<Option<bool>, TopologyError> {
        let read = |cell: &Spanned<Value>| {
            let value = cell.get_ref().as_bool();
            value.ok_or_else(|| self.wrong(field, cell, "true or false"))
        };
        cell.as_ref().map(read).transpose()
    }

    /// A whole number from 0.
    pub(super) fn whole(&self, field: &str, cell: &Cell) -> Result<Option<u64>, TopologyError> {
        let read = |cell: &Spanned<Value>| {
            let value = cell
                .get_ref()
                .as_integer()
                .and_then(|value| u64::try_from(value).ok());
            value.ok_or_else(|| self.wrong(field, cell, "a whole number from 0"))
        };
        cell.as_ref().map(read).transpose()
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(
        &self,
        field: &str,
        cell: &Cell,
        most: u32,
    ) -> Result<Option<u32>, TopologyError> {
        let read = |cell: &Spanned<Value>| {
            let value = cell
                .get_ref()
                .as_integer()
                .and_then(|value| u32::try_from(value).ok());
            let value = value.filter(|value| (1..=most).contains(value));
            value
                .ok_or_else(|| self.wrong(field, cell, &format!("a whole number from 1 to {most}")))
        };
        cell.as_ref().map(read).transpose()
    }
}

#[allow(clippy::cast_precision_loss)]
fn number(value: &Value) -> Option<f64> {
    value
        .as_float()
        .or_else(|| value.as_integer().map(|whole| whole as f64))
}
