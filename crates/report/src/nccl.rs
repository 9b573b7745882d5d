//! The byte matrix of a step, as nccl-tests reads it for `alltoallv`.

use std::fmt::Write as _;

use expertmesh_telemetry::Run;

use crate::ReportError;
use crate::error::check_square;

/// Bytes that nccl-tests' `alltoallv` aligns every cell to.
const ALIGNED: u64 = 16;

/// Which endpoints become ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranks {
    /// All: rank 0 is the coordinator, rank *i* worker *i*.
    Endpoints,
    /// Workers alone: rank *i* is the worker with endpoint id *i* + 1.
    Workers,
}

/// A matrix for `NCCL_TESTS_ALLTOALLV_MATRIX_FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NcclMatrix {
    /// `[ranks][ranks]` bytes from row to column in a step: the mean of the run's steps, rounded up
    /// to a multiple of 16. nccl-tests itself would round down.
    pub cells: Vec<Vec<u64>>,
}

// === impl NcclMatrix ===

impl NcclMatrix {
    /// The matrix of a run's mean step.
    ///
    /// # Errors
    ///
    /// [`ReportError::Nothing`] where no byte moved between the ranks: workers of a star say.
    pub fn of(run: &Run, ranks: Ranks) -> Result<Self, ReportError> {
        check_square(&run.communication.matrix_bytes)?;
        let steps = run.load.steps.max(1);
        let first = match ranks {
            Ranks::Endpoints => 0,
            Ranks::Workers => 1,
        };
        let matrix = run.communication.matrix_bytes.iter().skip(first);
        let cells: Vec<Vec<u64>> = matrix
            .map(|row| {
                let row = row.iter().skip(first);
                row.map(|bytes| aligned(bytes.div_ceil(steps))).collect()
            })
            .collect();
        if cells.iter().flatten().all(|bytes| *bytes == 0) {
            let hint = "workers of a star trade no rows; take all endpoints, or an all-to-all run";
            return Err(ReportError::Nothing {
                what: "byte between these ranks",
                hint,
            });
        }
        Ok(Self { cells })
    }

    /// The file: a row a line, cells apart by spaces. The format has no comments.
    pub fn text(&self) -> String {
        let width = self
            .cells
            .iter()
            .flatten()
            .map(|bytes| bytes.to_string().len());
        let width = width.max().unwrap_or(1);
        let mut text = String::new();
        for row in &self.cells {
            let cells: Vec<String> = row.iter().map(|bytes| format!("{bytes:>width$}")).collect();
            let _ = writeln!(text, "{}", cells.join(" "));
        }
        text
    }

    /// The most that one rank sends or receives: nccl-tests wants `-b` and `-e` to be no less.
    pub fn largest(&self) -> u64 {
        let add = |sum: u64, bytes: &u64| sum.saturating_add(*bytes);
        let sent = self.cells.iter().map(|row| row.iter().fold(0, add));
        let received = (0..self.cells.len()).map(|to| {
            let column = self.cells.iter().filter_map(|row| row.get(to));
            column.fold(0, add)
        });
        sent.chain(received).max().unwrap_or(0)
    }
}

fn aligned(bytes: u64) -> u64 {
    bytes.div_ceil(ALIGNED).saturating_mul(ALIGNED)
}
