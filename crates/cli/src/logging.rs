//! Logs: off unless asked for by `EXPERTMESH_LOG`, always on stderr.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::error::Failure;

/// The variable that says what is logged, for example `info` or `expertmesh_exchange=debug`.
pub(crate) const VARIABLE: &str = "EXPERTMESH_LOG";

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging with the filter of [`VARIABLE`], `warn` where it is absent.
///
/// # Errors
/// [`Failure::Input`] if the variable holds no filter.
pub(crate) fn init(format: LogFormat) -> Result<(), Failure> {
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            Failure::input(format!(
                "{VARIABLE} holds {text:?}: {error}; expected a filter such as info or \
                 expertmesh_exchange=debug"
            ))
        })?,
        _ => EnvFilter::new("warn"),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Steps are spans at `info`, their phases at `debug`: a line for each when it ends.
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

// === impl LogFormat ===

impl LogFormat {
    /// Its name in flags.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json".to_owned()),
        }
    }
}
