//! A progress bar on a terminal, nothing in a pipe.

use indicatif::{ProgressBar, ProgressStyle};

/// Steps done of steps wanted.
pub(crate) struct Progress {
    bar: ProgressBar,
}

// === impl Progress ===

impl Progress {
    /// A bar of `steps` on stderr; invisible where stderr is no terminal.
    pub(crate) fn steps(steps: u64) -> Self {
        let bar = ProgressBar::new(steps);
        let template = "{prefix:>8} [{bar:40}] {pos}/{len} steps, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }

    /// One more step is done; `recorded` once warm-up is over.
    pub(crate) fn step(&self, recorded: bool) {
        self.bar
            .set_prefix(if recorded { "measure" } else { "warm up" });
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
