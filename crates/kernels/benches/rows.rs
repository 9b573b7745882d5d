//! Packing and combining a token row, the activation between two products, and a gate's scores and
//! choices, warm in cache.
//!
//! Items are values; of a gate's steps, tokens.

use divan::Bencher;
use divan::counter::ItemsCount;
use expertmesh_kernels::{Format, axpy_row, decode_row, encode_row, math, rows};

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

/// Scores of tokens that choose among 256 experts.
const EXPERTS: usize = 256;
const TOKENS: usize = 64;

#[divan::bench]
fn sigmoid_and_sum(bencher: Bencher<'_, '_>) {
    let (logits, bias) = (drawn(), vec![0.25; EXPERTS]);
    let (mut scores, mut sums) = (logits.clone(), logits.clone());
    bencher.counter(ItemsCount::new(TOKENS)).bench_local(|| {
        let logits = divan::black_box(&logits);
        rows::sigmoid_and_sum(logits, &bias, &mut scores, &mut sums, &[])
    });
}

/// The best 8 of the best 4 of 8 groups, as DeepSeek-V3 chooses.
#[divan::bench]
fn highest_of_runs(bencher: Bencher<'_, '_>) {
    let runs = rows::Runs {
        n: 8,
        keep: 4,
        by_two: true,
        fill: f32::NEG_INFINITY,
    };
    let keys = drawn();
    let (mut kept, mut indices) = (vec![false; 8 * TOKENS], vec![0; 8 * TOKENS]);
    bencher.counter(ItemsCount::new(TOKENS)).bench_local(|| {
        let keys = divan::black_box(&keys);
        rows::highest_of_runs(keys, EXPERTS, 8, &runs, &mut kept, &mut indices);
    });
}

/// No two alike, from -4 to 4 without an order.
fn drawn() -> Vec<f32> {
    let at = 0..(TOKENS * EXPERTS) as u32;
    at.map(|at| (at.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 21) as f32 - 4.0)
        .collect()
}

fn format<const BF16: bool>() -> Format {
    if BF16 { Format::Bf16 } else { Format::F32 }
}

fn row(width: usize) -> Vec<f32> {
    (0..width).map(|i| (i % 37) as f32 * 0.11 - 2.0).collect()
}
