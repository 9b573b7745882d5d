//! Balance by Sinkhorn's normalisation of the batch's logits.

use expertmesh_kernels::math;

use super::{Rows, Weigh};
use crate::{error::RoutingError, gate::Choices, select::top_k};

/// What Megatron-LM adds to every sum.
const EPS: f64 = 1e-8;

/// Logits that take more have no balance to be found in reasonable time.
const MOST_ROUNDS: usize = 10_000;

/// Megatron-LM's `sinkhorn_load_balancing`: `k` highest entries of `diag(d₀) exp(logits) diag(d₁)`,
/// whose rows sum to `1/T` and whose columns to `1/E`. With `d₁ = 1` first, rounds of
/// `d₀ = 1/T / (exp(logits) d₁ + 1e-8)` and `d₁ = 1/E / (d₀ exp(logits) + 1e-8)` go on until the
/// mean change of `d₁` is `tolerance` or less.
///
/// A row's largest logit is subtracted first, so that the exponential is finite: `d₀` takes the
/// factor up. Sums are in f64, in token and expert order. Padding is left out, and chosen for by
/// its keys.
pub(crate) fn sinkhorn(rows: &Rows<'_>, tolerance: f32) -> Result<Choices, RoutingError> {
    let factors = column_factors(rows, tolerance)?;
    rows.fixed(Weigh::Scores, |token, row, experts, buffers| {
        if rows.context.is_padding(token) {
            let keys = rows.selector.keys(row, &mut buffers.select);
            top_k(keys, experts, &mut buffers.top);
            return Ok(());
        }
        // d₀ is one factor for the whole row: the order does not depend on it.
        let keys = &mut buffers.keys;
        costs(row, keys);
        for (key, factor) in keys.iter_mut().zip(&factors) {
            *key = (f64::from(*key) * factor) as f32;
        }
        top_k(&buffers.keys, experts, &mut buffers.top);
        Ok(())
    })
}

/// `costs` = `exp(row - max(row))`.
fn costs(row: &[f32], costs: &mut Vec<f32>) {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    costs.clear();
    costs.extend(row.iter().map(|logit| logit - highest));
    math::exp_slice(costs);
}

/// `d₁`.
fn column_factors(rows: &Rows<'_>, tolerance: f32) -> Result<Vec<f64>, RoutingError> {
    let experts = rows.experts();
    let real = (0..rows.tokens).filter(|&token| !rows.context.is_padding(token));
    let (mut cost, mut of_row) = (vec![], vec![]);
    for token in real {
        costs(rows.row(token), &mut of_row);
        cost.extend(of_row.iter().copied().map(f64::from));
    }
    let tokens = cost.len() / experts;
    let mut d1 = vec![1.0; experts];
    let mut columns = vec![0.0; experts];
    for _ in 0..MOST_ROUNDS {
        columns.fill(0.0);
        for cost in cost.chunks_exact(experts) {
            let sum: f64 = cost.iter().zip(&d1).map(|(c, d)| c * d).sum();
            let d0 = 1.0 / tokens as f64 / (sum + EPS);
            for (column, cost) in columns.iter_mut().zip(cost) {
                *column += d0 * cost;
            }
        }
        let mut change = 0.0;
        for (d1, column) in d1.iter_mut().zip(&columns) {
            let next = 1.0 / experts as f64 / (column + EPS);
            change += (*d1 - next).abs();
            *d1 = next;
        }
        if change / experts as f64 <= f64::from(tolerance) {
            return Ok(d1);
        }
    }
    let found = format!("no balance in {MOST_ROUNDS} rounds");
    let expected = "logits closer to each other, or a larger tolerance";
    Err(RoutingError::config("kind tolerance", found, expected))
}
