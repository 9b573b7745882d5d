//! The two streams: results on stdout, everything else on stderr. And where files may go.

use std::io::{self, Write};
use std::path::Path;

use crate::error::Failure;

/// Writes `text` to stdout and flushes it, so that a reader behind a pipe has it at once.
///
/// A reader that went away (`| head`) is no failure.
///
/// # Errors
/// [`Failure::Run`] if stdout cannot be written, a full disk say.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::run(format!("cannot write to stdout: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Writes a line to stderr; there is nowhere left to say that it failed.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Checks that a file can be put at `path`, before the work whose result it would hold.
///
/// # Errors
/// [`Failure::Input`] if there is no such directory, or `path` is one.
pub(crate) fn check_place(path: &Path) -> Result<(), Failure> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let wrong = if path.is_dir() {
        "is a directory, expected a file"
    } else if !parent.is_dir() {
        "is in no directory that exists; make it first"
    } else {
        return Ok(());
    };
    Err(Failure::input(format!("`{}` {wrong}", path.display())))
}
