//! What the project's texts may not say, and what they must.

use crate::{Source, none, root, sources};

/// Directories of the machines that the project was written on.
const MACHINE: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Macros that stand for something missing.
const UNFINISHED: [&str; 3] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("db", "g!("),
];

const LOGS: [&str; 5] = ["trace!(", "debug!(", "info!(", "warn!(", "error!("];
const ERRORS: &str = "#[error(";

fn machine_paths(source: &Source) -> Vec<String> {
    let path = &source.path;
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| MACHINE.iter().any(|machine| has_path(line, machine)))
        .map(|(at, line)| format!("{path}:{}: a path of one machine: {}", at + 1, line.trim()))
        .collect()
}

/// Whether `path` stands in `line` as an absolute path, and not as the middle of another.
fn has_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | ')'))
    })
}

fn unfinished(source: &Source) -> Vec<String> {
    let path = &source.path;
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| UNFINISHED.iter().any(|word| line.contains(word)))
        .map(|(at, line)| format!("{path}:{}: {}", at + 1, line.trim()))
        .collect()
}

/// Messages of logs and errors that begin with a capital or end with a period.
fn wrong_messages(source: &Source) -> Vec<String> {
    let openings = LOGS.iter().copied().chain([ERRORS]);
    let messages = openings.flat_map(|opening| {
        let text = &source.text;
        text.match_indices(opening)
            .filter(move |(at, _)| {
                // `my_info!(` is another macro; `tracing::info!(` is not.
                let before = text[..*at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            })
            .filter_map(move |(at, opening)| message(&text[at + opening.len()..]))
    });
    messages
        .filter(|message| is_wrong(message))
        .map(|message| format!("{}: message {message:?}", source.path))
        .collect()
}

/// The first literal among the arguments that is one by itself and not the value of a field.
fn message(arguments: &str) -> Option<String> {
    let mut depth = 0usize;
    let mut is_argument = true;
    let mut rest = arguments.char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '"' if depth == 0 && is_argument => return literal(&arguments[at + 1..]),
            '"' => {
                let inside = raw_literal(&arguments[at + 1..])?;
                for _ in 0..inside.chars().count() + 1 {
                    rest.next();
                }
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if !c.is_whitespace() {
            is_argument = c == ',' && depth == 0;
        }
    }
    None
}

/// The literal that begins here, up to its closing quote, escapes as written.
fn raw_literal(text: &str) -> Option<&str> {
    let mut escaped = false;
    let end = text.char_indices().find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    })?;
    Some(&text[..end.0])
}

fn literal(text: &str) -> Option<String> {
    raw_literal(text).map(str::to_owned)
}

fn is_wrong(message: &str) -> bool {
    let mut letters = message.chars();
    let capital = letters.next().is_some_and(char::is_uppercase);
    // `HTTP status`, `k is`: names and symbols keep their case.
    let word = letters.next().is_some_and(char::is_lowercase);
    (capital && word) || (message.ends_with('.') && !message.ends_with("..."))
}

/// Links of a document to files that are not there.
fn dead_links(source: &Source, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let folder = source
        .path
        .rsplit_once('/')
        .map_or("", |(folder, _)| folder);
    let targets = source.text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split([')', ' ', '#']).next());
    targets
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .map(|target| resolve(folder, target))
        .filter(|target| !exists(target))
        .map(|target| format!("{}: link to {target}, which is not there", source.path))
        .collect()
}

fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn all(rule: impl Fn(&Source) -> Vec<String>, applies: impl Fn(&str) -> bool) -> Vec<String> {
    let sources = sources();
    let sources = sources.iter().filter(|source| applies(&source.path));
    sources.flat_map(rule).collect()
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

#[test]
fn no_text_names_a_machine() {
    none(all(machine_paths, |_| true));
}

#[test]
fn nothing_is_left_to_do() {
    none(all(unfinished, is_rust));
}

#[test]
fn messages_are_lowercase_without_a_period() {
    let code = |path: &str| is_rust(path) && !path.contains("/generated/");
    none(all(wrong_messages, |path| {
        code(path) && !path.contains("/tests")
    }));
}

#[test]
fn documents_link_to_files_that_are_there() {
    let root = root();
    let exists = |path: &str| root.join(path).exists();
    let document = |path: &str| path.ends_with(".md") && !path.contains("/goldens/");
    none(all(|source| dead_links(source, exists), document));
}

#[test]
fn ci_runs_the_tests_as_the_readme_says() {
    let command = "cargo test --workspace --locked";
    let has_line = |path: &str, wanted: &dyn Fn(&str) -> bool| {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        text.lines().any(|line| wanted(line.trim()))
    };
    assert!(has_line("README.md", &|line| line == command));
    assert!(has_line(".ci/run", &|line| line
        == format!("step \"tests\" {command}")));
}

// === the rules see what they are for ===

fn source(text: &str) -> Source {
    Source {
        path: "docs/a.md".to_owned(),
        text: text.to_owned(),
    }
}

#[test]
fn a_machine_path_is_seen() {
    let [work, home] = MACHINE;
    for bad in [format!("cd {work}main"), format!("\"{home}.cargo\"")] {
        assert_eq!(machine_paths(&source(&bad)).len(), 1, "{bad}");
    }
    for fine in [
        format!("net{work}x"),
        format!("${{prefix}}{home}x"),
        "work/".into(),
    ] {
        assert!(machine_paths(&source(&fine)).is_empty(), "{fine}");
    }
}

#[test]
fn something_left_to_do_is_seen() {
    for word in UNFINISHED {
        assert_eq!(unfinished(&source(&format!("    {word}1)"))).len(), 1);
    }
}

#[test]
fn a_wrong_message_is_seen() {
    let wrong = |text: &str| wrong_messages(&source(text)).len();
    assert_eq!(wrong("info!(\"Worker serves\");"), 1);
    assert_eq!(
        wrong("tracing::warn!(%error, name = \"A\", \"it failed.\");"),
        1
    );
    assert_eq!(
        wrong("debug!(\n    from = f(\"X y\", 1),\n    \"Late\"\n);"),
        1
    );
    assert_eq!(wrong("#[error(\"The field is wrong\")]"), 1);
    for fine in [
        "info!(name = \"Ann\", \"worker serves\");",
        "warn!(kind = kind.as_str_name(), \"reply\");",
        "#[error(\"HTTP status {0}\")]",
        "#[error(transparent)]",
        "trace!(phase = phase.name(), ns);",
        "my_info!(\"Something else.\")",
    ] {
        assert_eq!(wrong(fine), 0, "{fine}");
    }
}

#[test]
fn a_dead_link_is_seen() {
    let exists = |path: &str| path == "README.md" || path == "docs/b.md";
    let links = "[a](../README.md) [b](b.md#part) [c](https://example.org/x) [d](#here)";
    assert!(dead_links(&source(links), exists).is_empty());
    let dead = dead_links(&source("[e](../c.md)"), exists);
    assert_eq!(dead, ["docs/a.md: link to c.md, which is not there"]);
}
