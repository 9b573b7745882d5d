//! Nemotron-H with a latent size, against the model's own order of sums: one projection out of the
//! latent rows after the weighted sum, where the runtime has one for each expert.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::variation;
use expertmesh_checkpoint::{Checkpoint, LayerSource, TensorFile};
use expertmesh_experts::Scratch;
use expertmesh_kernels::{Format, bf16_round};
use safetensors::Dtype;

const LATENT: usize = 24;
const HIDDEN: usize = 32;
const FFN: usize = 16;
const PREFIX: &str = "backbone.layers.1.mixer.";

/// Reproducible weights, exact in bf16, for matrices with so many inputs.
fn weights(shape: [usize; 2], seed: usize) -> Vec<f32> {
    let bound = 1.5 / (shape[1] as f32).sqrt();
    (0..shape[0] * shape[1])
        .map(|i| {
            let noise = (i * 7919 + seed * 104_729 + i * i * 31) % 2003;
            bf16_round((noise as f32 / 1001.0 - 1.0) * bound)
        })
        .collect()
}

/// The golden case with matrices for latent rows, and those matrices by name.
fn checkpoint() -> (tempfile::TempDir, BTreeMap<String, Vec<f32>>) {
    let mut all = BTreeMap::new();
    let directory = variation("nemotron_h", |tensors| {
        let mut put = |name: String, shape: [usize; 2], seed: usize| {
            let values = weights(shape, seed);
            let bytes = values
                .iter()
                .flat_map(|value| half::bf16::from_f32(*value).to_le_bytes())
                .collect();
            let tensor = (Dtype::BF16, shape.to_vec(), bytes);
            tensors.0.insert(format!("{PREFIX}{name}"), tensor);
            all.insert(name, values);
        };
        put("fc1_latent_proj.weight".to_owned(), [LATENT, HIDDEN], 100);
        put("fc2_latent_proj.weight".to_owned(), [HIDDEN, LATENT], 101);
        for expert in 0..8 {
            let name = |part: &str| format!("experts.{expert}.{part}.weight");
            put(name("up_proj"), [FFN, LATENT], expert);
            put(name("down_proj"), [LATENT, FFN], 50 + expert);
        }
    });
    let path = directory.path().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    let latent = format!("\"moe_latent_size\": {LATENT}");
    let changed = config.replace("\"moe_latent_size\": null", &latent);
    assert_ne!(changed, config);
    fs::write(&path, changed).unwrap();
    (directory, all)
}

#[test]
fn latent_experts_agree_with_one_projection_after_the_sum() {
    let (directory, all) = checkpoint();
    let input = common::golden("nemotron_h").join("input.safetensors");
    let (_, x) = TensorFile::open(&input)
        .unwrap()
        .f32("hidden_states")
        .unwrap();
    let tokens = x.len() / HIDDEN;
    for dtype in [Format::F32, Format::Bf16] {
        let round = |value: f64| match dtype {
            Format::F32 => value,
            Format::Bf16 => f64::from(bf16_round(value as f32)),
        };
        let linear = |x: &[f64], name: &str| -> Vec<f64> {
            let rows = all[name].chunks_exact(x.len());
            rows.map(|w| round(x.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum()))
                .collect()
        };
        let layer = Checkpoint::open(directory.path()).unwrap();
        let layer = layer.layer(1, dtype).unwrap();
        let route = layer.gate().unwrap().route(&x, tokens, None).unwrap();
        let top_k = layer.spec().top_k;
        let experts: Vec<_> = (0..8).map(|e| layer.expert(e).unwrap()).collect();
        let (mut y, mut scratch) = (vec![0.0; HIDDEN], Scratch::default());
        let (mut worst, mut largest, mut equal) = (0_f64, 0_f64, 0);
        for (token, x) in x.chunks_exact(HIDDEN).enumerate() {
            let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let latent = linear(&wide, "fc1_latent_proj.weight");
            let (mut sum, mut got) = (vec![0.0; LATENT], vec![0.0_f32; HIDDEN]);
            for slot in token * top_k..(token + 1) * top_k {
                let (expert, weight) = (route.experts[slot] as usize, route.weights[slot]);
                let name = |part: &str| format!("experts.{expert}.{part}.weight");
                let up = linear(&latent, &name("up_proj"));
                let up: Vec<f64> = up.iter().map(|u| round(u.max(0.0).powi(2))).collect();
                let down = linear(&up, &name("down_proj"));
                let terms = sum.iter_mut().zip(down);
                terms.for_each(|(sum, down)| *sum += f64::from(weight) * down);
                experts[expert].forward(x, &mut y, &mut scratch).unwrap();
                got.iter_mut()
                    .zip(&y)
                    .for_each(|(sum, y)| *sum += weight * y);
            }
            sum.iter_mut().for_each(|sum| *sum = round(*sum));
            let expected = linear(&sum, "fc2_latent_proj.weight");
            for (got, expected) in got.iter().zip(expected) {
                let got = round(f64::from(*got));
                equal += usize::from(got == expected);
                worst = worst.max((got - expected).abs());
                largest = largest.max(expected.abs());
            }
        }
        let share = equal as f64 / x.len() as f64;
        println!("{dtype}: off by {:.1e}, {share} equal", worst / largest);
        let limit = if dtype == Format::F32 { 2e-5 } else { 3e-2 };
        assert!(worst / largest <= limit, "{dtype}: {worst} of {largest}");
    }
}
