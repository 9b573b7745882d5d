//! `y = x Wᵀ` for a few rows up to a few thousand.
//!
//! # The order of additions
//!
//! Every element of `y` is one chain: start from `+0.0`, and for each inner position in ascending
//! order replace the sum by `fma(x, w, sum)`, rounded once. Vector registers hold different outputs,
//! tiles hold different rows; neither touches the chain. So a row has the same bits alone, in any
//! batch, and on any CPU. The price is no split of the inner dimension across threads, which expert
//! parallelism does not need: its parallelism lies in experts, rows and outputs.
//!
//! # Speed
//!
//! With few rows the product is bound by reading the weights: blocks of a panel are the outer loop,
//! so each weight comes from memory once, asked for one block ahead in several streams. With many
//! rows it is bound by arithmetic: a block stays in the L2 cache while tiles of rows pass by, and a
//! tile's sums stay in registers. Where the inner dimension is longer than a block, the sums rest in
//! `y` between two blocks, which keeps their bits.

use std::ops::Range;

use crate::isa::Isa;
use crate::packed::{Line, PANEL, Storage};
use crate::{KernelError, PackedMatrix};

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector loads from raw pointers")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector loads from raw pointers")]
mod avx512;
mod portable;
#[cfg(test)]
mod tests;

/// Names the order of additions of [`matmul`](fn@matmul) and the forms of [`math`](crate::math). Runs whose
/// numerics classes differ may differ in their last bits; a change of either must change this name.
pub const NUMERICS: &str = "fma-chain/2";

/// Operands whose shapes agree.
struct Product<'a, L> {
    x: &'a [f32],
    rows: usize,
    inner: usize,
    out: usize,
    lines: &'a [L],
}

/// Lines of a block at most: 128 KiB of f32 weights, so that one block and the next fit an L2 cache
/// of 512 KiB together with the rows that pass by.
const BLOCK: usize = 1024;

/// Streams in which the next block is asked for. One core that reads one ascending stream waits for
/// memory: with f32 weights from DRAM and 8 rows, 1 stream took 1118 µs, 2 took 847, 4 took 713 and
/// 8 took 756 (d = 1024, f = 2816, Sapphire Rapids).
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "hardware alone prefetches")
)]
const STREAMS: usize = 4;

/// A piece of a panel: some inner positions for its outputs.
struct Block<'a, L> {
    outputs: Range<usize>,
    positions: Range<usize>,
    lines: &'a [L],
}

/// Some rows of a product that pass by a block together.
struct Tile<'a, L> {
    /// The tile's first row of `x`, from the block's first position on.
    x: &'a [f32],
    /// Values from one row of `x` to the next.
    x_stride: usize,
    lines: &'a [L],
    /// Values from one row of `y` to the next.
    y_stride: usize,
    /// Outputs of the block.
    width: usize,
    /// Whether the chains begin here; otherwise they go on from what `y` holds.
    begins: bool,
    /// Whether this is the block's first tile, which asks for the next block.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "hardware alone prefetches")
    )]
    prefetches: bool,
}

/// A line that every kernel of this target can read.
#[cfg(target_arch = "x86_64")]
trait AnyLine: Line + avx512::Load + avx2::Load {}
#[cfg(target_arch = "x86_64")]
impl<L: Line + avx512::Load + avx2::Load> AnyLine for L {}
#[cfg(not(target_arch = "x86_64"))]
trait AnyLine: Line {}
#[cfg(not(target_arch = "x86_64"))]
impl<L: Line> AnyLine for L {}

/// Multiplies the rows of `x`, `[rows, inner]`, by the transposed weights into `y`, `[rows, out]`.
///
/// Each element of `y` is one ascending chain of [`f32::mul_add`] over `inner` that starts at
/// `+0.0`, whatever the number of rows, the tile, the thread or the CPU; [`NUMERICS`] names it.
/// What `y` held before is overwritten. An empty inner dimension gives zeros.
///
/// # Errors
///
/// [`KernelError::ProductShape`] if `x` and `y` do not hold the same number of whole rows.
pub fn matmul(x: &[f32], w: &PackedMatrix, y: &mut [f32]) -> Result<(), KernelError> {
    matmul_on(Isa::best(), x, w, y)
}

fn matmul_on(isa: Isa, x: &[f32], w: &PackedMatrix, y: &mut [f32]) -> Result<(), KernelError> {
    let (out, inner) = (w.out(), w.inner());
    let rows = match (out, inner) {
        (0, 0) => 0,
        (0, _) => x.len() / inner,
        _ => y.len() / out,
    };
    // Both products are at most the length of a slice, or the comparison is false: no overflow.
    if rows.checked_mul(inner) != Some(x.len()) || rows.checked_mul(out) != Some(y.len()) {
        return Err(KernelError::ProductShape {
            out,
            inner,
            x: x.len(),
            y: y.len(),
        });
    }
    if inner == 0 {
        y.fill(0.0);
        return Ok(());
    }
    match w.storage() {
        Storage::F32(lines) => Product {
            x,
            rows,
            inner,
            out,
            lines,
        }
        .run(isa, y),
        Storage::Bf16(lines) => Product {
            x,
            rows,
            inner,
            out,
            lines,
        }
        .run(isa, y),
    }
    Ok(())
}

/// Cuts `rows` into tiles of at most `most`, none of them needlessly small: a tile of one row pays
/// for the whole panel as a tile of `most` rows does.
fn tiles(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = rows - start;
        let take = match left {
            0 => return None,
            _ if left <= most => left,
            _ if left < 2 * most => left.div_ceil(2),
            _ => most,
        };
        let tile = start..start + take;
        start = tile.end;
        Some(tile)
    })
}

// === impl Product ===

impl<L: AnyLine> Product<'_, L> {
    #[cfg_attr(
        target_arch = "x86_64",
        allow(unsafe_code, reason = "needs CPU features")
    )]
    fn run(&self, isa: Isa, y: &mut [f32]) {
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a value `Isa::Avx512` exists only where the CPU has AVX-512F.
            Isa::Avx512 => unsafe { avx512::product(self, y) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a value `Isa::Avx2` exists only where the CPU has AVX2 and FMA.
            Isa::Avx2 => unsafe { avx2::product(self, y) },
            Isa::Portable => portable::product(self, y),
        }
    }
}

impl<'a, L> Product<'a, L> {
    /// Calls `tile` with every tile of every block and the part of `y` that it updates, from the
    /// tile's first row and the block's first output on. `most` is the number of rows at most.
    #[inline(always)]
    fn for_each_tile(
        &self,
        y: &mut [f32],
        most: usize,
        mut tile: impl FnMut(usize, &Tile<'a, L>, &mut [f32]),
    ) {
        for Block {
            outputs,
            positions,
            lines,
        } in self.blocks()
        {
            for rows in tiles(self.rows, most) {
                let task = Tile {
                    x: &self.x[rows.start * self.inner + positions.start..rows.end * self.inner],
                    x_stride: self.inner,
                    lines,
                    y_stride: self.out,
                    width: outputs.len(),
                    begins: positions.start == 0,
                    prefetches: rows.start == 0,
                };
                let y = &mut y[rows.start * self.out + outputs.start..rows.end * self.out];
                tile(rows.len(), &task, y);
            }
        }
    }

    /// The panels of the weights, cut into blocks of nearly equal length.
    fn blocks(&self) -> impl Iterator<Item = Block<'a, L>> + use<'a, L> {
        let (out, inner) = (self.out, self.inner);
        let length = inner.div_ceil(inner.div_ceil(BLOCK));
        self.lines
            .chunks_exact(inner)
            .enumerate()
            .flat_map(move |(panel, lines)| {
                let outputs = panel * PANEL..out.min((panel + 1) * PANEL);
                lines
                    .chunks(length)
                    .enumerate()
                    .map(move |(index, lines)| Block {
                        outputs: outputs.clone(),
                        positions: index * length..index * length + lines.len(),
                        lines,
                    })
            })
    }
}

// === impl Tile ===

impl<L> Tile<'_, L> {
    /// What to ask for while the line at `position` is used: a line of the next block, which
    /// follows this one in memory. Over all positions it is every line once, in [`STREAMS`] streams.
    /// Past the last block the address is meaningless, and harmless in a prefetch.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "hardware alone prefetches")
    )]
    #[inline(always)]
    fn next_block(&self, position: usize) -> *const L {
        let (stream, step) = (position % STREAMS, position / STREAMS);
        let length = self.lines.len();
        self.lines
            .as_ptr()
            .wrapping_add(length + stream * (length / STREAMS) + step)
    }
}
