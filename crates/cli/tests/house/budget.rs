//! How long files may be, and how a crate begins.

use crate::{Source, none, sources};

/// No file is longer.
const CAP: usize = 500;
/// Half of the files are not longer.
const MEDIAN: usize = 200;
/// No `lib.rs` has more lines that are not documentation.
const LIB: usize = 120;

/// Whether a file is code of a crate: not a test, not generated.
fn is_code(path: &str) -> bool {
    let mut parts = path.split('/');
    let in_src = parts.next() == Some("crates") && parts.nth(1) == Some("src");
    let tests = |part: &str| matches!(part, "tests" | "tests.rs" | "testing.rs");
    in_src && path.ends_with(".rs") && !parts.any(|part| part == "generated" || tests(part))
}

fn is_root(path: &str) -> bool {
    path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs")
}

fn too_long(sources: &[Source]) -> Vec<String> {
    let mut lengths: Vec<usize> = Vec::new();
    let mut complaints = Vec::new();
    for Source { path, text } in sources.iter().filter(|source| is_code(&source.path)) {
        let length = text.lines().count();
        lengths.push(length);
        if length > CAP {
            complaints.push(format!("{path}: {length} lines, expected at most {CAP}"));
        }
        let is_doc = |line: &&str| line.starts_with("//!") || line.starts_with("///");
        let code = text.lines().filter(|line| !is_doc(line)).count();
        if path.ends_with("/src/lib.rs") && code > LIB {
            let expected = format!("expected at most {LIB}");
            complaints.push(format!("{path}: {code} lines besides its docs, {expected}"));
        }
    }
    lengths.sort_unstable();
    match lengths.get(lengths.len() / 2) {
        Some(median) if *median > MEDIAN => complaints.push(format!(
            "median of {} files is {median} lines, expected at most {MEDIAN}",
            lengths.len()
        )),
        _ => {}
    }
    complaints
}

/// How every crate begins, and who may write `unsafe`.
fn wrong_beginning(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for Source { path, text } in sources.iter().filter(|source| is_code(&source.path)) {
        let in_kernels = path.starts_with("crates/kernels/");
        if is_root(path) {
            if !text.starts_with("//!") {
                complaints.push(format!("{path} does not begin with a tour (`//!`)"));
            }
            let forbids = text.contains("#![forbid(unsafe_code)]");
            if !forbids && !in_kernels {
                complaints.push(format!("{path} does not forbid unsafe_code"));
            }
        }
        let lifts = ["allow(unsafe_code", "expect(unsafe_code"];
        if !in_kernels && lifts.iter().any(|lift| text.contains(lift)) {
            complaints.push(format!("{path} lifts unsafe_code: only kernels may"));
        }
    }
    let manifests = sources.iter().filter(|source| {
        source.path.starts_with("crates/") && source.path.ends_with("/Cargo.toml")
    });
    for Source { path, text } in manifests {
        if !text.contains("[lints]\nworkspace = true\n") {
            complaints.push(format!("{path} does not take the workspace's lints"));
        }
    }
    complaints
}

/// Each `unsafe` says why it is sound.
fn unsafe_without_reason(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for Source { path, text } in sources.iter().filter(|source| is_code(&source.path)) {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !code.contains("unsafe {") && !code.contains("unsafe impl") {
                continue;
            }
            let before = &lines[at.saturating_sub(6)..=at];
            if !before.iter().any(|line| line.contains("SAFETY:")) {
                complaints.push(format!("{path}:{}: unsafe without `// SAFETY:`", at + 1));
            }
        }
    }
    complaints
}

#[test]
fn files_keep_their_budget() {
    none(too_long(&sources()));
}

#[test]
fn crates_begin_with_a_tour_and_lints() {
    none(wrong_beginning(&sources()));
}

#[test]
fn unsafe_code_says_why() {
    none(unsafe_without_reason(&sources()));
}

// === the rules see what they are for ===

fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

#[test]
fn code_is_told_from_tests() {
    for code in ["crates/a/src/lib.rs", "crates/a/src/b/c.rs"] {
        assert!(is_code(code), "{code}");
    }
    let rest = [
        "crates/a/src/tests.rs",
        "crates/a/src/b/tests.rs",
        "crates/a/src/tests/b.rs",
        "crates/a/src/generated/v1.rs",
        "crates/a/tests/b.rs",
        "crates/a/benches/b.rs",
        "examples/a/src/main.rs",
        "crates/a/src/notes.md",
    ];
    for rest in rest {
        assert!(!is_code(rest), "{rest}");
    }
}

#[test]
fn a_long_file_is_seen() {
    let long = too_long(&[source("crates/a/src/b.rs", &"x\n".repeat(501))]);
    assert_eq!(long.len(), 2, "{long:?}"); // The cap, and the median of this one file.
    assert!(too_long(&[source("crates/a/src/b.rs", &"x\n".repeat(200))]).is_empty());
    let lib = source(
        "crates/a/src/lib.rs",
        &("//! x\n".repeat(60) + &"x\n".repeat(121)),
    );
    assert_eq!(too_long(&[lib]).len(), 1);
    let lib = source(
        "crates/a/src/lib.rs",
        &("//! x\n".repeat(60) + &"x\n".repeat(120)),
    );
    assert!(too_long(&[lib]).is_empty());
}

#[test]
fn a_wrong_beginning_is_seen() {
    let lints = "#![forbid(unsafe_code)]\n";
    let wrong = |path: &str, text: &str| wrong_beginning(&[source(path, text)]).len();
    assert_eq!(wrong("crates/a/src/lib.rs", lints), 1);
    assert_eq!(wrong("crates/a/src/main.rs", "//! Tour.\n"), 1);
    assert_eq!(
        wrong("crates/a/src/lib.rs", &format!("//! Tour.\n{lints}")),
        0
    );
    assert_eq!(wrong("crates/kernels/src/lib.rs", "//! Tour.\n"), 0);
    assert_eq!(wrong("crates/a/src/b.rs", "#[allow(unsafe_code)]\n"), 1);
    assert_eq!(wrong("crates/a/Cargo.toml", "[package]\n"), 1);
}

#[test]
fn an_unsafe_block_without_reason_is_seen() {
    let wrong = |text: &str| unsafe_without_reason(&[source("crates/a/src/b.rs", text)]).len();
    assert_eq!(wrong("let x = unsafe { f() };\n"), 1);
    assert_eq!(wrong("// SAFETY: f checks.\nlet x = unsafe { f() };\n"), 0);
    assert_eq!(wrong("// the only unsafe { } is elsewhere\n"), 0);
}
