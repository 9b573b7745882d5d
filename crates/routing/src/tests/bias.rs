use super::{rng, uniform};
use crate::{BiasUpdate, balance::max_over_mean};

#[test]
fn signs_are_exact() {
    let update = BiasUpdate { rate: 0.5 };
    let mut bias = [1.0, 1.0, 1.0];
    update.apply(&mut bias, &[4, 5, 6]).unwrap();
    assert_eq!(bias, [1.5, 1.0, 0.5]);
    // 2^53 and its neighbour are one number in f64.
    let big = 1_u64 << 53;
    let mut bias = [0.0, 0.0];
    update.apply(&mut bias, &[big, big + 1]).unwrap();
    assert_eq!(bias, [0.5, -0.5]);
    update.apply(&mut bias, &[u64::MAX, u64::MAX]).unwrap();
    update.apply(&mut bias, &[0, 0]).unwrap();
    assert_eq!(bias, [0.5, -0.5]);
    BiasUpdate::default().apply(&mut [], &[]).unwrap();
    assert_eq!(BiasUpdate::default().rate, 1e-3);
}

#[test]
fn bad_updates_are_refused() {
    for rate in [-1.0, f32::NAN, f32::INFINITY] {
        let error = BiasUpdate { rate }.apply(&mut [0.0], &[1]).unwrap_err();
        assert!(error.to_string().starts_with("bias rate: "), "{error}");
    }
    let mut bias = [0.0, 0.0];
    let error = BiasUpdate::default().apply(&mut bias, &[1]).unwrap_err();
    assert!(error.to_string().starts_with("loads: 1"), "{error}");
}

/// A gate whose experts differ in popularity: sigmoid scores around a mean that falls with the
/// index, 2048 new tokens a step, 16 experts, top 2 by score plus bias.
///
/// The bar: from above 3 times the mean, the highest load comes below 1.2 times the mean within 60
/// steps of 0.005 and stays there. Even choices drawn at random would have 1.1: the highest of 16
/// counts around 256. On the way, averages over 20 steps never rise by more than 0.02.
#[test]
fn a_skewed_gate_evens_out() {
    const EXPERTS: usize = 16;
    let mut rng = rng(3);
    let mut bias = [0.0_f32; EXPERTS];
    let update = BiasUpdate { rate: 0.005 };
    let mut history = Vec::new();
    for _ in 0..120 {
        let mut loads = [0_u64; EXPERTS];
        for _ in 0..2048 {
            let mut keys = Vec::with_capacity(EXPERTS);
            for (expert, bias) in bias.iter().enumerate() {
                let logit = 1.5 - expert as f32 * 0.2 + uniform(&mut rng, 1.5);
                keys.push((1.0 / (1.0 + (-logit).exp()) + bias, expert));
            }
            keys.sort_by(|a, b| b.0.total_cmp(&a.0));
            keys[..2].iter().for_each(|&(_, expert)| loads[expert] += 1);
        }
        history.push(max_over_mean(&loads));
        update.apply(&mut bias, &loads).unwrap();
    }
    let means: Vec<f64> = history
        .chunks(20)
        .map(|chunk| chunk.iter().sum::<f64>() / 20.0)
        .collect();
    assert!(history[0] > 3.0, "{means:?}");
    assert!(
        means.windows(2).all(|pair| pair[1] < pair[0] + 0.02),
        "{means:?}"
    );
    assert!(means[3..].iter().all(|&mean| mean < 1.2), "{means:?}");
}
