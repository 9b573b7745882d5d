mod claims;
mod replay;

use expertmesh_experts::synthetic_gate;
use expertmesh_kernels::{Format, PackedMatrix};
use expertmesh_routing::{Gate, RouterConfig};

use super::*;

const SHAPE: WorkloadShape = WorkloadShape {
    tokens: 128,
    hidden: 64,
    experts: 8,
    top_k: 2,
};

/// Choices by expert that the real gate makes of `steps` steps.
fn routed(pattern: Pattern, shape: WorkloadShape, seed: u64, steps: u64) -> Vec<u64> {
    let gate = synthetic_gate(shape.experts, shape.hidden, seed, 0);
    let workload = Workload::new(pattern, shape, seed, Some(gate.clone())).unwrap();
    let weight = PackedMatrix::from_f32(&gate, shape.experts, shape.hidden).unwrap();
    let config = RouterConfig::mixtral(shape.experts, shape.top_k, Format::F32);
    let gate = Gate::new(config, weight, None, None).unwrap();
    let mut counts = vec![0; shape.experts];
    let mut rows = Vec::new();
    for step in 0..steps {
        workload.fill(step, &mut rows);
        let route = gate.route(&rows, shape.tokens, None).unwrap();
        for expert in route.experts {
            counts[expert as usize] += 1;
        }
    }
    counts
}

#[test]
fn the_gate_chooses_what_was_drawn() {
    for pattern in ["balanced", "zipf:1.3", "hot:0.7"] {
        let pattern: Pattern = pattern.parse().unwrap();
        let gate = synthetic_gate(SHAPE.experts, SHAPE.hidden, 3, 0);
        let workload = Workload::new(pattern, SHAPE, 3, Some(gate.clone())).unwrap();
        let drawn = workload.draws().unwrap().step(5);
        let mut rows = Vec::new();
        workload.fill(5, &mut rows);
        let weight = PackedMatrix::from_f32(&gate, SHAPE.experts, SHAPE.hidden).unwrap();
        let config = RouterConfig::mixtral(SHAPE.experts, SHAPE.top_k, Format::F32);
        let gate = Gate::new(config, weight, None, None).unwrap();
        let route = gate.route(&rows, SHAPE.tokens, None).unwrap();
        assert_eq!(route.experts, drawn, "{pattern}");
    }
}

#[test]
fn balanced_loads_differ_by_little_for_every_k() {
    for top_k in [1, 2, 3, 5, 8] {
        let shape = WorkloadShape { top_k, ..SHAPE };
        let counts = routed(Pattern::Balanced, shape, 11, 1);
        let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(max - min <= 2, "top-{top_k}: {counts:?}");
    }
}

#[test]
fn zipf_and_hot_give_the_share_they_claim() {
    for (pattern, top_k) in [
        ("zipf", 1),
        ("zipf", 2),
        ("zipf:2", 3),
        ("zipf:0", 2),
        ("hot", 2),
        ("hot:0.9", 1),
        ("hot:0.25", 8),
    ] {
        let pattern: Pattern = pattern.parse().unwrap();
        let shape = WorkloadShape { top_k, ..SHAPE };
        let counts = routed(pattern, shape, 5, 40);
        let gate = synthetic_gate(shape.experts, shape.hidden, 5, 0);
        let workload = Workload::new(pattern, shape, 5, Some(gate)).unwrap();
        let skew = Skew::of(counts.into_iter(), workload.claimed_share());
        let claimed = skew.claimed_share.unwrap();
        // 5120 tokens: a standard error of at most 0.007 of the tokens.
        let off = (skew.hottest_share - claimed) * top_k as f64;
        assert!(off.abs() < 0.03, "{pattern} top-{top_k}: {skew}");
    }
}

#[test]
fn a_share_of_zipf_agrees_with_counting_by_hand() {
    // Two draws of three experts with weights 1, 1/2, 1/3: the first is missed by (2, 3) and
    // (3, 2): 3/11 · (1/3)/(4/3) + 2/11 · (1/2)/(3/2).
    let missed = 3.0 / 11.0 * 0.25 + 2.0 / 11.0 / 3.0;
    let pattern = Pattern::Zipf { exponent: 1.0 };
    let shape = WorkloadShape {
        experts: 3,
        ..SHAPE
    };
    let share = Draws::new(pattern, shape, None, 0).unwrap().claimed_share();
    let share = share.unwrap();
    assert!((share - (1.0 - missed) / 2.0).abs() < 1e-5, "{share}");
}

#[test]
fn normal_rows_have_mean_zero_and_variance_one() {
    let workload = Workload::new(Pattern::Normal, SHAPE, 9, None).unwrap();
    let mut rows = Vec::new();
    workload.fill(0, &mut rows);
    assert_eq!(rows.len(), SHAPE.tokens * SHAPE.hidden);
    let n = rows.len() as f64;
    let mean: f64 = rows.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let variance: f64 = rows.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n;
    assert!(mean.abs() < 0.05, "mean {mean}");
    assert!((variance - 1.0).abs() < 0.06, "variance {variance}");
}

#[test]
fn steps_differ_and_seeds_repeat() {
    let gate = || Some(synthetic_gate(SHAPE.experts, SHAPE.hidden, 1, 0));
    for pattern in ["balanced", "zipf", "hot", "normal"] {
        let pattern: Pattern = pattern.parse().unwrap();
        let make = |seed, step| {
            let mut rows = vec![7.0; 3];
            let workload = Workload::new(pattern, SHAPE, seed, gate()).unwrap();
            workload.fill(step, &mut rows);
            rows
        };
        assert_eq!(make(1, 4), make(1, 4), "{pattern}");
        assert_ne!(make(1, 4), make(1, 5), "{pattern}");
        assert_ne!(make(1, 4), make(2, 4), "{pattern}");
    }
}

#[test]
fn patterns_are_spelled_as_they_print() {
    for text in [
        "balanced",
        "normal",
        "zipf:1",
        "zipf:0.5",
        "hot:0.5",
        "hot:1",
        "hot-experts:0.5",
        "hot-rank:0.25",
        "spread-hot:1",
        "source-ragged",
        "zero-expert-rank",
        "rotating-hotspot:3",
        "burst:10",
        "drift:7",
        "locality:0.3",
    ] {
        assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
    }
    for (short, long) in [
        ("zipf", "zipf:1"),
        ("w0", "balanced"),
        ("w1", "hot-experts:0.5"),
        ("w2:0.7", "hot-rank:0.7"),
        ("w3", "spread-hot:0.5"),
        ("w4", "source-ragged"),
        ("w5", "zero-expert-rank"),
        ("w6", "rotating-hotspot:1"),
        ("w7", "burst:10"),
        ("drift", "drift:10"),
        ("locality", "locality:0.264"),
    ] {
        assert_eq!(short.parse::<Pattern>().unwrap().to_string(), long);
    }
    for text in [
        "",
        "even",
        "zipf:-1",
        "zipf:x",
        "hot:0",
        "hot:1.5",
        "hot:nan",
        "balanced:2",
        "w4:1",
        "w6:0",
        "burst:1.5",
        "drift:-1",
        "locality:1.1",
        "hot-rank:0",
        "w8",
    ] {
        let error = text.parse::<Pattern>().unwrap_err();
        assert!(error.contains("expected balanced"), "{text}: {error}");
    }
}

#[test]
fn what_cannot_be_made_is_refused_by_name() {
    let error = Workload::new(Pattern::Balanced, SHAPE, 0, None).unwrap_err();
    assert!(
        error.to_string().contains("workload balanced: gate"),
        "{error}"
    );
    let many = WorkloadShape { top_k: 9, ..SHAPE };
    let error = Workload::new(Pattern::Normal, many, 0, None).unwrap_err();
    assert!(
        error.to_string().contains("top_k is 9, expected 1 to 8"),
        "{error}"
    );
    let error = Workload::fixed("in.safetensors", SHAPE, vec![0.0; 3], None).unwrap_err();
    assert!(error.to_string().contains("rows is 3 values"), "{error}");
}
