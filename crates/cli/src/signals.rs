//! Ctrl-C and SIGTERM as events.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Failure;

/// The signals that ask a process to end.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

// === impl Signals ===

impl Signals {
    /// Takes both signals over from the system, which would end the process at once.
    ///
    /// # Errors
    /// [`Failure::Run`] if the system refuses.
    pub(crate) fn take() -> Result<Self, Failure> {
        let refused = |error| Failure::run(format!("cannot handle signals: {error}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(refused)?,
            terminate: signal(SignalKind::terminate()).map_err(refused)?,
        })
    }

    /// Waits for either and tells its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// The failure of a command that was asked to end before its end.
pub(crate) fn interrupted(signal: &str) -> Failure {
    Failure::run(format!("ended by {signal}; every process is stopped"))
}
