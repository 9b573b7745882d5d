//! Our floor beside a minimal tonic echo.
//!
//! `bench dispatch` compares the exchange with a floor of our own transport; this bench holds that
//! floor to a reference that has none of our code: a tonic server and channel on current-thread
//! runtimes, 1 MiB HTTP/2 frames over TCP, messages handed to the body as `Bytes`. Rounds of both
//! alternate, with the same message sizes: those of a real `star` step on four workers.
//!
//! ```text
//! cargo bench -p expertmesh-cli --bench floor
//! ```
//!
//! Exit code 3 if the median ratio over the restarts is above 1.3 for any number of tokens.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_sign_loss,
    reason = "a bench prints its figures and ends at what it did not expect"
)]

#[path = "floor/cluster.rs"]
mod cluster;
#[path = "floor/echo.rs"]
mod echo;

use std::process::ExitCode;
use std::time::Instant;

/// Our floor may cost this much of the reference.
const LIMIT: f64 = 1.3;
const RESTARTS: usize = 5;
const ROUNDS: usize = 300;
const WARMUP: usize = 50;
const TOKENS: [usize; 4] = [1, 16, 64, 256];

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if std::env::args().nth(1).as_deref() == Some(echo::ARGUMENT) {
        runtime.block_on(echo::serve());
        return ExitCode::SUCCESS;
    }
    let mut ratios = vec![Vec::new(); TOKENS.len()];
    let mut medians = vec![(Vec::new(), Vec::new()); TOKENS.len()];
    for _ in 0..RESTARTS {
        for (at, (ours, reference)) in runtime.block_on(restart()).into_iter().enumerate() {
            ratios[at].push(ours / reference);
            medians[at].0.push(ours);
            medians[at].1.push(reference);
        }
    }
    println!("floor of a star step on 4 workers, H = 1024 f32, against a minimal tonic echo");
    println!("median of {RESTARTS} restarts of the p50 of {ROUNDS} interleaved rounds\n");
    println!(
        "{:>8}  {:>10}  {:>10}  {:>6}  [range]",
        "tokens", "ours µs", "echo µs", "ratio"
    );
    let mut met = true;
    for ((tokens, ratios), (ours, echo)) in TOKENS.iter().zip(&mut ratios).zip(&mut medians) {
        let ratio = median(ratios);
        let range = format!("[{:.2}, {:.2}]", ratios[0], ratios[ratios.len() - 1]);
        println!(
            "{tokens:>8}  {:>10.1}  {:>10.1}  {ratio:>6.2}  {range}",
            median(ours),
            median(echo)
        );
        met &= ratio <= LIMIT;
    }
    if met {
        ExitCode::SUCCESS
    } else {
        println!("\na ratio is above {LIMIT}");
        ExitCode::from(3)
    }
}

/// p50 of our floor and of the reference, µs, for each of [`TOKENS`].
async fn restart() -> Vec<(f64, f64)> {
    let cluster = cluster::Cluster::start().await;
    let mut echo = echo::Client::start(cluster::WORKERS).await;
    let mut points = Vec::new();
    for tokens in TOKENS {
        let ledger = cluster.ledger(tokens).await;
        let requests: Vec<_> = cluster::sizes(&ledger)
            .into_iter()
            .map(echo::Request::new)
            .collect();
        let (mut ours, mut reference) = (Vec::new(), Vec::new());
        for round in 0..WARMUP + ROUNDS {
            let floor_ns = cluster.coordinator.floor(&ledger).await.unwrap();
            let started = Instant::now();
            echo.round(&requests).await;
            let echo_us = started.elapsed().as_nanos() as f64 / 1e3;
            if round >= WARMUP {
                ours.push(floor_ns as f64 / 1e3);
                reference.push(echo_us);
            }
        }
        points.push((median(&mut ours), median(&mut reference)));
    }
    points
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
