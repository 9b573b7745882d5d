//! What this machine's cores do with one expert: the table that batches are predicted from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use expertmesh_experts::{Expert, ExpertError, ExpertSpec, Scratch, synthetic_expert};
use serde::{Deserialize, Serialize};

/// Rows at which an expert is timed; a worker computes at most 128 together.
const ROWS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// Times that an expert is called at each number of rows, at least.
const CALLS: usize = 12;

/// Time of an expert by the rows that it computes together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpertTimes {
    /// Values of a token row.
    pub hidden: usize,
    /// Values between the layers.
    pub ffn: usize,
    /// Rows, ascending.
    pub rows: Vec<u32>,
    /// Median nanoseconds while the other cores are idle, one for each of `rows`.
    pub alone_ns: Vec<u64>,
    /// The same while every core of the machine computes an expert.
    pub beside_ns: Vec<u64>,
}

/// Times one of `experts` experts of `spec`, called in turn so that weights come from where a step
/// would find them, on one core and on all `cores`.
///
/// # Errors
/// [`ExpertError`] for a shape that no expert has.
pub fn time_expert(
    spec: &ExpertSpec,
    experts: usize,
    cores: usize,
) -> Result<ExpertTimes, ExpertError> {
    let experts: Vec<Arc<dyn Expert>> = (0..u32::try_from(experts).unwrap_or(u32::MAX))
        .map(|id| synthetic_expert(spec, 0, 0, id))
        .collect::<Result<_, _>>()?;
    let mut times = ExpertTimes {
        hidden: spec.hidden,
        ffn: spec.ffn,
        rows: ROWS.map(|rows| rows as u32).to_vec(),
        alone_ns: Vec::new(),
        beside_ns: Vec::new(),
    };
    for rows in ROWS {
        // What else runs for a moment makes a loop longer, never shorter: the better of two.
        let once = || median_of(&experts, rows, CALLS);
        times.alone_ns.push(once()?.min(once()?));
        let others_run = AtomicBool::new(true);
        let beside = std::thread::scope(|scope| {
            for other in 1..cores {
                let (experts, run) = (&experts[..], &others_run);
                scope.spawn(move || keep_busy(experts, rows, other, run));
            }
            let measured = median_of(&experts, rows, CALLS);
            others_run.store(false, Ordering::Relaxed);
            measured
        })?;
        times.beside_ns.push(beside);
    }
    Ok(times)
}

/// Median time of a call with `rows` rows, experts in turn.
fn median_of(experts: &[Arc<dyn Expert>], rows: usize, calls: usize) -> Result<u64, ExpertError> {
    let hidden = experts.first().map_or(0, |expert| expert.hidden());
    let (x, mut y) = (vec![0.5; rows * hidden], vec![0.0; rows * hidden]);
    let mut scratch = Scratch::default();
    let mut times = Vec::with_capacity(calls.max(experts.len()));
    for call in 0..calls.max(experts.len()) + 2 {
        let started = Instant::now();
        experts[call % experts.len()].forward(&x, &mut y, &mut scratch)?;
        let took = started.elapsed();
        // The first calls grow buffers.
        if call >= 2 {
            times.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Computes until told to stop, starting at another expert than its neighbours.
fn keep_busy(experts: &[Arc<dyn Expert>], rows: usize, from: usize, run: &AtomicBool) {
    let hidden = experts.first().map_or(0, |expert| expert.hidden());
    let (x, mut y) = (vec![0.5; rows * hidden], vec![0.0; rows * hidden]);
    let mut scratch = Scratch::default();
    let mut at = from * experts.len() / 2;
    while run.load(Ordering::Relaxed) {
        // The same call succeeds where the time is taken, or ends the measurement there.
        if experts[at % experts.len()]
            .forward(&x, &mut y, &mut scratch)
            .is_err()
        {
            return;
        }
        at += 1;
    }
}
