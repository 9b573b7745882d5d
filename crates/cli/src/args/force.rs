//! Whose choices a step carries out, where they are not the gate's.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::str::FromStr;

use clap::Args;
use expertmesh_routing::Kind;

use crate::args::model::ModelArgs;
use crate::args::values::{GateChoice, parsed, push};
use crate::error::Failure;

/// The flag that takes the choices from the gate; `None` if absent.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Routes")]
pub(crate) struct ForceArgs {
    /// Take the choices from the gate: replay (what each request brings), balance (experts in
    /// turn), skew:STD (a random bias of this size on each expert, in every step anew, or below 0
    /// once)
    #[arg(long, value_name = "HOW", value_parser = parsed::<ForceFlag>)]
    pub(crate) force_routes: Option<ForceFlag>,
}

/// Forced choices as a flag spells them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ForceFlag {
    /// Those that a request brings.
    Replay,
    /// Experts in turn.
    Balance,
    /// The gate's own, after a bias of this standard deviation.
    Skew(f32),
}

// === impl ForceArgs ===

impl ForceArgs {
    /// The kind of the gate that does it.
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.force_routes.map(|flag| match flag {
            ForceFlag::Replay => Kind::Replay,
            ForceFlag::Balance => Kind::ForcedBalance,
            ForceFlag::Skew(std) => Kind::ForcedSkew { std },
        })
    }

    /// The flag again, for a child process.
    pub(crate) fn to_argv(&self) -> Vec<OsString> {
        let mut argv = Vec::new();
        push(&mut argv, "--force-routes", self.force_routes);
        argv
    }
}

/// Refuses `--gate replay` without a trace that brings choices.
///
/// # Errors
/// [`Failure::Input`] that says what to add.
pub(crate) fn check_replay(model: &ModelArgs, has_trace: bool) -> Result<(), Failure> {
    let gate = model.gate.as_ref();
    let replays = gate.is_some_and(|GateChoice(preset)| preset.info().name == "replay");
    match replays && !has_trace {
        true => Err(Failure::input(
            "--gate replay has nothing to replay; add --trace FILE, whose choices it takes",
        )),
        false => Ok(()),
    }
}

// === impl ForceFlag ===

impl FromStr for ForceFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let std = |text: &str| text.parse().ok().filter(|std: &f32| std.is_finite());
        match text.split_once(':') {
            None if text == "replay" => Ok(Self::Replay),
            None if text == "balance" => Ok(Self::Balance),
            Some(("skew", text)) if std(text).is_some() => Ok(Self::Skew(std(text).unwrap_or(0.0))),
            _ => Err("expected replay, balance or skew:STD, such as skew:2".to_owned()),
        }
    }
}

impl Display for ForceFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replay => f.pad("replay"),
            Self::Balance => f.pad("balance"),
            Self::Skew(std) => write!(f, "skew:{std}"),
        }
    }
}
