//! The two streams: results on stdout, everything else on stderr. And files: where they may go, and
//! that they appear whole.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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

/// Writes a file, which appears whole or not at all: it is written beside its place and renamed, so
/// that whoever is interrupted leaves the old one. What is no file, a pipe say, is written to directly.
///
/// # Errors
/// [`Failure::Run`] with the reason.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Failure> {
    let content = content.as_ref();
    // Through a link into the file that it names.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let written = match fs::metadata(&real) {
        Ok(found) if !found.is_file() => fs::write(&real, content),
        // A file that may not be written stays what it is, though its directory may.
        Ok(found) => fs::OpenOptions::new()
            .write(true)
            .open(&real)
            .and_then(|_| replace(&real, content, Some(found.permissions()))),
        Err(_) => replace(&real, content, None),
    };
    written.map_err(|error| Failure::run(format!("cannot write {}: {error}", path.display())))
}

fn replace(path: &Path, content: &[u8], permissions: Option<fs::Permissions>) -> io::Result<()> {
    let partial = beside(path);
    let keep = |permissions| fs::set_permissions(&partial, permissions);
    let placed = fs::write(&partial, content)
        .and_then(|()| permissions.map_or(Ok(()), keep))
        .and_then(|()| fs::rename(&partial, path));
    let Err(error) = placed else {
        return Ok(());
    };
    // Best effort: the error that matters is the one already at hand.
    let _ = fs::remove_file(&partial);
    match error.kind() {
        // A directory that takes no new file, a file that is mounted: written in place.
        io::ErrorKind::PermissionDenied | io::ErrorKind::ResourceBusy => fs::write(path, content),
        _ => Err(error),
    }
}

/// A name in the same directory, of this process alone.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}
