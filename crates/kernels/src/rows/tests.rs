#![allow(clippy::cast_sign_loss, reason = "shapes drawn by the tests")]

use proptest::prelude::*;

use super::highest::highest_on;
use super::runs::highest_of_runs_on;
use super::*;
use crate::isa::Isa;

/// The indices of the highest `k` keys by a stable sort.
fn sorted(keys: &[f32], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..).take(keys.len()).collect();
    order.sort_by(|&a, &b| keys[b as usize].partial_cmp(&keys[a as usize]).unwrap());
    order.truncate(k);
    order
}

/// What [`highest_of_runs`] chooses from, by sorting runs and groups.
fn limited(row: &[f32], runs: &Runs) -> (Vec<f32>, Vec<bool>) {
    let size = row.len() / runs.n;
    let ranks: Vec<f32> = row
        .chunks(size)
        .map(|run| {
            let mut run = run.to_vec();
            run.sort_by(|a, b| b.partial_cmp(a).unwrap());
            let second = run.get(1).copied().unwrap_or(f32::NEG_INFINITY);
            if runs.by_two { run[0] + second } else { run[0] }
        })
        .collect();
    let best = sorted(&ranks, runs.keep);
    let kept: Vec<bool> = (0..).take(runs.n).map(|run| best.contains(&run)).collect();
    let keys = row
        .iter()
        .enumerate()
        .map(|(at, &key)| if kept[at / size] { key } else { runs.fill })
        .collect();
    (keys, kept)
}

/// Rows with all-different, few-valued, negative-zero, infinite and very large keys.
fn keys(rows: usize, width: usize, seed: u64, kind: u64) -> Vec<f32> {
    let mut state = seed;
    (0..rows * width)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let bits = (state >> 33) as u32;
            match kind % 4 {
                0 => bits as f32 - (1 << 30) as f32,
                1 => [-1.0, -0.0, 0.0, 0.5, f32::NEG_INFINITY][bits as usize % 5],
                2 => [f32::MIN, f32::MAX, 0.0, -1e-45, 1e-45][bits as usize % 5],
                _ => (bits % 100) as f32 * 0.01,
            }
        })
        .collect()
}

#[test]
fn known_rows() {
    let mut indices = [u32::MAX; 3];
    highest(&[1.0, 3.0, 2.0, 3.0], 4, 3, &mut indices);
    assert_eq!(indices, [1, 3, 2]);
    highest(&[0.0, -0.0, 0.0, -0.0], 4, 3, &mut indices);
    assert_eq!(indices, [0, 1, 2], "-0 and 0 are one key");
    highest(&[f32::NEG_INFINITY; 1000], 1000, 3, &mut indices);
    assert_eq!(indices, [0, 1, 2]);
    let mut two_rows = [u32::MAX; 2];
    highest(&[1.0, 2.0, 2.0, 1.0], 2, 1, &mut two_rows);
    assert_eq!(two_rows, [1, 0]);
}

#[test]
fn a_magnitude_is_finite_where_all_values_are() {
    for isa in Isa::available() {
        for length in 1..70 {
            let mut values = vec![-1.0; length];
            assert_eq!(super::magnitude::on(isa, &values), 1.0);
            for at in 0..length {
                for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    values[at] = bad;
                    let found = super::magnitude::on(isa, &values);
                    assert!(!found.is_finite(), "{bad} at {at}");
                }
                values[at] = 0.5;
            }
        }
        assert_eq!(super::magnitude::on(isa, &[]), 0.0);
    }
}

#[test]
fn a_bias_stays_in_the_finite_range() {
    for isa in Isa::available() {
        let mut sums = [f32::NAN; 4];
        let rows = [f32::MAX, 1.0, f32::MIN, -1.0];
        super::add_bias::on(isa, &rows, &[f32::MAX, 0.5], &mut sums);
        assert_eq!(sums, [f32::MAX, 1.5, 0.0, -0.5]);
        super::add_bias::on(isa, &[f32::MIN], &[f32::MIN], &mut sums[..1]);
        assert_eq!(sums[0], f32::MIN);
    }
}

#[test]
fn scores_and_sums_are_those_of_two_steps() {
    // Of three rows the second needs the careful sigmoid.
    let values: Vec<f32> = (0..75).map(|at| (at as f32 - 37.0) * 2.4).collect();
    let bias: Vec<f32> = (0..25)
        .map(|at| [f32::MAX, 0.1, f32::MIN][at % 3])
        .collect();
    for isa in Isa::available() {
        let (mut scores, mut sums) = (vec![f32::NAN; 75], vec![f32::NAN; 75]);
        let most = super::sigmoid_and_sum::on(isa, &values, &bias, &mut scores, &mut sums, &[]);
        assert_eq!(most, super::magnitude::on(isa, &values));
        let (mut alone, mut added) = (vec![f32::NAN; 75], vec![f32::NAN; 75]);
        super::sigmoid::on(isa, &values, &mut alone, &[]);
        super::add_bias::on(isa, &alone, &bias, &mut added);
        assert_eq!((scores, sums), (alone, added));
        let mut bad = values.clone();
        bad[40] = f32::NAN;
        let (mut scores, mut sums) = (vec![0.0; 75], vec![0.0; 75]);
        let most = super::sigmoid_and_sum::on(isa, &bad, &bias, &mut scores, &mut sums, &[]);
        assert!(!most.is_finite());
    }
}

#[test]
fn scores_have_the_bits_of_the_scalar_functions_on_every_kernel() {
    // Every 9973rd float up to the magnitude where the cheaper exponential ends, and all others.
    let sweep = |most: f32| {
        (0..=u32::MAX)
            .step_by(9973)
            .map(f32::from_bits)
            .filter(move |value| value.abs() <= most)
            .chain([most, -most, 0.0, -0.0])
    };
    for most in [math::NORMAL, f32::MAX] {
        let values: Vec<f32> = sweep(most).collect();
        let expected: Vec<u32> = values.iter().map(|&x| math::sigmoid(x).to_bits()).collect();
        for isa in Isa::available() {
            let mut scores = vec![f32::NAN; values.len()];
            let found = super::sigmoid::on(isa, &values, &mut scores, &values[..100]);
            assert_eq!(found, most);
            assert!(
                scores
                    .iter()
                    .map(|score| score.to_bits())
                    .eq(expected.iter().copied())
            );
        }
    }
    for isa in Isa::available() {
        let values: Vec<f32> = sweep(80.0).step_by(999).collect();
        let values = &values[..values.len() / 21 * 21];
        let mut expected = values.to_vec();
        expected.chunks_mut(21).for_each(math::softmax);
        let mut scores = vec![f32::NAN; values.len()];
        super::softmax::on(isa, values, 21, &mut scores, &values[..30]);
        assert!(
            scores
                .iter()
                .zip(&expected)
                .all(|(a, b)| a.to_bits() == b.to_bits())
        );
    }
}

#[test]
fn shares_are_those_of_one_choice_after_another_on_every_kernel() {
    let scores: Vec<f32> = (1_u16..=90).map(|at| 1.0 / f32::from(at)).collect();
    let (width, of) = (
        30,
        Shares {
            eps: 1e-20,
            scale: 2.5,
        },
    );
    for k in [1, 7, 8, 9, 16] {
        let indices: Vec<u32> = (0..3 * k).map(|at| at as u32 * 7 % 30).collect();
        let mut expected = Vec::new();
        for (row, indices) in scores.chunks(width).zip(indices.chunks(k)) {
            let sum = indices
                .iter()
                .fold(0.0, |sum, &index| sum + row[index as usize]);
            let share = |&index: &u32| row[index as usize] / (sum + of.eps) * of.scale;
            expected.extend(indices.iter().map(share));
        }
        for isa in Isa::available() {
            let mut weights = vec![f32::NAN; 3 * k];
            super::shares::on(isa, &scores, width, &indices, k, &of, &mut weights);
            assert_eq!(weights, expected, "{isa:?}, {k}");
        }
    }
}

#[test]
#[should_panic(expected = "17 of 20")]
fn no_more_than_the_most() {
    highest(&[0.0; 20], 20, 17, &mut [0; 17]);
}

#[test]
#[should_panic(expected = "3 runs of 8 keys")]
fn runs_are_of_one_length() {
    let runs = Runs {
        n: 3,
        keep: 1,
        by_two: false,
        fill: 0.0,
    };
    highest_of_runs(&[0.0; 8], 8, 1, &runs, &mut [false; 3], &mut [0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_highest_are_those_of_a_stable_sort_on_every_kernel(
        width in prop_oneof![1..40usize, 1..=MAX_WIDTH, Just(256)],
        part in 0.0..1.0f64,
        rows in 0..4usize,
        seed: u64,
        kind: u64,
    ) {
        let most = MAX_HIGHEST.min(width);
        let k = (1 + (part * most as f64) as usize).min(most);
        let keys = keys(rows, width, seed, kind);
        let expected: Vec<u32> = keys.chunks(width).flat_map(|row| sorted(row, k)).collect();
        for isa in Isa::available() {
            let mut indices = vec![u32::MAX; rows * k];
            highest_on(isa, &keys, width, k, &mut indices);
            prop_assert_eq!(&indices, &expected, "{:?}", isa);
        }
    }

    #[test]
    fn the_highest_of_the_best_runs_are_those_of_stable_sorts_on_every_kernel(
        n in 1..=MAX_RUNS,
        size in prop_oneof![1..64usize, prop::sample::select(vec![8usize, 16, 32, 64])],
        keep in 0.0..1.0f64,
        part in 0.0..1.0f64,
        by_two: bool,
        fill in prop::sample::select(vec![f32::NEG_INFINITY, 0.0, 0.5, -7.0]),
        rows in 0..6usize,
        seed: u64,
        kind: u64,
    ) {
        // Two infinite keys of one sign add up to themselves; a run of one has no second.
        let runs = Runs { n, keep: 1 + (keep * n as f64) as usize, by_two: by_two && size > 1, fill };
        let kind = if runs.by_two { kind % 2 * 3 } else { kind };
        let width = n * size;
        let most = MAX_HIGHEST.min(width);
        let k = 1 + (part * most as f64) as usize;
        let keys = keys(rows, width, seed, kind);
        let (filled, kept): (Vec<_>, Vec<_>) = keys.chunks(width).map(|row| limited(row, &runs)).unzip();
        let expected: Vec<u32> = filled.iter().flat_map(|row| sorted(row, k)).collect();
        for isa in Isa::available() {
            let (mut indices, mut stays) = (vec![u32::MAX; rows * k], vec![false; rows * n]);
            highest_of_runs_on(isa, &keys, width, k, &runs, &mut stays, &mut indices);
            prop_assert_eq!(&indices, &expected, "{:?}", isa);
            prop_assert_eq!(&stays, &kept.concat(), "{:?}", isa);
        }
    }
}
