//! Files that a command line names: what one flag writes, no other flag reads or writes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::error::Failure;

/// Flags whose `FILE` is written. `report` reads what others write, and takes several.
const WRITTEN: [&str; 9] = [
    "report",
    "html",
    "perfetto",
    "lanes",
    "record_trace",
    "output",
    "svg",
    "event_log",
    "nccl",
];

/// A file that an argument names.
struct Named {
    /// As in help: `--html`, `FILE`.
    by: String,
    given: PathBuf,
    /// The same for every way to write it down.
    place: PathBuf,
    is_written: bool,
}

/// Checks that no file is written that another argument reads or writes.
///
/// # Errors
/// [`Failure::Input`] naming both arguments and the file.
pub(super) fn check(command: &Command, matches: &ArgMatches) -> Result<(), Failure> {
    let mut at = (command, matches);
    while let Some((name, below)) = at.1.subcommand() {
        let Some(command) = at.0.find_subcommand(name) else {
            break;
        };
        at = (command, below);
    }
    let all: Vec<Named> = named(at.0, at.1);
    for (place, one) in all.iter().enumerate().filter(|(_, one)| one.is_written) {
        let mut others = all.iter().enumerate();
        let same = others.find(|(other, named)| *other != place && named.place == one.place);
        let Some((_, other)) = same else {
            continue;
        };
        let does = if other.is_written { "writes" } else { "reads" };
        return Err(Failure::input(format!(
            "{} is {}, which {} {does}, expected a file of its own",
            one.by,
            one.given.display(),
            other.by
        )));
    }
    Ok(())
}

fn named(command: &Command, matches: &ArgMatches) -> Vec<Named> {
    let mut all = Vec::new();
    for arg in command.get_arguments().filter(|arg| is_file(arg)) {
        let values = matches.try_get_raw(arg.get_id().as_str());
        let values = values.ok().flatten().into_iter().flatten();
        all.extend(values.filter_map(|value| one(arg, value)));
    }
    all
}

/// The file, if there is one to lose: names of presets are none, and neither are pipes and terminals.
fn one(arg: &Arg, value: &OsStr) -> Option<Named> {
    let given = PathBuf::from(value);
    let is_written = is_written(arg);
    match given.metadata() {
        Ok(found) if !found.is_file() => return None,
        Err(_) if !is_written => return None,
        _ => {}
    }
    let by = arg.get_long().map(|long| format!("--{long}"));
    Some(Named {
        by: by.unwrap_or_else(|| word(arg).to_owned()),
        place: place(&given),
        given,
        is_written,
    })
}

fn word(arg: &Arg) -> &str {
    let names = arg.get_value_names().unwrap_or_default();
    names.first().map_or("", |name| name.as_str())
}

fn is_file(arg: &Arg) -> bool {
    let word = word(arg);
    word.starts_with("FILE") || ["OUT", "IN", "LOADS"].contains(&word)
}

fn is_written(arg: &Arg) -> bool {
    let is_one = matches!(arg.get_action(), ArgAction::Set);
    word(arg) == "OUT" || (is_one && WRITTEN.contains(&arg.get_id().as_str()))
}

/// Links followed; of a file that is not there yet, those of its directory.
fn place(path: &Path) -> PathBuf {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let whole = path.canonicalize();
    let new = || Some(parent.canonicalize().ok()?.join(path.file_name()?));
    whole
        .ok()
        .or_else(new)
        .unwrap_or_else(|| path.to_path_buf())
}
