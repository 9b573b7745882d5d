//! What a network takes for a number of rows.

use expertmesh_experts::pieces::EXPERT_ROWS;
use expertmesh_kernels::math;
use expertmesh_topology::Device;

use crate::costs::{ExpertCosts, ExpertTable, float, whole};
use crate::layer::NetworkShape;

/// Rows of one expert that a thread computes together; a hot expert's rows are so many tasks.
const BLOCK_ROWS: u32 = EXPERT_ROWS as u32;

/// The time of one network on one kind of device.
#[derive(Debug, Clone)]
pub(crate) enum NetworkCost {
    /// `[BLOCK_ROWS + 1]` nanoseconds by rows, from measurements: alone, and beside others.
    Table(Vec<(u64, u64)>),
    /// From the device's peaks.
    Roofline {
        row_ns: f64,
        weights_ns: f64,
        launch_ns: f64,
    },
}

/// Work that several threads may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Shared {
    /// All of it on one thread, nanoseconds.
    pub(crate) total_ns: u64,
    /// The longest piece that cannot be cut.
    pub(crate) longest_ns: u64,
    /// Pieces.
    pub(crate) pieces: u64,
    /// What all of it takes more while every other core computes too, nanoseconds.
    pub(crate) more_ns: u64,
}

/// Rows of a batch by expert, of which only those that were counted are read.
#[derive(Debug, Default)]
pub(crate) struct RowCounts {
    rows: Vec<u32>,
    touched: Vec<u32>,
}

// === impl NetworkCost ===

impl NetworkCost {
    pub(crate) fn new(costs: &ExpertCosts, shape: NetworkShape, on: &Device) -> Self {
        let fits = |table: &&ExpertTable| {
            table.hidden == shape.hidden
                && table.ffn == shape.ffn
                && table.matrices == shape.matrices
                && table.weight_bytes == shape.weight_bytes
        };
        if let Some(table) = costs.tables.iter().find(fits) {
            let both = |rows| (table.ns(rows), table.beside_ns(rows));
            return Self::Table((0..=BLOCK_ROWS).map(both).collect());
        }
        let flops_per_ns = on.flops * on.efficiency / 1e9;
        let bytes_per_ns = on.memory_bytes_per_s * costs.bandwidth_share / 1e9;
        Self::Roofline {
            row_ns: float(shape.flops_per_row) / flops_per_ns,
            weights_ns: float(shape.weight_bytes) / bytes_per_ns,
            launch_ns: if shape.matrices == 0 {
                0.0
            } else {
                float(on.launch_ns)
            },
        }
    }

    /// The time of a batch with these rows of each active expert.
    pub(crate) fn of(&self, rows: impl Iterator<Item = u32>) -> Shared {
        match self {
            Self::Table(by_rows) => {
                let block = |rows: u32| by_rows[rows as usize];
                let full = block(BLOCK_ROWS);
                let mut shared = Shared::default();
                for rows in rows.filter(|rows| *rows > 0) {
                    let (blocks, rest) = (u64::from(rows / BLOCK_ROWS), rows % BLOCK_ROWS);
                    for (count, (alone, beside)) in [(blocks, full), (1, block(rest))] {
                        if count == 0 || alone == 0 {
                            continue;
                        }
                        shared.total_ns += count * alone;
                        shared.more_ns += count * beside.saturating_sub(alone);
                        shared.pieces += count;
                        shared.longest_ns = shared.longest_ns.max(alone);
                    }
                }
                shared
            }
            Self::Roofline {
                row_ns,
                weights_ns,
                launch_ns,
            } => {
                let (mut all, mut active) = (0u64, 0u64);
                for rows in rows.filter(|rows| *rows > 0) {
                    all += u64::from(rows);
                    active += 1;
                }
                let work = (float(all) * row_ns).max(float(active) * weights_ns);
                let total_ns = whole(work + float(active) * launch_ns);
                Shared {
                    total_ns,
                    longest_ns: total_ns,
                    pieces: 1,
                    more_ns: 0,
                }
            }
        }
    }
}

// === impl ExpertTable ===

impl ExpertTable {
    /// The time of `rows` rows, nanoseconds. `exp` and `log` are those of the kernels: the same bits
    /// on every machine.
    pub fn ns(&self, rows: u32) -> u64 {
        Self::at(&self.points, rows)
    }

    /// The same while every other core computes, nanoseconds.
    pub fn beside_ns(&self, rows: u32) -> u64 {
        match self.beside.is_empty() {
            true => self.ns(rows),
            false => Self::at(&self.beside, rows).max(self.ns(rows)),
        }
    }

    fn at(points: &[(u32, f64)], rows: u32) -> u64 {
        if rows == 0 {
            return 0;
        }
        let above = points.partition_point(|(at, _)| *at < rows);
        if let Some((at, ns)) = points.get(above)
            && *at == rows
        {
            return whole(*ns);
        }
        let Some(last) = points.len().checked_sub(1) else {
            return 0;
        };
        if last == 0 {
            let (at, ns) = points[0];
            // One point says what a row costs, and nothing of fewer rows than its own.
            return whole(ns * float(u64::from(rows.max(at))) / float(u64::from(at)));
        }
        let right = above.clamp(1, last);
        let ((x0, y0), (x1, y1)) = (points[right - 1], points[right]);
        let (x0, x1, x) = (log(x0), log(x1), log(rows));
        let (y0, y1) = (math::log(single(y0)), math::log(single(y1)));
        let y = y0 + (y1 - y0) * ((x - x0) / (x1 - x0));
        whole(f64::from(math::exp(y)))
    }
}

// === impl Shared ===

impl Shared {
    /// The pieces that `threads` threads make of it, and how long each takes.
    pub(crate) fn cut(&self, threads: usize) -> (u64, u64) {
        let parts = self.pieces.clamp(1, threads.max(1) as u64);
        (parts, self.total_ns.div_ceil(parts).max(self.longest_ns))
    }

    /// How many times as long it takes while every other core computes too.
    pub(crate) fn slowdown(&self) -> f64 {
        1.0 + float(self.more_ns) / float(self.total_ns.max(1))
    }
}

// === impl RowCounts ===

impl RowCounts {
    pub(crate) fn new(experts: usize) -> Self {
        Self {
            rows: vec![0; experts],
            touched: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn count(&mut self, expert: u32) {
        self.add(expert, 1);
    }

    #[inline]
    pub(crate) fn add(&mut self, expert: u32, more: u32) {
        let rows = &mut self.rows[expert as usize];
        if *rows == 0 {
            self.touched.push(expert);
        }
        *rows += more;
    }

    /// Experts that have rows.
    pub(crate) fn active(&self) -> usize {
        self.touched.len()
    }

    /// Their rows, in the order in which they were first counted; forgets them.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = u32> + '_ {
        let rows = &mut self.rows;
        self.touched
            .drain(..)
            .map(|expert| std::mem::take(&mut rows[expert as usize]))
    }
}

fn log(rows: u32) -> f32 {
    math::log(single(f64::from(rows)))
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "24 bits are more than a measurement has"
)]
fn single(value: f64) -> f32 {
    value as f32
}
