use proptest::prelude::*;

use super::{super::cases, HIDDEN, assert_close, config, matrix, message, numbers, softmax, wide};
use crate::{Gate, GateContext, RouterConfig};

fn soft(e: usize, p: usize, scale: Option<f32>, seed: u64) -> Gate {
    let config = RouterConfig::soft(e, p, scale, expertmesh_kernels::Format::F32);
    Gate::new(config, matrix(seed, e * p, HIDDEN), None, None).unwrap()
}

/// Row by row, `[out, inner]` times a row.
fn product(weight: &[f64], row: &[f64]) -> Vec<f64> {
    let of = |column: &[f64]| column.iter().zip(row).map(|(w, x)| w * x).sum();
    weight.chunks(row.len()).map(of).collect()
}

fn normalised(rows: &[f64], scale: f64) -> Vec<f64> {
    rows.chunks(HIDDEN)
        .flat_map(|row| {
            let squares: f64 = row.iter().map(|x| x * x).sum();
            let divisor = (squares + 1e-6).sqrt() / scale;
            row.iter().map(move |x| x / divisor).collect::<Vec<f64>>()
        })
        .collect()
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn a_mixture_is_the_papers(
        seed in 0_u64..1 << 40, e in 1_usize..4, p in 1_usize..4, tokens in 0_usize..12,
        sequence in 0_usize..6, scaled: bool,
    ) {
        let scale = scaled.then_some(1.5);
        let (slots, gate) = (e * p, soft(e, p, scale, seed));
        let x = numbers(seed + 1, tokens * HIDDEN, 1.0);
        let padding: Vec<bool> = (0..tokens).map(|token| (seed >> (token % 40)) & 3 == 0).collect();
        let context = GateContext { padding: Some(&padding), sequence, ..GateContext::default() };
        let mix = gate.mix(&x, tokens, &context).unwrap();

        let mut phi = wide(&numbers(seed, slots * HIDDEN, 1.0));
        let mut rows = wide(&x);
        if scaled {
            (phi, rows) = (normalised(&phi, 1.5), normalised(&rows, 1.0));
        }
        let logits: Vec<Vec<f64>> = rows.chunks(HIDDEN).map(|row| product(&phi, row)).collect();
        let length = if sequence == 0 { tokens.max(1) } else { sequence };
        let starts: Vec<usize> = (0..tokens).step_by(length).collect();
        prop_assert_eq!(mix.slot_count(), starts.len() * slots);
        let (mut inputs, mut outputs) = (vec![0.0; mix.slot_count() * HIDDEN],
            vec![0.0; tokens * HIDDEN]);
        mix.slot_rows(&x, HIDDEN, 0..mix.slot_count(), &mut inputs).unwrap();
        // Experts that negate and add their slot's number.
        let results: Vec<f32> = inputs.iter().enumerate()
            .map(|(at, x)| (at / HIDDEN) as f32 - x).collect();
        mix.outputs(&results, HIDDEN, 0..tokens, &mut outputs).unwrap();

        for (group, &start) in starts.iter().enumerate() {
            let real: Vec<usize> = (start..tokens.min(start + length))
                .filter(|&token| !padding[token]).collect();
            for slot in 0..slots {
                let column: Vec<f64> = real.iter().map(|&token| logits[token][slot]).collect();
                let shares = softmax(&column);
                for element in 0..HIDDEN {
                    let mixed: f64 = real.iter().zip(&shares)
                        .map(|(token, share)| share * f64::from(x[token * HIDDEN + element])).sum();
                    assert_close(inputs[(group * slots + slot) * HIDDEN + element], mixed);
                }
            }
            for &token in &real {
                let shares = softmax(&logits[token]);
                for element in 0..HIDDEN {
                    let mixed: f64 = (0..slots).map(|slot| {
                        let at = (group * slots + slot) * HIDDEN + element;
                        shares[slot] * f64::from(results[at])
                    }).sum();
                    let found = f64::from(outputs[token * HIDDEN + element]);
                    prop_assert!((found - mixed).abs() < 1e-5 * (1.0 + mixed.abs()));
                }
            }
        }
        for token in (0..tokens).filter(|&token| padding[token]) {
            prop_assert!(mix.dispatch[token * slots..][..slots].iter().all(|&share| share == 0.0));
            prop_assert!(outputs[token * HIDDEN..][..HIDDEN].iter().all(|&value| value == 0.0));
        }
    }

    #[test]
    fn parts_of_a_mixture_are_the_whole(seed in 0_u64..1 << 40, cut in 0_usize..12) {
        let (gate, tokens) = (soft(3, 2, Some(2.0), seed), 12);
        let x = numbers(seed + 1, tokens * HIDDEN, 1.0);
        let context = GateContext { sequence: 6, ..GateContext::default() };
        let mix = gate.mix(&x, tokens, &context).unwrap();
        // The first stage is by rows.
        let mut logits = vec![0.0; tokens * 6];
        let (one, two) = logits.split_at_mut(cut * 6);
        gate.score_rows(&x[..cut * HIDDEN], &context, one).unwrap();
        gate.score_rows(&x[cut * HIDDEN..], &context, two).unwrap();
        prop_assert_eq!(&gate.mix_logits(&logits, &context).unwrap(), &mix);
        let rows = |range: std::ops::Range<usize>| {
            let mut out = vec![f32::NAN; range.len() * HIDDEN];
            mix.slot_rows(&x, HIDDEN, range, &mut out).unwrap();
            out
        };
        let whole = rows(0..12);
        prop_assert_eq!([rows(0..cut), rows(cut..12)].concat(), whole.clone());
        let rows = |range: std::ops::Range<usize>| {
            let mut out = vec![f32::NAN; range.len() * HIDDEN];
            mix.outputs(&whole, HIDDEN, range, &mut out).unwrap();
            out
        };
        prop_assert_eq!([rows(0..cut), rows(cut..12)].concat(), rows(0..12));
    }
}

#[test]
fn what_no_mixture_can_be_is_refused() {
    let gate = soft(2, 2, None, 1);
    let context = GateContext::default();
    let mix = gate.mix(&[1.0; 3 * HIDDEN], 3, &context).unwrap();
    let mut out = [0.0; HIDDEN];
    let x = [1.0; 3 * HIDDEN];
    assert_eq!(
        message(mix.slot_rows(&x, HIDDEN, 4..5, &mut out)),
        "slots: 4..5, expected a part of 0..4"
    );
    assert_eq!(
        message(mix.outputs(&x, HIDDEN, 0..1, &mut out)),
        "slot results: 36 elements, expected slots x hidden = 4 x 12"
    );
    assert!(message(mix.slot_rows(&x[1..], HIDDEN, 0..1, &mut out)).starts_with("hidden states"));
    let mut bad = x;
    bad[HIDDEN] = f32::INFINITY;
    let error = message(gate.mix(&bad, 3, &context));
    assert!(error.starts_with("logits[token 1][expert 0]"), "{error}");
    let other = super::gate(config("topk", 4, 2), 1);
    assert_eq!(
        message(other.mix(&x, 3, &context)),
        "kind: topk, expected soft, which mixes"
    );
    assert_eq!(
        message(Gate::new(
            config("soft:2", 4, 1),
            matrix(1, 4, 3),
            None,
            None
        )),
        "gate weight rows: 4, expected 8, one row for each slot of an expert"
    );
}
