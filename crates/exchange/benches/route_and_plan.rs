//! What a coordinator computes between the gate's product and the first packed row, on one core:
//! scores, groups, selection, normalisation, capacity, kept choices, plans and the traffic ledger.
//!
//! ```text
//! cargo bench -p expertmesh-exchange --bench route_and_plan
//! ```
//!
//! 256 experts, top-8, over logits made from a seed: 1 Ki, 32 Ki and 1 Mi tokens, the last of them
//! 1 GiB of logits, all of it read. Items are tokens; allocations are those of a step, and
//! `tests/allocations.rs` holds that their number does not depend on the tokens. After divan's table
//! comes one of our own: the nanoseconds a token of each stage, and the ratio of the per-token times
//! at 1 Mi and 1 Ki tokens. A name on the command line (`-- deepseek_v3`) chooses a gate.
//!
//! With `EXPERTMESH_BENCH_GATE=1` the exit code is 3 if the group-limited gate of DeepSeek-V3 takes
//! more than 400 ns a token at any size, or if the ratio is above 1.5.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints its figures and ends at what it did not expect"
)]

#[path = "route_and_plan/step.rs"]
mod step;
#[path = "route_and_plan/summary.rs"]
mod summary;

use std::process::ExitCode;

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher};
use step::{Exchange, Gate, Step};

/// Counts allocations for the table.
#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

/// Tokens of a step.
const TOKENS: [usize; 3] = [1 << 10, 1 << 15, 1 << 20];

fn main() -> ExitCode {
    divan::main();
    // `cargo test` runs a bench once to see that it works; the table is for `cargo bench`.
    if std::env::args().any(|argument| argument == "--bench") {
        return summary::print();
    }
    ExitCode::SUCCESS
}

#[divan::bench(args = TOKENS, max_time = 3)]
fn deepseek_v3(bencher: Bencher<'_, '_>, tokens: usize) {
    bench(bencher, Gate::DeepSeekV3, tokens);
}

#[divan::bench(args = TOKENS, max_time = 3)]
fn deepseek_v2(bencher: Bencher<'_, '_>, tokens: usize) {
    bench(bencher, Gate::DeepSeekV2, tokens);
}

#[divan::bench(args = TOKENS, max_time = 3)]
fn softmax_top_8(bencher: Bencher<'_, '_>, tokens: usize) {
    bench(bencher, Gate::Softmax, tokens);
}

fn bench(bencher: Bencher<'_, '_>, gate: Gate, tokens: usize) {
    let mut step = Step::new(gate, Exchange::star(8), tokens);
    bencher
        .counter(ItemsCount::new(tokens))
        .bench_local(|| step.run());
}
