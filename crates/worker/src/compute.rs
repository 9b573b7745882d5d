//! A batch of chunks, grouped by expert.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use expertmesh_exchange::RowsJob;
use expertmesh_experts::pieces::EXPERT_ROWS;
use expertmesh_experts::{Expert, ExpertError, Scratch};
use expertmesh_kernels::{Format, decode_row, encode_row};
use expertmesh_transport::monotonic_ns;
use expertmesh_wire::{BufferPool, FrameWriter};
use rayon::prelude::*;

/// One row's way through its expert.
struct RowTask<'a> {
    from: &'a [u8],
    to: &'a mut [u8],
}

/// Rows of one expert.
struct Block<'a> {
    expert: &'a Arc<dyn Expert>,
    rows: Vec<RowTask<'a>>,
}

#[derive(Default)]
struct Workspace {
    x: Vec<f32>,
    y: Vec<f32>,
    scratch: Scratch,
}

thread_local! {
    /// Compute threads live as long as their pool, so warm buffers serve every later batch.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// What computing a job alone will roughly cost, nanoseconds.
pub(crate) fn estimate_ns(job: &RowsJob, experts: &[Option<Arc<dyn Expert>>]) -> u64 {
    let row_bytes = job.frame.header.row_bytes() as u64;
    let mut read = vec![false; experts.len()];
    let (mut flops, mut bytes) = (0, 0);
    for id in &job.experts {
        let Some(expert) = experts.get(*id as usize).and_then(Option::as_ref) else {
            continue;
        };
        flops += expert.flops_per_row();
        if !std::mem::replace(&mut read[*id as usize], true) {
            bytes += expert.weight_bytes() as u64;
        }
    }
    let rows = job.choices() as u64 * row_bytes;
    expertmesh_exchange::estimate_ns(flops, bytes, rows)
}

/// Computes every choice of `jobs`; the result frames come in the order of the jobs.
///
/// # Errors
/// What an expert says, if it refuses rows.
pub(crate) fn run_batch(
    jobs: &[&RowsJob],
    experts: &[Option<Arc<dyn Expert>>],
    pool: &BufferPool,
) -> Result<Vec<FrameWriter>, ExpertError> {
    let mut frames: Vec<FrameWriter> = jobs.iter().map(|job| job.results(pool)).collect();
    let Some(first) = jobs.first() else {
        return Ok(frames);
    };
    let format = first.frame.header.format;
    let blocks = blocks(jobs, &mut frames, experts);
    if blocks.len() > 1 && rayon::current_thread_index().is_some() {
        blocks
            .into_par_iter()
            .try_for_each(|block| block.run(format))?;
    } else {
        blocks.into_iter().try_for_each(|block| block.run(format))?;
    }
    Ok(frames)
}

/// Runs an expert's code, which may be the embedding program's: a panic in it ends the work that it
/// was for, with the reason, and not the worker.
///
/// # Errors
/// What `work` says, or that it panicked.
pub(crate) fn guarded<R>(work: impl FnOnce() -> Result<R, ExpertError>) -> Result<R, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("it panicked: {}", text.unwrap_or_default()))
        }
    }
}

/// Waits until work that began at `started_ns` has taken `factor` times as long as it has.
pub(crate) fn stretch(started_ns: u64, factor: f64) {
    if factor > 1.0 {
        let took = std::time::Duration::from_nanos(monotonic_ns().saturating_sub(started_ns));
        std::thread::sleep(took.mul_f64(factor - 1.0));
    }
}

/// Groups the choices of all jobs by expert, in ascending order of expert, job and row.
fn blocks<'a>(
    jobs: &'a [&RowsJob],
    frames: &'a mut [FrameWriter],
    experts: &'a [Option<Arc<dyn Expert>>],
) -> Vec<Block<'a>> {
    let mut tasks: Vec<(u32, RowTask<'a>)> = Vec::new();
    for (job, frame) in jobs.iter().zip(frames) {
        let row_bytes = job.frame.header.row_bytes().max(1);
        let rows = job
            .offsets
            .windows(2)
            .enumerate()
            .flat_map(|(row, pair)| std::iter::repeat_n(row, (pair[1] - pair[0]) as usize));
        let slots = frame.rows().chunks_exact_mut(row_bytes);
        for ((expert, row), to) in job.experts.iter().zip(rows).zip(slots) {
            tasks.push((
                *expert,
                RowTask {
                    from: job.frame.row(row),
                    to,
                },
            ));
        }
    }
    tasks.sort_by_key(|(expert, _)| *expert);
    let mut blocks: Vec<Block<'a>> = Vec::new();
    let mut last = None;
    for (id, task) in tasks {
        // Experts were checked when the rows arrived.
        let Some(expert) = experts.get(id as usize).and_then(Option::as_ref) else {
            continue;
        };
        match blocks.last_mut() {
            Some(block) if last == Some(id) && block.rows.len() < EXPERT_ROWS => {
                block.rows.push(task);
            }
            _ => blocks.push(Block {
                expert,
                rows: vec![task],
            }),
        }
        last = Some(id);
    }
    blocks
}

// === impl Block ===

impl Block<'_> {
    fn run(self, format: Format) -> Result<(), ExpertError> {
        if self.expert.passes_through() {
            for row in self.rows {
                row.to.copy_from_slice(row.from);
            }
            return Ok(());
        }
        WORKSPACE.with_borrow_mut(|space| {
            let hidden = self.expert.hidden();
            let elements = self.rows.len() * hidden;
            if space.x.len() < elements {
                space.x.resize(elements, 0.0);
                space.y.resize(elements, 0.0);
            }
            let (x, y) = (&mut space.x[..elements], &mut space.y[..elements]);
            for (row, slot) in self.rows.iter().zip(x.chunks_exact_mut(hidden)) {
                decode_row(format, row.from, slot);
            }
            self.expert.forward(x, y, &mut space.scratch)?;
            for (row, result) in self.rows.into_iter().zip(y.chunks_exact(hidden)) {
                encode_row(format, result, row.to);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretched_work_takes_its_factor_and_other_work_no_longer() {
        let started_ns = monotonic_ns() - 1_000_000;
        stretch(started_ns, 3.0);
        assert!(monotonic_ns() - started_ns >= 3_000_000);
        let before = monotonic_ns();
        // An hour of work that nobody stretches.
        stretch(before.saturating_sub(3_600_000_000_000), 1.0);
        assert!(monotonic_ns() - before < 3_600_000_000_000);
    }
}
