//! Packing and combining a token row, and the activation between two products, warm in cache.
//!
//! Items are values.

use divan::Bencher;
use divan::counter::ItemsCount;
use expertmesh_kernels::{Format, axpy_row, decode_row, encode_row, math};

const WIDTHS: [usize; 2] = [1024, 7168];

fn main() {
    divan::main();
}

#[divan::bench(args = WIDTHS, consts = [false, true])]
fn encode<const BF16: bool>(bencher: Bencher<'_, '_>, width: usize) {
    let format = format::<BF16>();
    let row = row(width);
    let mut bytes = vec![0; 1 + width * format.bytes()];
    bencher
        .counter(ItemsCount::new(width))
        .bench_local(|| encode_row(format, divan::black_box(&row), &mut bytes[1..]));
}

#[divan::bench(args = WIDTHS, consts = [false, true])]
fn decode<const BF16: bool>(bencher: Bencher<'_, '_>, width: usize) {
    let format = format::<BF16>();
    let bytes = vec![0x3e; 1 + width * format.bytes()];
    let mut row = row(width);
    bencher
        .counter(ItemsCount::new(width))
        .bench_local(|| decode_row(format, divan::black_box(&bytes[1..]), &mut row));
}

#[divan::bench(args = WIDTHS, consts = [false, true])]
fn axpy<const BF16: bool>(bencher: Bencher<'_, '_>, width: usize) {
    let format = format::<BF16>();
    let bytes = vec![0x3e; 1 + width * format.bytes()];
    let mut row = row(width);
    bencher.counter(ItemsCount::new(width)).bench_local(|| {
        axpy_row(format, 0.25, divan::black_box(&bytes[1..]), &mut row, BF16);
    });
}

/// With a copy of the gate for each run: repeated in place, its values would decay to subnormals.
#[divan::bench(args = WIDTHS)]
fn silu_mul(bencher: Bencher<'_, '_>, width: usize) {
    let (row, up) = (row(width), row(width));
    let mut gate = row.clone();
    bencher.counter(ItemsCount::new(width)).bench_local(|| {
        gate.copy_from_slice(divan::black_box(&row));
        math::silu_mul(&mut gate, &up);
    });
}

#[divan::bench(args = [8, 64, 256])]
fn softmax(bencher: Bencher<'_, '_>, experts: usize) {
    let mut scores = row(experts);
    bencher
        .counter(ItemsCount::new(experts))
        .bench_local(|| math::softmax(divan::black_box(&mut scores)));
}

fn format<const BF16: bool>() -> Format {
    if BF16 { Format::Bf16 } else { Format::F32 }
}

fn row(width: usize) -> Vec<f32> {
    (0..width).map(|i| (i % 37) as f32 * 0.11 - 2.0).collect()
}
