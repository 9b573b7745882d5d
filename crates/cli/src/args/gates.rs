//! `--gate help`: the rules that choose experts, as a page.

use std::fmt::Write as _;

use clap::error::{ContextKind, ContextValue};
use expertmesh_routing::RouterPreset;

use crate::error::Failure;

/// What clap refused, or the page that `--gate help` asks for.
pub(super) fn answered(error: clap::Error) -> Failure {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let is_gate = context(ContextKind::InvalidArg).starts_with("--gate ");
    match is_gate && context(ContextKind::InvalidValue) == "help" {
        true => Failure::Page(page()),
        false => error.into(),
    }
}

/// A line for each rule: its name, what it is, its arguments and their defaults.
fn page() -> String {
    let head = "Rules that choose experts, as --gate NAME or --gate NAME:ARG,ARG:\n\n";
    let mut page = head.to_owned();
    for info in RouterPreset::all() {
        let args = info.args.iter();
        let args: Vec<String> = args
            .map(|arg| format!("{}={}", arg.name, arg.default))
            .collect();
        let _ = write!(page, "  {:<16} {}", info.name, info.about);
        let _ = match args.is_empty() {
            true => writeln!(page),
            false => writeln!(page, " ({})", args.join(", ")),
        };
    }
    page + "\ndocs/routing.md has the formula, the source and the promises of each.\n"
}
