//! The trait of all experts, their source, and the memory that they work in.

use std::ops::Range;
use std::sync::Arc;

use expertmesh_kernels::{Format, round_bf16};

use crate::ExpertError;

/// A network from rows `[m, hidden]` to rows `[m, hidden]`.
pub trait Expert: Send + Sync {
    /// Values of a row.
    fn hidden(&self) -> usize;

    /// Bytes of all weights and biases, without padding.
    fn weight_bytes(&self) -> usize;

    /// Floating-point operations of the products for one row: two for each weight. Activations and
    /// biases are not counted.
    fn flops_per_row(&self) -> u64;

    /// Whether `y` is `x`, to the bit: a caller may then copy encoded rows and skip
    /// [`Expert::forward`].
    fn passes_through(&self) -> bool {
        false
    }

    /// Computes `y`, `[m, hidden]`, from `x`, `[m, hidden]`.
    ///
    /// A row of `y` depends on its row of `x` alone, to the bit, whatever `m` is. What `y` held
    /// before is overwritten. Nothing is allocated once `scratch` has seen as many rows.
    ///
    /// # Errors
    ///
    /// [`ExpertError::Rows`] if `x` and `y` do not hold the same whole number of rows.
    fn forward(&self, x: &[f32], y: &mut [f32], scratch: &mut Scratch) -> Result<(), ExpertError>;
}

/// Where a worker gets its experts: a checkpoint, a seed, a test.
pub trait ExpertSource: Send + Sync {
    /// Loads one expert of the layer. This may read gigabytes: call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// [`ExpertError::NoSuchExpert`] for an index past the layer's experts, [`ExpertError::Load`]
    /// or a shape error for weights that cannot be used.
    fn load(&self, expert: usize) -> Result<Arc<dyn Expert>, ExpertError>;
}

/// Intermediate rows, kept between calls so that warm calls allocate nothing.
///
/// One thread at a time uses it; a pool gives each of its threads one. It may pass from one expert
/// to another and keeps the size of the largest.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) first: Buffer,
    pub(crate) second: Buffer,
}

/// Memory that only grows.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<f32>);

/// Rows that pass through a network together at most. More rows read the weights less often; fewer
/// keep the intermediate rows (this many times `ffn`, twice) in the cache between the products. At
/// 128 rows reading the weights again costs a few percent of the arithmetic.
const BLOCK_ROWS: usize = 128;

// === impl Scratch ===

impl Scratch {
    /// Two buffers of `len` values each for an expert's intermediate rows, holding whatever the
    /// last user left.
    pub fn buffers(&mut self, len: usize) -> (&mut [f32], &mut [f32]) {
        (self.first.take(len), self.second.take(len))
    }
}

// === impl Buffer ===

impl Buffer {
    /// The first `len` values, whatever they hold.
    pub(crate) fn take(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len {
            self.0.resize(len, 0.0);
        }
        &mut self.0[..len]
    }

    #[cfg(test)]
    pub(crate) fn place(&self) -> (*const f32, usize) {
        (self.0.as_ptr(), self.0.capacity())
    }
}

/// The number of rows in both `x` and `y`.
pub(crate) fn rows(hidden: usize, x: &[f32], y: &[f32]) -> Result<usize, ExpertError> {
    if x.len() != y.len() || !x.len().is_multiple_of(hidden) {
        return Err(ExpertError::Rows {
            hidden,
            x: x.len(),
            y: y.len(),
        });
    }
    Ok(x.len() / hidden)
}

/// Cuts rows of `hidden` values into blocks of nearly equal size, as ranges of values.
pub(crate) fn blocks(rows: usize, hidden: usize) -> impl Iterator<Item = Range<usize>> {
    let per_block = rows.div_ceil(rows.div_ceil(BLOCK_ROWS).max(1)).max(1);
    let starts = (0..rows).step_by(per_block);
    starts.map(move |start| start * hidden..rows.min(start + per_block) * hidden)
}

/// Rounds what the network stores to its format.
pub(crate) fn round_to(dtype: Format, values: &mut [f32]) {
    if dtype == Format::Bf16 {
        round_bf16(values);
    }
}

/// Fails if `value` is zero.
pub(crate) fn not_zero(field: &'static str, value: usize) -> Result<(), ExpertError> {
    if value == 0 {
        Err(ExpertError::ZeroDimension { field })
    } else {
        Ok(())
    }
}
