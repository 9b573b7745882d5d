//! Products with the weights of one expert matrix, d = 1024 and f = 2816, on one thread.
//!
//! `cold` walks through more matrices than a last-level cache holds, as a worker with many experts
//! does; `warm` repeats one. Items are floating-point operations, two for each weight and row.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may stop, and prints"
)]

use divan::Bencher;
use divan::counter::ItemsCount;
use expertmesh_kernels::{Format, PackedMatrix, matmul};

const INNER: usize = 1024;
const OUT: usize = 2816;
const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 64, 256];

/// 26 × 11.5 MB of f32 weights.
const COLD: usize = 26;

fn main() {
    println!("kernel: {}", expertmesh_kernels::kernel_name());
    divan::main();
}

#[divan::bench(args = ROWS)]
fn f32_cold(bencher: Bencher<'_, '_>, rows: usize) {
    product(bencher, Format::F32, rows, COLD);
}

#[divan::bench(args = ROWS)]
fn bf16_cold(bencher: Bencher<'_, '_>, rows: usize) {
    product(bencher, Format::Bf16, rows, 2 * COLD);
}

#[divan::bench(args = ROWS)]
fn f32_warm(bencher: Bencher<'_, '_>, rows: usize) {
    product(bencher, Format::F32, rows, 1);
}

#[divan::bench(args = ROWS)]
fn bf16_warm(bencher: Bencher<'_, '_>, rows: usize) {
    product(bencher, Format::Bf16, rows, 1);
}

fn product(bencher: Bencher<'_, '_>, format: Format, rows: usize, matrices: usize) {
    let values = values(OUT * INNER);
    let matrices: Vec<_> = (0..matrices)
        .map(|_| PackedMatrix::from_f32_as(format, &values, OUT, INNER).expect("shape"))
        .collect();
    let x = &values[..rows * INNER];
    let mut y = vec![0.0; rows * OUT];
    let mut next = matrices.iter().cycle();
    bencher
        .counter(ItemsCount::new(2 * rows * OUT * INNER))
        .bench_local(|| {
            let w = next.next().expect("a cycle");
            matmul(x, w, divan::black_box(&mut y)).expect("shape");
        });
}

/// Numbers in (-1, 1) with varied bits: multiples of the golden ratio, modulo 2.
fn values(count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i as f64 * 0.618_033_988_749_895).fract() * 2.0 - 1.0) as f32)
        .collect()
}
