//! Spellings of flag values, each with its way back.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use expertmesh_exchange::ExchangeKind;
use expertmesh_placement::Strategy;
use expertmesh_routing::RouterPreset;

/// A value parser for clap: [`FromStr`], its error as the reason.
pub(crate) fn parsed<T>(text: &str) -> Result<T, String>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A whole number of at least one.
pub(crate) fn at_least_one<T>(text: &str) -> Result<T, String>
where
    T: FromStr,
{
    text.parse()
        .map_err(|_| "expected a whole number of at least 1".to_owned())
}

/// A whole number, zero included.
pub(crate) fn whole<T>(text: &str) -> Result<T, String>
where
    T: FromStr,
{
    text.parse()
        .map_err(|_| format!("expected a whole number below 2^{}", 8 * size_of::<T>()))
}

/// Adds `--flag value` to `argv` for a value that is given.
pub(crate) fn push<T: Display>(argv: &mut Vec<OsString>, flag: &str, value: Option<T>) {
    if let Some(value) = value {
        argv.push(flag.into());
        argv.push(value.to_string().into());
    }
}

/// Adds `--flag` to `argv` if it is set.
pub(crate) fn push_set(argv: &mut Vec<OsString>, flag: &str, set: bool) {
    if set {
        argv.push(flag.into());
    }
}

/// A time as a number and its unit: `30s`, `500ms`, `1.5s`, `2m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait(pub(crate) Duration);

/// How experts are placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PlacementChoice {
    /// By rule.
    Strategy(Strategy),
    /// By a TOML table.
    File(PathBuf),
}

/// A router by name, told apart by its spelling.
#[derive(Debug, Clone)]
pub(crate) struct GateChoice(pub(crate) RouterPreset);

/// How rows travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExchangeFlag {
    /// As named.
    Kind(ExchangeKind),
    /// As a cost model says.
    Auto,
}

/// Where the results of a token's experts are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Combine {
    /// At the token's home, in slot order.
    Exact,
}

// === impl Wait ===

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a number and its unit, such as 30s, 500ms or 2m".to_owned();
        let unit_at = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or_else(expected)?;
        let (number, unit) = text.split_at(unit_at);
        let number: f64 = number.parse().map_err(|_| expected())?;
        let seconds = match unit {
            "us" | "µs" => number / 1e6,
            "ms" => number / 1e3,
            "s" => number,
            "m" | "min" => number * 60.0,
            "h" => number * 3600.0,
            _ => return Err(expected()),
        };
        match Duration::try_from_secs_f64(seconds) {
            Ok(wait) if wait.as_micros() > 0 => Ok(Self(wait)),
            _ => Err("expected a time of at least 1us that a clock can hold".to_owned()),
        }
    }
}

impl Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Microseconds are what the protocol carries.
        let micros = self.0.as_micros();
        match (micros % 1_000_000, micros % 1000) {
            (0, _) => write!(f, "{}s", micros / 1_000_000),
            (_, 0) => write!(f, "{}ms", micros / 1000),
            _ => write!(f, "{micros}us"),
        }
    }
}

// === impl PlacementChoice ===

impl FromStr for PlacementChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(strategy) => Ok(Self::Strategy(strategy)),
            Err(_) if text.ends_with(".toml") => Ok(Self::File(text.into())),
            Err(_) => Err("expected contiguous, round-robin, shuffled or a .toml file".to_owned()),
        }
    }
}

impl Display for PlacementChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strategy(strategy) => strategy.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

// === impl GateChoice ===

impl FromStr for GateChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parsed(text).map(Self)
    }
}

impl Display for GateChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for GateChoice {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for GateChoice {}

// === impl ExchangeFlag ===

impl From<ExchangeKind> for ExchangeFlag {
    fn from(kind: ExchangeKind) -> Self {
        Self::Kind(kind)
    }
}

impl FromStr for ExchangeFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let kind = text.parse().map(Self::Kind);
        kind.map_err(|error: String| format!("{error}, or `auto`, which chooses one"))
    }
}

impl Display for ExchangeFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => kind.fmt(f),
            Self::Auto => f.pad("auto"),
        }
    }
}

// === impl Combine ===

impl FromStr for Combine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "exact" => Ok(Self::Exact),
            "partial" => Err(
                "partial sums on workers are not available; `exact`, the default, adds results \
                 at the token's home"
                    .to_owned(),
            ),
            _ => Err("expected exact".to_owned()),
        }
    }
}

impl Display for Combine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Exact => "exact",
        })
    }
}
