//! The kernel in plain Rust: the definition that the others are tested against, and on aarch64,
//! where NEON and its fused multiply-add are always there, the one that runs.

use super::{Product, Tile};
use crate::packed::{Line, PANEL};

/// 4 rows × 16 outputs of sums: 16 of aarch64's 32 registers.
const ROWS: usize = 4;
const COLUMNS: usize = PANEL / 2;

pub(super) fn product<L: Line>(product: &Product<'_, L>, y: &mut [f32]) {
    product.for_each_tile(y, ROWS, |rows, task, y| match rows {
        1 => tile::<L, 1>(task, y),
        2 => tile::<L, 2>(task, y),
        3 => tile::<L, 3>(task, y),
        _ => tile::<L, ROWS>(task, y),
    });
}

fn tile<L: Line, const M: usize>(task: &Tile<'_, L>, y: &mut [f32]) {
    half::<L, M>(task, 0, y, task.width.min(COLUMNS));
    if task.width > COLUMNS {
        half::<L, M>(task, 1, &mut y[COLUMNS..], task.width - COLUMNS);
    }
}

fn half<L: Line, const M: usize>(task: &Tile<'_, L>, half: usize, y: &mut [f32], width: usize) {
    let mut sums = [[0.0f32; COLUMNS]; M];
    if !task.begins {
        for (row, sums) in sums.iter_mut().enumerate() {
            sums[..width].copy_from_slice(&y[row * task.y_stride..][..width]);
        }
    }
    for (position, line) in task.lines.iter().enumerate() {
        let weights = line.half(half);
        for (row, sums) in sums.iter_mut().enumerate() {
            let value = task.x[row * task.x_stride + position];
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = value.mul_add(weight, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        y[row * task.y_stride..][..width].copy_from_slice(&sums[..width]);
    }
}
