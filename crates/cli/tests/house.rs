//! The rules of the house, held by a test: who may use whom, how long a file may be, what a text
//! may not say, and that documents say what the code does.
//!
//! Each rule is a pure function from what it reads to a list of complaints, and has a test that
//! shows it a bad sample. docs/architecture.md gives the reasons.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

#[path = "house/arrows.rs"]
mod arrows;
#[path = "house/budget.rs"]
mod budget;
#[path = "house/documents.rs"]
mod documents;
#[path = "house/texts.rs"]
mod texts;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's root directory.
fn root() -> PathBuf {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR"));
    cli.ancestors().nth(2).unwrap().to_owned()
}

/// A text file by its path from the root, `/` between its parts.
struct Source {
    path: String,
    text: String,
}

/// The files that belong to the project: git's list, or everything where there is no git.
fn sources() -> Vec<Source> {
    let root = root();
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output();
    let mut paths: Vec<String> = match listed {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let listed = String::from_utf8(output.stdout).unwrap();
            listed.lines().map(str::to_owned).collect()
        }
        _ => {
            let mut paths = Vec::new();
            walk(&root, &root, &mut paths);
            paths
        }
    };
    paths.sort();
    // A file that is listed and gone, or that is no text, has nothing to say here.
    let read = |path: String| {
        let text = std::fs::read_to_string(root.join(&path)).ok()?;
        Some(Source { path, text })
    };
    paths.into_iter().filter_map(read).collect()
}

fn walk(root: &Path, directory: &Path, paths: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                walk(root, &path, paths);
            }
        } else {
            let path = path.strip_prefix(root).unwrap();
            paths.push(path.to_string_lossy().replace('\\', "/"));
        }
    }
}

/// Fails with every complaint on a line of its own.
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n  {}\n", complaints.join("\n  "));
}

#[test]
fn the_files_of_the_project_are_found() {
    let sources = sources();
    let found = |path: &str| sources.iter().any(|source| source.path == path);
    for path in [
        "Cargo.toml",
        "README.md",
        "crates/wire/src/lib.rs",
        ".ci/run",
    ] {
        assert!(
            found(path),
            "{path} is not among the {} files",
            sources.len()
        );
    }
}
