//! Where CPU work runs: inline when it is short, on a compute pool when it is not.

use std::sync::Arc;

use rayon::prelude::*;

use crate::error::ExpertError;
use crate::pieces::{COMBINE_ROWS, INLINE_NS};

/// A fixed number of compute threads, shared by everything that computes in a process.
#[derive(Debug, Clone)]
pub struct ComputePool {
    threads: Arc<rayon::ThreadPool>,
}

// === impl ComputePool ===

impl ComputePool {
    /// A pool of `threads` threads, named after `owner`.
    ///
    /// # Errors
    /// [`ExpertError::Pool`] if `threads` is 0 or the system gives no threads.
    pub fn new(threads: usize, owner: &str) -> Result<Self, ExpertError> {
        if threads == 0 {
            return Err(ExpertError::Pool(
                "threads is 0, expected at least 1".into(),
            ));
        }
        let owner = owner.to_owned();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(move |at| format!("{owner}-{at}"))
            .build()
            .map_err(|error| ExpertError::Pool(error.to_string()))?;
        Ok(Self {
            threads: Arc::new(pool),
        })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Runs `job` on the pool and waits for it; rayon's parallel iterators in it use the pool.
    pub fn install<R: Send>(&self, job: impl FnOnce() -> R + Send) -> R {
        self.threads.install(job)
    }

    /// Runs `job` here if `cost_ns` is short, else on the pool. Returns at once in the second
    /// case; inside the pool rayon's parallel iterators use its threads.
    pub fn run(&self, cost_ns: u64, job: impl FnOnce() + Send + 'static) {
        if cost_ns <= INLINE_NS {
            job();
        } else {
            self.threads.spawn(job);
        }
    }
}

/// Calls `work(first_row, rows)` for blocks of the rows of `out` `[rows, width]`: over the threads
/// of a compute pool when called on one of them, one after another elsewhere.
pub fn for_each_row_block(
    out: &mut [f32],
    width: usize,
    work: impl Fn(usize, &mut [f32]) + Send + Sync,
) {
    let block = COMBINE_ROWS * width.max(1);
    if rayon::current_thread_index().is_some() && out.len() > block {
        out.par_chunks_mut(block)
            .enumerate()
            .for_each(|(at, rows)| work(at * COMBINE_ROWS, rows));
    } else {
        out.chunks_mut(block)
            .enumerate()
            .for_each(|(at, rows)| work(at * COMBINE_ROWS, rows));
    }
}
