//! Losses of reference layers. Expected values: torch autograd in f64 (`switch`, `z`, `noisy`) and
//! Hugging Face transformers 5.23 in f32 (`switch_transformers`, `mixtral`).

use expertmesh_kernels::{Format, math};

use crate::loss::{
    LossInput, NoisyLogits, Probability, gshard_loss, importance_loss, load_balancing_loss,
    masked_z_loss, switch_load_balancing_loss, switch_loss, z_loss,
};

/// One section of the file, row after row.
fn section(name: &str) -> Vec<f32> {
    let text = include_str!("data/logits.txt");
    let heading = format!("[{name}]");
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let values: Vec<f32> = lines
        .take_while(|line| !line.starts_with('['))
        .flat_map(str::split_whitespace)
        .map(|number| number.parse().unwrap())
        .collect();
    assert!(!values.is_empty(), "no section {name}");
    values
}

/// The `k` highest of each row, by sorting.
fn choose(logits: &[f32], experts: usize, k: usize) -> Vec<u32> {
    let of_row = |row: &[f32]| {
        let mut order: Vec<u32> = (0..row.len() as u32).collect();
        order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
        order.truncate(k);
        order
    };
    logits.chunks(experts).flat_map(of_row).collect()
}

fn input<'a>(
    logits: &'a [f32],
    experts: usize,
    chosen: &'a [u32],
    sequence: usize,
) -> LossInput<'a> {
    let tokens = logits.len() / experts;
    LossInput {
        logits,
        tokens,
        experts,
        top_k: chosen.len() / tokens,
        chosen,
        weights: &[],
        attention_mask: None,
        sequence,
        probability: Probability::Softmax,
    }
}

#[track_caller]
fn same(found: f64, expected: f64) {
    let error = (found - expected).abs() / expected.abs();
    assert!(error < 1e-6, "{found} instead of {expected}: {error:e}");
}

#[test]
fn switch_by_autograd() {
    let logits = section("switch");
    let chosen = choose(&logits, 6, 1);
    let input = input(&logits, 6, &chosen, 20);
    let expected = 1.094_342_483_171_071_7;
    same(switch_loss(&input).unwrap(), expected);
    // With one choice a token, all forms over the whole batch are the same.
    same(gshard_loss(&input).unwrap(), expected);
    same(switch_load_balancing_loss(&input).unwrap(), expected);
}

#[test]
fn z_loss_by_autograd() {
    same(z_loss(&section("z"), 6).unwrap(), 17.526_737_595_336_815);
}

#[test]
fn importance_and_load_by_autograd() {
    let (clean, noise) = (section("noisy.clean"), section("noisy.noise"));
    let stddev: Vec<f32> = section("noisy.raw_stddev")
        .iter()
        .map(|&raw| math::softplus(raw) + 0.01)
        .collect();
    let noisy: Vec<f32> = (0..clean.len())
        .map(|at| clean[at] + noise[at] * stddev[at])
        .collect();
    let chosen = choose(&noisy, 6, 2);
    // The gate of the paper: softmax over the chosen noisy logits.
    let weights: Vec<f32> = (0..20)
        .flat_map(|token| {
            let of = |slot| noisy[token * 6 + chosen[token * 2 + slot] as usize];
            let mut pair = [of(0), of(1)];
            math::softmax(&mut pair);
            pair
        })
        .collect();
    let input = LossInput {
        weights: &weights,
        ..input(&noisy, 6, &chosen, 20)
    };
    let gate = NoisyLogits {
        clean: &clean,
        stddev: &stddev,
    };
    let importance = importance_loss(&input).unwrap();
    let load = gate.load_loss(&input).unwrap();
    same(importance + load, 0.170_135_135_882_379_02);
}

#[test]
fn switch_of_transformers() {
    let logits = section("switch_transformers");
    let chosen = choose(&logits, 4, 1);
    let input = input(&logits, 4, &chosen, 12);
    let loss = switch_load_balancing_loss(&input).unwrap();
    same(loss, f64::from(1.025_057_8_f32));
    same(z_loss(&logits, 4).unwrap(), f64::from(4.579_808_f32));
    assert_eq!(masked_z_loss(&input).unwrap(), z_loss(&logits, 4).unwrap());
}

#[test]
fn mixtral_of_transformers() {
    let (logits, mask) = (section("mixtral"), section("mixtral.mask"));
    let mask: Vec<bool> = mask.iter().map(|&counts| counts == 1.0).collect();
    let loss = |mask| load_balancing_loss(&[&logits], 8, 2, mask, Format::F32).unwrap();
    same(loss(None), f64::from(2.402_715_f32));
    same(loss(Some(&mask)), f64::from(2.389_405_5_f32));
}
