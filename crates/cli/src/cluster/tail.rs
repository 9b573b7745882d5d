//! What a child says on stderr: held back while it starts, passed on afterwards.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

use crate::output;

/// Lines held while a child starts; one that logs more in that time loses its first ones.
const HELD: usize = 1000;
/// Lines of a failed start that its error repeats.
const TOLD: usize = 5;

/// Last lines of one child's stderr.
///
/// A child that fails to start says why in its last lines, which belong into the launcher's one
/// error. One that runs may log, and its lines go on to the launcher's stderr.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    passing: bool,
}

// === impl Tail ===

impl Tail {
    /// Reads `stderr` to its end.
    pub(crate) async fn follow(self, stderr: impl AsyncRead + Unpin) {
        let mut lines = BufReader::new(stderr).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            self.push(String::from_utf8_lossy(&line).into_owned());
        }
    }

    /// The child is up: what it said goes to stderr, and so does what follows.
    pub(crate) fn pass_on(&self) {
        let mut state = self.state();
        state.passing = true;
        state.lines.iter().for_each(|line| output::complain(line));
        state.lines.clear();
    }

    /// The last lines in one, without the `error: ` that a command begins its last words with.
    pub(crate) fn last_words(&self) -> Option<String> {
        let state = self.state();
        let skipped = state.lines.len().saturating_sub(TOLD);
        let lines = state.lines.iter().skip(skipped);
        let words: Vec<&str> = lines
            .map(|line| line.trim())
            .filter(|line| !line.is_empty())
            .map(|line| line.strip_prefix("error: ").unwrap_or(line))
            .collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    fn push(&self, line: String) {
        let mut state = self.state();
        if state.passing {
            output::complain(&line);
        }
        state.lines.push_back(line);
        if state.lines.len() > HELD {
            state.lines.pop_front();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
