//! A step allocates no more often for many tokens than for few.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

#[path = "../benches/route_and_plan/step.rs"]
#[allow(dead_code, reason = "the bench uses more of it")]
mod step;

use step::{Exchange, Gate, Step};

/// Allocations of a step over `tokens` tokens, after one that has filled the buffers that stay.
fn allocations(gate: Gate, exchange: Exchange, tokens: usize) -> u64 {
    let mut step = Step::new(gate, exchange, tokens);
    step.run();
    let counted = allocation_counter::measure(|| {
        step.run();
    });
    counted.count_total
}

#[test]
fn a_step_allocates_nothing_for_a_token() {
    for gate in Gate::ALL {
        for exchange in [8, 64]
            .map(|n| [Exchange::star(n), Exchange::all_to_all(n)])
            .concat()
        {
            let (few, many) = (
                allocations(gate, exchange, 1 << 10),
                allocations(gate, exchange, 1 << 12),
            );
            println!(
                "{}, {} of {}: {few}, {many}",
                gate.name(),
                exchange.kind,
                exchange.workers
            );
            // Large arrays stay from step to step, small ones need not.
            assert!(many <= few, "{many} for four times the tokens");
            // A handful for each shard, however many hosts it has.
            let shards = if exchange.kind == expertmesh_exchange::ExchangeKind::Star {
                1
            } else {
                exchange.workers
            };
            assert!(few <= 10 + 16 * shards as u64, "{few} for {shards} shards");
        }
    }
}
