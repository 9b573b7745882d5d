//! Tests that cross modules. `reference` is an implementation of its own, written from the
//! formulas in f64 and without an eye on speed.

#![allow(
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "shapes drawn by the tests"
)]

mod admission;
mod bias;
mod depth;
mod documented;
mod exit;
mod fixtures;
mod gate;
mod kinds;
mod loss_forms;
mod losses;
mod noise;
mod noisy_loss;
mod oracle;
mod overflow;
mod pairs;
mod policies;
mod presets;
mod reference;
mod selection;
mod slow_admit;

use proptest::test_runner::{Config, RngSeed};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::{Admission, AdmitContext, CapacityConfig, OverflowLedger, Route, RoutingError};

/// Admits a batch that is a whole run.
fn admit(route: &Route, config: &CapacityConfig) -> Result<Admission, RoutingError> {
    crate::admit(route, config, &AdmitContext::default())
}

/// Counts a batch that is a whole run.
fn tally(
    route: &Route,
    admission: &Admission,
    config: &CapacityConfig,
) -> Result<OverflowLedger, RoutingError> {
    OverflowLedger::tally(route, admission, config, &AdmitContext::default())
}

/// The same cases in every run.
fn cases(cases: u32) -> Config {
    let rng_seed = RngSeed::Fixed(1);
    Config {
        cases,
        rng_seed,
        failure_persistence: None,
        ..Config::default()
    }
}

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Uniform in `0..bound`.
fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

/// Uniform in `[-size, size)`, on a grid of 2^-24.
fn uniform(rng: &mut ChaCha8Rng, size: f32) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 * size - size
}
