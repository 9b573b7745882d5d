//! Every kind of router against a slow one written from its formula, and the promises of
//! `kinds.rs`.

mod balanced;
mod context;
mod force;
mod forced;
mod hashed;
mod noisy;
mod placed;
mod presets;
mod promises;
mod soft;

use expertmesh_kernels::{Format, PackedMatrix};

use super::{below, rng, uniform};
use crate::{
    Cosine, Domains, Gate, GateContext, ReplayStep, RouterConfig, RouterPreset, RoutingError,
    kinds::balanced_table,
};

const HIDDEN: usize = 12;
/// Token ids are below it.
const VOCABULARY: usize = 50;

fn numbers(seed: u64, count: usize, size: f32) -> Vec<f32> {
    let mut rng = rng(seed);
    (0..count).map(|_| uniform(&mut rng, size)).collect()
}

fn matrix(seed: u64, out: usize, inner: usize) -> PackedMatrix {
    PackedMatrix::from_f32(&numbers(seed, out * inner, 1.0), out, inner).unwrap()
}

fn config(preset: &str, experts: usize, top_k: usize) -> RouterConfig {
    let preset: RouterPreset = preset.parse().unwrap();
    preset.config(experts, top_k, Format::F32).unwrap()
}

/// A gate with everything that its configuration asks for.
fn gate(config: RouterConfig, seed: u64) -> Gate {
    let (needs, e, k) = (config.needs(), config.experts, config.top_k);
    let bias = needs.selection_bias.then(|| numbers(seed + 1, e, 0.3));
    let inner = if needs.cosine { 5 } else { HIDDEN };
    let weight = matrix(seed, config.columns(), inner);
    let mut gate = Gate::new(config, weight, None, bias).unwrap();
    if needs.cosine {
        let cosine = Cosine {
            projection: matrix(seed + 2, inner, HIDDEN),
            bias: Some(numbers(seed + 3, inner, 0.5)),
            temperature: 0.7,
        };
        gate = gate.with_cosine(cosine).unwrap();
    }
    if needs.noise_weight {
        gate = gate.with_noise_weight(matrix(seed + 4, e, HIDDEN)).unwrap();
    }
    if needs.token_table {
        let frequencies: Vec<u64> = (0..VOCABULARY as u64).map(|id| 1000 / (id + 1)).collect();
        let table = balanced_table(&frequencies, e, k).unwrap();
        gate = gate.with_token_table(table).unwrap();
    }
    gate
}

/// A gate whose logits are its input: the identity as its weight.
fn transparent(config: RouterConfig) -> Gate {
    let e = config.columns();
    let mut weight = vec![0.0; e * e];
    (0..e).for_each(|expert| weight[expert * e + expert] = 1.0);
    let weight = PackedMatrix::from_f32(&weight, e, e).unwrap();
    Gate::new(config, weight, None, None).unwrap()
}

/// A batch with all that a context can hold.
struct Batch {
    tokens: usize,
    x: Vec<f32>,
    ids: Vec<u32>,
    homes: Vec<u32>,
    domains: Domains,
    replayed: Vec<u32>,
}

impl Batch {
    fn new(seed: u64, tokens: usize, config: &RouterConfig) -> Self {
        let mut random = rng(seed);
        let (e, k, count) = (config.experts, config.top_k, 2);
        // Every domain holds an expert in two, one more or less.
        let of: Vec<[u32; 1]> = (0..e).map(|expert| [(expert % count) as u32]).collect();
        let frequencies = vec![1; tokens];
        Self {
            tokens,
            x: numbers(seed + 9, tokens * HIDDEN, 1.0),
            ids: (0..tokens)
                .map(|_| below(&mut random, VOCABULARY) as u32)
                .collect(),
            homes: (0..tokens)
                .map(|_| below(&mut random, count) as u32)
                .collect(),
            domains: Domains::new(&of, count).unwrap(),
            replayed: balanced_table(&frequencies, e, k).unwrap(),
        }
    }

    fn context(&self) -> GateContext<'_> {
        GateContext {
            seed: 11,
            step: 3,
            layer: 2,
            token_ids: Some(&self.ids),
            domains: Some(&self.domains),
            homes: Some(&self.homes),
            replay: Some(ReplayStep {
                experts: &self.replayed,
                weights: None,
            }),
            training: true,
            ..GateContext::default()
        }
    }
}

/// The formulas, in f64.
fn softmax(values: &[f64]) -> Vec<f64> {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = values.iter().map(|value| (value - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|exp| exp / sum).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Indices by falling key, ties to the lower one.
fn ranked(keys: &[f64]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..keys.len() as u32).collect();
    order.sort_by(|&a, &b| keys[b as usize].total_cmp(&keys[a as usize]));
    order
}

fn assert_close(found: f32, expected: f64) {
    let error = (f64::from(found) - expected).abs();
    assert!(
        error <= 2e-6 * (1.0 + expected.abs()),
        "{found}, expected {expected}"
    );
}

fn message<T: std::fmt::Debug>(result: Result<T, RoutingError>) -> String {
    result.unwrap_err().to_string()
}
