//! What is driven through a layer, and how often.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use expertmesh_bench::workload::Pattern;

use crate::args::values::{at_least_one, parsed, whole};

/// Token rows of a step.
pub(crate) const TOKENS: usize = 64;
/// Recorded steps: 100 is where the 90th percentile begins to mean something.
pub(crate) const STEPS: u64 = 100;
/// Steps before them: first touches of buffers, caches and clocks.
pub(crate) const WARMUP: u64 = 10;

/// The flags that say what is driven; `None` for absent ones.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct LoadArgs {
    /// Token rows of a step [default: 64]
    #[arg(long, value_name = "T", conflicts_with_all = ["input", "trace"])]
    #[arg(value_parser = tokens)]
    pub(crate) tokens: Option<NonZeroUsize>,
    /// Recorded steps [default: 100; of a trace all]
    #[arg(long, value_name = "N", value_parser = steps)]
    pub(crate) steps: Option<u64>,
    /// Steps before them, which no figure counts [default: 10]
    #[arg(long, value_name = "N", value_parser = steps)]
    pub(crate) warmup: Option<u64>,
    /// How tokens spread over the experts of a synthetic layer: balanced, zipf (= zipf:1),
    /// zipf:S, hot (= hot:0.5) or hot:SHARE, w0 to w7 (hot-experts, hot-rank, spread-hot,
    /// source-ragged, zero-expert-rank, rotating-hotspot, burst), drift or locality; or normal:
    /// Gaussian rows, any layer
    /// [default: balanced; normal for a checkpoint]
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["input", "trace"])]
    #[arg(value_parser = parsed::<Pattern>)]
    pub(crate) workload: Option<Pattern>,
    /// Safetensors file whose hidden_states are the input of every step
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    pub(crate) input: Option<PathBuf>,
    /// Trace whose choices, and weights where it has them, replace those of the gate, step by
    /// step and round and round; rows are Gaussian. Its experts and top-k must be the layer's
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Layer of the trace [default: the layer's own number, or the only one that is there]
    #[arg(long, value_name = "N", requires = "trace", value_parser = whole::<u32>)]
    pub(crate) trace_layer: Option<u32>,
}

fn tokens(text: &str) -> Result<NonZeroUsize, String> {
    at_least_one(text).and_then(|tokens| few(text, tokens))
}

fn steps(text: &str) -> Result<u64, String> {
    whole(text).and_then(|steps| few(text, steps))
}

/// What 32 bits hold: choices have numbers of so many, and products of such counts fit 64.
fn few<T>(text: &str, value: T) -> Result<T, String> {
    match text.parse::<u32>() {
        Ok(_) => Ok(value),
        Err(_) => Err(format!("expected at most {}", u32::MAX)),
    }
}

// === impl LoadArgs ===

impl LoadArgs {
    pub(crate) fn tokens(&self) -> usize {
        self.tokens.map_or(TOKENS, usize::from)
    }

    pub(crate) fn warmup(&self) -> u64 {
        self.warmup.unwrap_or(WARMUP)
    }
}
