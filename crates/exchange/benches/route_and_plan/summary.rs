//! Nanoseconds a token, stage by stage, and whether they meet the bar.

use std::process::ExitCode;

use crate::TOKENS;
use crate::step::{Exchange, Gate, STAGES, Step};

/// Nanoseconds a token of a group-limited gate, all stages together.
const LIMIT_NS: f64 = 400.0;
/// Per-token time at the most tokens over that at the fewest, or the other way round.
const LIMIT_RATIO: f64 = 1.5;

/// Prints the table; exit code 3 where the bar is missed and the gate is on.
pub(crate) fn print() -> ExitCode {
    println!("\nns a token: the least of several steps, each with all its stages");
    print!("{:<14} {:<14} {:>8}", "gate", "exchange", "tokens");
    STAGES.iter().for_each(|stage| print!(" {stage:>7}"));
    println!(" {:>7}", "step");
    let mut met = true;
    // As divan does: what is named on the command line, or all.
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'))
        .collect();
    let is_named =
        |gate: &Gate| named.is_empty() || named.iter().any(|name| gate.name().contains(name));
    for gate in Gate::ALL.into_iter().filter(is_named) {
        let exchanges = [8, 64].map(|n| [Exchange::star(n), Exchange::all_to_all(n)]);
        for exchange in exchanges.into_iter().flatten() {
            if gate != Gate::DeepSeekV3 && exchange.workers != 8 {
                continue;
            }
            let totals = TOKENS.map(|tokens| row(gate, exchange, tokens));
            let ratio = totals[totals.len() - 1] / totals[0];
            println!("{:>38} {ratio:.2}", "most tokens / fewest:");
            if gate == Gate::DeepSeekV3 {
                met &= totals.iter().all(|&total| total <= LIMIT_NS);
                met &= ratio.max(1.0 / ratio) <= LIMIT_RATIO;
            }
        }
    }
    let gated = std::env::var_os("EXPERTMESH_BENCH_GATE").is_some_and(|gate| gate == "1");
    if met {
        return ExitCode::SUCCESS;
    }
    println!("\ndeepseek_v3 is above {LIMIT_NS} ns a token, or its ratio above {LIMIT_RATIO}");
    ExitCode::from(if gated { 3 } else { 0 })
}

/// Measures and prints one line; returns its nanoseconds a token.
fn row(gate: Gate, exchange: Exchange, tokens: usize) -> f64 {
    let mut step = Step::new(gate, exchange, tokens);
    let rounds = ((1 << 22) / tokens).clamp(3, 200);
    let mut least = ([0; STAGES.len()], u64::MAX);
    for _ in 0..rounds {
        let (ns, _) = step.run();
        let total = ns.iter().sum();
        if total < least.1 {
            least = (ns, total);
        }
    }
    let a_token = |ns: u64| ns as f64 / tokens as f64;
    let exchange = format!("{} of {}", exchange.kind, exchange.workers);
    print!("{:<14} {exchange:<14} {tokens:>8}", gate.name());
    least
        .0
        .iter()
        .for_each(|&ns| print!(" {:>7.1}", a_token(ns)));
    println!(" {:>7.1}", a_token(least.1));
    a_token(least.1)
}
