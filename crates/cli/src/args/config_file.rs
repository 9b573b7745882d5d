//! Flags from a TOML file: its keys are the long names of a command's flags.
//!
//! The file becomes flags that stand before those of the command line, so a flag overrides the
//! file and the two can never mean different things.

use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, ArgAction, Command};
use toml::Value;

use crate::error::Failure;

/// Flags that mean nothing in a file.
const NOT_KEYS: [&str; 4] = ["config", "help", "version", "log-format"];

/// `argv` with the flags of `file` put right after the name of the command.
///
/// # Errors
/// [`Failure::Input`]: a file that cannot be read or is no TOML, a key that is no flag, a value
/// that the flag does not take. The message names file, key and value.
pub(crate) fn merge(
    command: &str,
    file: &Path,
    argv: &[OsString],
) -> Result<Vec<OsString>, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::input(format!("cannot read {}: {error}", file.display())))?;
    let known = super::command();
    let known = known.find_subcommand(command).cloned().unwrap_or(known);
    let flags = to_flags(&known, &text)
        .map_err(|reason| Failure::input(format!("{}: {reason}", file.display())))?;
    let at = argv.iter().position(|word| word == command);
    let at = at.map_or(argv.len(), |at| at + 1);
    let mut merged = argv[..at].to_vec();
    merged.extend(flags);
    merged.extend_from_slice(&argv[at..]);
    Ok(merged)
}

fn to_flags(command: &Command, text: &str) -> Result<Vec<OsString>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map(|span| text[..span.start.min(text.len())].lines().count().max(1));
        let at = line.map_or(String::new(), |line| format!("line {line}: "));
        format!("{at}{}", error.message().trim().replace('\n', ", "))
    })?;
    let mut flags = Vec::new();
    for (key, value) in &table {
        let arg = find(command, key)?;
        let flag = to_flag(arg, key, value)?;
        if let Some(flag) = &flag {
            check(command, key, value, flag)?;
        }
        flags.extend(flag);
    }
    Ok(flags)
}

fn keys(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .filter_map(|arg| Some((arg.get_long()?, arg)))
        .filter(|(name, _)| !NOT_KEYS.contains(name))
}

fn find<'a>(command: &'a Command, key: &str) -> Result<&'a Arg, String> {
    if let Some((_, arg)) = keys(command).find(|(name, _)| *name == key) {
        return Ok(arg);
    }
    let mut names: Vec<&str> = keys(command).map(|(name, _)| name).collect();
    names.sort_unstable();
    Err(format!(
        "unknown key `{key}`, expected one of {}",
        names.join(", ")
    ))
}

fn to_flag(arg: &Arg, key: &str, value: &Value) -> Result<Option<OsString>, String> {
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let text = match (is_switch, value) {
        (true, Value::Boolean(true)) => return Ok(Some(format!("--{key}").into())),
        (true, Value::Boolean(false)) => return Ok(None),
        (true, other) => return Err(wrong(key, other, "expected true or false")),
        (false, Value::String(text)) => text.clone(),
        (false, Value::Integer(number)) => number.to_string(),
        (false, Value::Float(number)) => number.to_string(),
        (false, other) => return Err(wrong(key, other, "expected a string or a number")),
    };
    Ok(Some(format!("--{key}={text}").into()))
}

/// Asks the flag's own parser, alone, so that its reason can be told in the words of the file.
fn check(command: &Command, key: &str, value: &Value, flag: &OsString) -> Result<(), String> {
    use clap::error::{ContextKind, ErrorKind};
    let words = [OsString::from(command.get_name()), flag.clone()];
    let Err(error) = command.clone().try_get_matches_from(words) else {
        return Ok(());
    };
    // What one flag asks of the others is judged when all are there.
    if !matches!(
        error.kind(),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue
    ) {
        return Ok(());
    }
    let reason = std::error::Error::source(&error).map(ToString::to_string);
    let reason = reason.or_else(|| {
        let valid = error.get(ContextKind::ValidValue)?;
        Some(format!("expected one of {valid}"))
    });
    let reason = reason.unwrap_or_else(|| "expected a value that the flag takes".to_owned());
    Err(wrong(key, value, &reason))
}

fn wrong(key: &str, value: &Value, reason: &str) -> String {
    format!("`{key}` holds {value}: {reason}")
}

#[cfg(test)]
mod tests;
