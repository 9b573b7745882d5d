//! What every test of the binary needs: the binary, processes that can be waited for, files.
#![allow(dead_code, reason = "each test file uses a part of this")]

pub(crate) mod files;
pub(crate) mod processes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use expertmesh_telemetry::Report;

/// A command that takes longer hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A shape that every debug build computes in no time.
pub(crate) const SMALL: [&str; 8] = [
    "--hidden", "48", "--ffn", "32", "--tokens", "24", "--steps", "6",
];

/// The binary, deaf to the logging filter of whoever runs the tests.
pub(crate) fn expertmesh() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_expertmesh"));
    command.env_remove("EXPERTMESH_LOG").timeout(LIMIT);
    command
}

/// Runs `expertmesh` with `args` and gives its stdout; it must succeed.
pub(crate) fn stdout(args: &[&str]) -> String {
    let output = expertmesh()
        .args(args)
        .assert()
        .success()
        .get_output()
        .clone();
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `expertmesh` with `args`, which must end with `code` and one `error: …` line that holds
/// every one of `words`, and print nothing on stdout.
#[track_caller]
pub(crate) fn fails(code: i32, args: &[&str], words: &[&str]) -> String {
    let output = expertmesh().args(args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert_eq!(stderr.matches("error: ").count(), 1, "{args:?}: {stderr}");
    let line = stderr.lines().find(|line| line.starts_with("error: "));
    let line = line.unwrap_or_else(|| panic!("{args:?}: {stderr}"));
    for word in words {
        assert!(line.contains(word), "{args:?}: no {word:?} in {line}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{args:?}");
    stderr
}

/// The report at `path`.
pub(crate) fn report(path: &Path) -> Report {
    expertmesh_report::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The golden case of that name.
pub(crate) fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../testkit/goldens")
        .join(case)
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
