//! How a command fails: one sentence for people, one exit code for scripts.

use std::fmt::Display;
use std::process::ExitCode;

use expertmesh_bench::calibrate::ProfileError;
use expertmesh_bench::drive::DriveError;
use expertmesh_bench::trace::TraceError;
use expertmesh_bench::workload::WorkloadError;
use expertmesh_checkpoint::CheckpointError;
use expertmesh_coordinator::CoordinatorError;
use expertmesh_placement::PlacementError;
use expertmesh_report::ReportError;
use expertmesh_routing::RoutingError;
use expertmesh_topology::TopologyError;
use expertmesh_transport::TransportError;
use expertmesh_worker::WorkerError;

use crate::output;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The run failed: exit code 1.
    Run(String),
    /// Wrong usage or input: exit code 2.
    Input(String),
    /// A stated budget or gate was missed: exit code 3.
    Gate(String),
    /// What clap has to say: its own text, 2 for wrong usage and 0 for `--help`.
    Usage(Box<clap::Error>),
    /// No failure: a page that was asked for in the place of a value. Exit code 0.
    Page(String),
}

// === impl Failure ===

impl Failure {
    pub(crate) fn run(message: impl Display) -> Self {
        Self::Run(message.to_string())
    }

    pub(crate) fn input(message: impl Display) -> Self {
        Self::Input(message.to_string())
    }

    /// Input or run failure, by whose fault it is.
    pub(crate) fn by_fault(is_input: bool, message: impl Display) -> Self {
        if is_input {
            Self::input(message)
        } else {
            Self::run(message)
        }
    }

    /// The same failure, of a part that `name` says.
    #[must_use]
    pub(crate) fn about(self, name: &str) -> Self {
        let words = |message: String| format!("{name}: {message}");
        match self {
            Self::Run(message) => Self::Run(words(message)),
            Self::Input(message) => Self::Input(words(message)),
            Self::Gate(message) => Self::Gate(words(message)),
            Self::Usage(error) => Self::Input(words(usage(&error))),
            Self::Page(page) => Self::Page(page),
        }
    }

    /// The sentence alone.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Run(message) | Self::Input(message) | Self::Gate(message) => message.clone(),
            Self::Usage(error) => usage(error),
            Self::Page(page) => page.clone(),
        }
    }

    /// Tells the failure on stderr and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (code, message) = match self {
            Self::Run(message) => (1, message),
            Self::Input(message) => (2, message),
            Self::Gate(message) => (3, message),
            Self::Usage(error) if is_help(&error) => {
                // Nothing is left to do about a closed terminal.
                let _ = error.print();
                return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
            }
            Self::Usage(error) => (2, usage(&error)),
            Self::Page(page) => {
                let printed = output::print(&page);
                return printed.map_or_else(Self::report, |()| ExitCode::SUCCESS);
            }
        };
        output::complain(&format!("error: {message}"));
        ExitCode::from(code)
    }
}

/// Whether clap answers with a page instead of an error.
fn is_help(error: &clap::Error) -> bool {
    use clap::error::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// What clap has to say about wrong usage, in one sentence and without the synopsis.
fn usage(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let sentence = lines.fold(String::new(), |mut sentence, line| {
        if !sentence.is_empty() {
            sentence.push_str(if line.starts_with("tip:") { "; " } else { " " });
        }
        sentence + line
    });
    let sentence = sentence.strip_prefix("error: ").unwrap_or(&sentence);
    format!("{sentence}; see --help")
}

/// Errors that are always the caller's: exit code 2.
macro_rules! input_errors {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::input(error)
            }
        })+
    };
}

/// Errors that know whose fault they are.
macro_rules! judged_errors {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::by_fault(error.is_input(), error)
            }
        })+
    };
}

input_errors!(
    CheckpointError,
    PlacementError,
    ProfileError,
    RoutingError,
    TopologyError,
    TraceError,
    WorkloadError
);
judged_errors!(CoordinatorError, DriveError, TransportError);

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        let is_input = match &error {
            WorkerError::Transport(error) => error.is_input(),
            WorkerError::Checkpoint(_) | WorkerError::Field { .. } => true,
            WorkerError::Expert(_) => false,
        };
        Self::by_fault(is_input, error)
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        Self::run(error)
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::Usage(Box::new(error))
    }
}
