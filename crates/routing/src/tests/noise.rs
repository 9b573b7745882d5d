use super::noisy_loss::normal_cdf;
use crate::{
    Noise, NoiseKey, Purpose,
    noise::{Distribution, inverse_normal_at, philox},
};

const KEY: NoiseKey = NoiseKey {
    seed: 7,
    step: 3,
    layer: 1,
};

const PURPOSES: [Purpose; 5] = [
    Purpose::Jitter,
    Purpose::LogitNoise,
    Purpose::RSample,
    Purpose::SecondExpert,
    Purpose::RandomDrop,
];

#[test]
fn philox_gives_the_published_answers() {
    // The known answers of the Random123 distribution, `philox4x32 10`.
    let answers = [
        (
            [0; 4],
            [0; 2],
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
        ),
        (
            [u32::MAX; 4],
            [u32::MAX; 2],
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
        ),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    for (counter, key, expected) in answers {
        assert_eq!(philox(counter, key), expected);
    }
}

/// Computed by an implementation of its own; a change here changes every recorded run.
#[test]
fn the_stream_never_changes() {
    let noise = KEY.stream(Purpose::LogitNoise);
    assert_eq!(noise.uniform(5, 6), 16_593_091.0 / 16_777_216.0);
    assert_eq!(noise.open_uniform(5, 6), 16_593_091.0 / 16_777_216.0);
    assert!((noise.normal(5, 6) - 2.291_242_2).abs() < 2e-6);
    assert!((noise.gumbel(5, 6) - 4.506_649_5).abs() < 2e-6);
    let lots = KEY.stream(Purpose::RandomDrop);
    assert_eq!(
        [0, 1, 2].map(|lane| lots.word(0, lane)),
        [0x2b7d_ef94, 0x1822_e63e, 0x6da0_5628]
    );
    assert_eq!(lots.word(7, 1), 0xba47_2595);
}

#[test]
fn order_and_company_do_not_matter() {
    let noise = KEY.stream(Purpose::RSample);
    for distribution in [
        Distribution::Uniform,
        Distribution::OpenUniform,
        Distribution::Normal,
        Distribution::Gumbel,
    ] {
        let mut row = [0.0; 11];
        noise.fill(distribution, 42, &mut row);
        for lane in (0..11_u32).rev() {
            let value = noise.value(distribution, 42, lane);
            assert_eq!(row[lane as usize].to_bits(), value.to_bits());
        }
        let mut short = [0.0; 3];
        noise.fill(distribution, 42, &mut short);
        assert_eq!(short, row[..3]);
    }
}

#[test]
fn every_field_of_the_key_matters() {
    let words = |noise: Noise, token: u64| -> Vec<u32> {
        (0..8)
            .map(|lane| noise.uniform(token, lane).to_bits())
            .collect()
    };
    let mut streams: Vec<Vec<u32>> = PURPOSES
        .map(|purpose| words(KEY.stream(purpose), 9))
        .to_vec();
    // Low and high halves of every number.
    for bit in [0, 31, 32, 63] {
        let (seed, step) = (KEY.seed ^ 1 << bit, KEY.step ^ 1 << bit);
        streams.push(words(NoiseKey { seed, ..KEY }.stream(Purpose::Jitter), 9));
        streams.push(words(NoiseKey { step, ..KEY }.stream(Purpose::Jitter), 9));
        streams.push(words(KEY.stream(Purpose::Jitter), 9 ^ 1 << bit));
        let layer = KEY.layer ^ (1 << (bit % 32));
        streams.push(words(NoiseKey { layer, ..KEY }.stream(Purpose::Jitter), 9));
    }
    // The layers of bits 32 and 63 repeat those of 0 and 31.
    streams.sort();
    streams.dedup();
    assert_eq!(streams.len(), PURPOSES.len() + 3 * 4 + 2);
}

/// Mean and variance of 65 536 values, 64 lanes of 1024 tokens.
fn moments(distribution: Distribution) -> (f64, f64) {
    let noise = KEY.stream(Purpose::LogitNoise);
    let mut values = Vec::new();
    for token in 0..1024 {
        let mut row = [0.0; 64];
        noise.fill(distribution, token, &mut row);
        values.extend(row.map(f64::from));
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, squares / n)
}

#[test]
fn moments_are_those_of_the_distributions() {
    let pi = std::f64::consts::PI;
    // Bars are four standard errors of 65 536 independent values.
    for (distribution, mean, variance, bars) in [
        (Distribution::Uniform, 0.5, 1.0 / 12.0, (0.0046, 0.0012)),
        (Distribution::OpenUniform, 0.5, 1.0 / 12.0, (0.0046, 0.0012)),
        (Distribution::Normal, 0.0, 1.0, (0.0157, 0.0222)),
        (
            Distribution::Gumbel,
            0.577_215_664_9,
            pi * pi / 6.0,
            (0.0201, 0.0540),
        ),
    ] {
        let found = moments(distribution);
        assert!(
            (found.0 - mean).abs() < bars.0 && (found.1 - variance).abs() < bars.1,
            "{distribution:?}: {found:?}"
        );
    }
}

#[test]
fn neighbours_are_not_correlated() {
    // Tokens, lanes and purposes side by side: the mean of 16 384 products of values of variance
    // 1 has a standard error of 1/128; the bar is four of them.
    let noise = KEY.stream(Purpose::Jitter);
    let other = KEY.stream(Purpose::LogitNoise);
    let next_step = NoiseKey { step: 4, ..KEY }.stream(Purpose::Jitter);
    let mut sums = [0.0_f64; 4];
    for token in 0..1024 {
        for lane in 0..16 {
            let value = f64::from(noise.normal(token, lane));
            sums[0] += value * f64::from(noise.normal(token + 1, lane));
            sums[1] += value * f64::from(noise.normal(token, lane + 1));
            sums[2] += value * f64::from(other.normal(token, lane));
            sums[3] += value * f64::from(next_step.normal(token, lane));
        }
    }
    for sum in sums {
        assert!((sum / 16_384.0).abs() < 4.0 / 128.0, "{sums:?}");
    }
}

#[test]
fn the_gumbel_maximum_samples_the_softmax() {
    // P(expert) = softmax(logits): 1/7, 2/7, 4/7. Standard error at most 0.0055, bar four of it.
    let logits = [1_f32, 2.0, 4.0].map(f32::ln);
    let noise = KEY.stream(Purpose::RSample);
    let mut counts = [0_u32; 3];
    for token in 0..8192 {
        let mut row = [0.0; 3];
        noise.fill(Distribution::Gumbel, token, &mut row);
        let noisy: Vec<f32> = row.iter().zip(logits).map(|(g, z)| g + z).collect();
        let best = (0..3)
            .max_by(|&a, &b| noisy[a].total_cmp(&noisy[b]))
            .unwrap();
        counts[best] += 1;
    }
    for (count, share) in counts.iter().zip([1.0, 2.0, 4.0]) {
        let found = f64::from(*count) / 8192.0;
        assert!((found - share / 7.0).abs() < 0.022, "{counts:?}");
    }
}

#[test]
fn the_inverse_normal_is_accurate_to_its_ends() {
    // Both ends, the seams at 0.075 and 0.925, and a walk between.
    let grid = 1_u32 << 24;
    let mut numerators: Vec<u32> = (0..200).map(|i| 2 * i + 1).collect();
    numerators.extend((0..4000).map(|i| (i * 4194 + 1) | 1));
    numerators.extend((0..40).map(|i| (grid * 3 / 40 - 20 + i) | 1));
    numerators.extend(numerators.clone().iter().map(|n| grid - n));
    for numerator in numerators {
        let p = f64::from(numerator) / f64::from(grid);
        let z = inverse_normal_at(p as f32);
        let density = (-f64::from(z).powi(2) / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let error = ((normal_cdf(f64::from(z)) - p) / density).abs();
        assert!(
            error <= 5e-7 * f64::from(z).abs() + 1e-12,
            "p {p}: {z}, {error:e}"
        );
        assert_eq!(z, -inverse_normal_at(1.0 - p as f32));
    }
    assert!((inverse_normal_at(1.0 / grid as f32) + 5.294_704).abs() < 3e-6);
}
