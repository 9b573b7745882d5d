//! The machine of an expert host: which queued chunks are computed together.

use std::collections::VecDeque;

/// What the driver of a [`Host`] must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAction {
    /// Compute these jobs together, grouped by expert.
    Run(Vec<u64>),
}

/// Queues chunks of rows and hands them to the experts in batches.
///
/// While a batch runs, chunks of other homes, steps and clients gather; the next batch takes them
/// together, so that each expert's weights are read once for all of them. An expert's result for a
/// row does not depend on its batch, so neither does any output.
#[derive(Debug)]
pub struct Host {
    queue: VecDeque<(u64, usize)>,
    running: bool,
    batch_choices: usize,
}

// === impl Host ===

impl Host {
    /// A host whose batches close once they hold `batch_choices` choices.
    pub fn new(batch_choices: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            running: false,
            batch_choices: batch_choices.max(1),
        }
    }

    /// A chunk with `choices` choices arrived, under a key of the driver's.
    pub fn on_rows(&mut self, job: u64, choices: usize) {
        self.queue.push_back((job, choices));
    }

    /// The batch that ran is done.
    pub fn on_done(&mut self) {
        self.running = false;
    }

    /// Chunks that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The next batch, `None` while one runs or nothing waits.
    pub fn poll(&mut self) -> Option<HostAction> {
        if self.running || self.queue.is_empty() {
            return None;
        }
        let mut jobs = Vec::new();
        let mut total = 0;
        while let Some((job, choices)) = self.queue.front().copied() {
            if !jobs.is_empty() && total + choices > self.batch_choices {
                break;
            }
            total += choices;
            jobs.push(job);
            self.queue.pop_front();
        }
        self.running = true;
        Some(HostAction::Run(jobs))
    }
}
