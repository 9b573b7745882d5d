//! Balance losses against the formula of each system that has one, in f64.

use proptest::prelude::*;

use super::{below, cases, rng, uniform};
use crate::loss::{
    GlobalLoad, LossInput, Probability, gshard_loss, masked_z_loss, sequence_loss,
    switch_load_balancing_loss, switch_loss, z_loss,
};

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() < 2e-6 * right.abs().max(1.0)
}

/// Random logits, and distinct choices that have nothing to do with them.
struct Batch {
    logits: Vec<f32>,
    chosen: Vec<u32>,
    mask: Vec<bool>,
    shape: [usize; 4],
}

impl Batch {
    /// `shape` is sequences, tokens of each, experts, choices.
    fn new(shape: [usize; 4], seed: u64) -> Self {
        let [sequences, length, e, k] = shape;
        let tokens = sequences * length;
        let mut rng = rng(seed);
        let logits = (0..tokens * e).map(|_| uniform(&mut rng, 3.0)).collect();
        let mut chosen = Vec::new();
        for _ in 0..tokens {
            let first = below(&mut rng, e);
            chosen.extend((0..k).map(|slot| ((first + slot * slot.max(1)) % e) as u32));
            let row = chosen.len() - k;
            // Quadratic steps may repeat an expert; walk on instead.
            let distinct = (0..k).all(|a| (0..a).all(|b| chosen[row + a] != chosen[row + b]));
            if !distinct {
                chosen.truncate(row);
                chosen.extend((0..k).map(|slot| ((first + slot) % e) as u32));
            }
        }
        let mask = (0..tokens).map(|_| below(&mut rng, 4) > 0).collect();
        Self {
            logits,
            chosen,
            mask,
            shape,
        }
    }

    fn input(&self, masked: bool, probability: Probability) -> LossInput<'_> {
        let [sequences, length, experts, top_k] = self.shape;
        LossInput {
            logits: &self.logits,
            tokens: sequences * length,
            experts,
            top_k,
            chosen: &self.chosen,
            weights: &[],
            attention_mask: masked.then_some(&self.mask[..]),
            sequence: length,
            probability,
        }
    }
}

/// `[T][E]`.
fn probabilities(input: &LossInput<'_>) -> Vec<Vec<f64>> {
    let of = |row: &[f32]| {
        let (values, eps): (Vec<f64>, f64) = match input.probability {
            Probability::Softmax => (row.iter().map(|&z| f64::from(z).exp()).collect(), 0.0),
            Probability::Sigmoid => {
                let sigmoid = |&z: &f32| 1.0 / (1.0 + (-f64::from(z)).exp());
                (row.iter().map(sigmoid).collect(), 1e-20)
            }
        };
        let sum = values.iter().sum::<f64>() + eps;
        values.iter().map(|value| value / sum).collect()
    };
    input.logits.chunks(input.experts).map(of).collect()
}

/// The tokens of a sequence that count.
fn counted(input: &LossInput<'_>, sequence: usize) -> Vec<usize> {
    let first = sequence * input.sequence;
    let counts = |token: &usize| input.attention_mask.is_none_or(|mask| mask[*token]);
    (first..first + input.sequence).filter(counts).collect()
}

/// Megatron-LM: `Σ_e(Σ_t p · n) · E / (k · T · T_n)`, with `load` the tokens that make up `n`.
fn megatron(input: &LossInput<'_>, tokens: &[usize], load: &[usize]) -> f64 {
    if tokens.is_empty() {
        return 0.0;
    }
    let p = probabilities(input);
    let sum: f64 = (0..input.experts)
        .map(|e| {
            let has = |&&token: &&usize| {
                let row = token * input.top_k..(token + 1) * input.top_k;
                input.chosen[row].contains(&(e as u32))
            };
            let n = load.iter().filter(has).count() as f64;
            n * tokens.iter().map(|&token| p[token][e]).sum::<f64>()
        })
        .sum();
    let all = (input.top_k * tokens.len() * load.len()) as f64;
    sum * input.experts as f64 / all
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn every_form_is_its_formula(
        sequences in 1_usize..5, length in 1_usize..8, e in 1_usize..9, part in 0.0_f64..1.0,
        masked: bool, sigmoid: bool, seed: u64,
    ) {
        let k = 1 + (part * e as f64) as usize;
        let batch = Batch::new([sequences, length, e, k], seed);
        let probability = if sigmoid { Probability::Sigmoid } else { Probability::Softmax };
        let input = batch.input(masked, probability);
        let by_sequence: Vec<Vec<usize>> =
            (0..sequences).map(|sequence| counted(&input, sequence)).collect();
        let all: Vec<usize> = by_sequence.concat();

        let found = switch_loss(&input).unwrap();
        prop_assert!(close(found, megatron(&input, &all, &all)), "switch {}", found);

        let own: Vec<f64> = by_sequence
            .iter()
            .filter(|tokens| !tokens.is_empty())
            .map(|tokens| megatron(&input, tokens, tokens))
            .collect();
        let mean = own.iter().sum::<f64>() / own.len().max(1) as f64;
        let found = sequence_loss(&input).unwrap();
        prop_assert!(close(found, mean), "sequence {} {}", found, mean);

        // Each sequence as a micro-batch.
        let mut global = GlobalLoad::new(e);
        let mut seen = Vec::new();
        for (sequence, tokens) in by_sequence.iter().enumerate() {
            let rows = sequence * length..(sequence + 1) * length;
            let micro = LossInput {
                logits: &input.logits[rows.start * e..rows.end * e],
                chosen: &input.chosen[rows.start * k..rows.end * k],
                attention_mask: input.attention_mask.map(|mask| &mask[rows]),
                tokens: length,
                ..input
            };
            seen.extend(tokens);
            let (found, expected) = (global.add(&micro).unwrap(), megatron(&input, tokens, &seen));
            prop_assert!(close(found, expected), "global {} {}", found, expected);
        }
        prop_assert_eq!(global.load().iter().sum::<u64>(), (all.len() * k) as u64);

        // GShard in the words of DeepSpeed's top-2 gate and of Tutel.
        let p = probabilities(&input);
        let sum_of = |tokens: &[usize], expert: usize| -> f64 {
            tokens.iter().map(|&token| p[token][expert]).sum()
        };
        let t = all.len().max(1) as f64;
        let (mut deepspeed, mut tutel) = (0.0, 0.0);
        for expert in 0..e {
            let first = |&&token: &&usize| input.chosen[token * k] == expert as u32;
            let count = all.iter().filter(first).count() as f64;
            let sum = sum_of(&all, expert);
            deepspeed += (sum / t) * (count / t) / e as f64 * (e * e) as f64;
            tutel += sum * (count * (e as f64 / t)) / t;
        }
        let found = gshard_loss(&input).unwrap();
        prop_assert!(close(found, deepspeed) && close(found, tutel), "gshard {}", found);

        // Switch of transformers: mean over batches and experts of f · P, times E².
        let (mut sum, mut groups) = (0.0, 0.0);
        for tokens in by_sequence.iter().filter(|tokens| !tokens.is_empty()) {
            groups += 1.0;
            let n = tokens.len() as f64;
            for expert in 0..e {
                let is_highest = |&&token: &&usize| {
                    let row = &input.logits[token * e..(token + 1) * e];
                    row[..expert].iter().all(|&z| z < row[expert])
                        && row[expert..].iter().all(|&z| z <= row[expert])
                };
                let share = tokens.iter().filter(is_highest).count() as f64 / n;
                sum += share * sum_of(tokens, expert) / n;
            }
        }
        let expected = if groups == 0.0 { 0.0 } else { sum / (groups * e as f64) * (e * e) as f64 };
        let found = switch_load_balancing_loss(&input).unwrap();
        prop_assert!(close(found, expected), "transformers {} {}", found, expected);

        let kept: Vec<f32> =
            all.iter().flat_map(|&token| &input.logits[token * e..(token + 1) * e]).copied().collect();
        prop_assert_eq!(masked_z_loss(&input).unwrap(), z_loss(&kept, e).unwrap());
    }
}

#[test]
fn ties_of_the_highest_logit_go_to_the_lower_expert() {
    let batch = LossInput {
        logits: &[1.0, 1.0, 0.0, 0.0],
        tokens: 2,
        experts: 2,
        top_k: 1,
        chosen: &[1, 1],
        weights: &[],
        attention_mask: None,
        sequence: 2,
        probability: Probability::Softmax,
    };
    assert_eq!(switch_load_balancing_loss(&batch).unwrap(), 1.0);
    // Sequences of one token: p is 1/2 either way.
    let single = LossInput {
        sequence: 1,
        ..batch
    };
    assert_eq!(switch_load_balancing_loss(&single).unwrap(), 1.0);
}

#[test]
fn an_even_batch_of_uneven_sequences() {
    let batch = LossInput {
        logits: &[9.0, -9.0, 9.0, -9.0, -9.0, 9.0, -9.0, 9.0],
        tokens: 4,
        experts: 2,
        top_k: 1,
        chosen: &[0, 0, 1, 1],
        weights: &[],
        attention_mask: None,
        sequence: 2,
        probability: Probability::Softmax,
    };
    assert!(close(switch_loss(&batch).unwrap(), 1.0));
    assert!(close(sequence_loss(&batch).unwrap(), 2.0));
    let masked = LossInput {
        attention_mask: Some(&[false; 4]),
        ..batch
    };
    for loss in [switch_loss, sequence_loss, gshard_loss, masked_z_loss] {
        assert_eq!(loss(&masked).unwrap(), 0.0);
    }
    assert_eq!(switch_load_balancing_loss(&masked).unwrap(), 0.0);
    let mut global = GlobalLoad::new(2);
    assert_eq!(global.add(&masked).unwrap(), 0.0);
    global.add(&batch).unwrap();
    assert_eq!(global.load(), [2, 2]);
    global.reset();
    assert_eq!(global, GlobalLoad::new(2));
}

#[test]
fn misfits_are_named() {
    let fine = LossInput {
        logits: &[0.0; 8],
        tokens: 4,
        experts: 2,
        top_k: 1,
        chosen: &[0, 1, 0, 1],
        weights: &[1.0; 4],
        attention_mask: Some(&[true; 4]),
        sequence: 2,
        probability: Probability::Softmax,
    };
    fine.check().unwrap();
    let refused = |input: LossInput<'_>| switch_loss(&input).unwrap_err().to_string();
    let with = |change: fn(&mut LossInput<'_>)| {
        let mut input = fine;
        change(&mut input);
        refused(input)
    };
    assert!(with(|input| input.experts = 0).starts_with("experts: 0"));
    assert!(with(|input| input.top_k = 3).starts_with("top_k: 3"));
    assert!(with(|input| input.sequence = 3).starts_with("sequence: 3"));
    assert!(with(|input| input.sequence = 0).starts_with("sequence: 0"));
    assert!(with(|input| input.logits = &[0.0; 7]).starts_with("logits: 7"));
    assert!(with(|input| input.chosen = &[0; 3]).starts_with("chosen: 3"));
    assert!(with(|input| input.weights = &[0.0; 3]).starts_with("weights: 3"));
    assert!(with(|input| input.attention_mask = Some(&[true])).starts_with("attention_mask: 1"));
    assert!(with(|input| input.chosen = &[0, 2, 0, 0]).contains("[token 1][slot 0]: 2"));
    assert!(
        with(|input| input.logits = &[0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0])
            .contains("[token 1][expert 1]: NaN")
    );
    assert!(
        with(|input| input.weights = &[0.0, f32::INFINITY, 0.0, 0.0])
            .contains("[token 1][slot 0]: inf")
    );
    assert!(GlobalLoad::new(3).add(&fine).is_err());
    let none = LossInput {
        logits: &[],
        chosen: &[],
        weights: &[],
        attention_mask: None,
        tokens: 0,
        sequence: 0,
        ..fine
    };
    assert_eq!(sequence_loss(&none).unwrap(), 0.0);
}
