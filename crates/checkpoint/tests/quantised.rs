//! Weights of fewer bits, and other layouts of the same weights: the same answers to the bit.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking"
)]

mod common;

use std::fs;
use std::path::Path;

use common::{Tensors, golden, variation};
use expertmesh_checkpoint::{Checkpoint, LayerSource, describe};
use expertmesh_experts::Scratch;
use expertmesh_kernels::Format;
use safetensors::Dtype;

type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// The bits of what gate, shared expert and every routed expert of layer 1 answer to three rows.
fn answers(directory: &Path, dtype: Format) -> Vec<u32> {
    let layer = Checkpoint::open(directory)
        .unwrap()
        .layer(1, dtype)
        .unwrap();
    let spec = layer.spec();
    let x: Vec<f32> = (0..3 * spec.hidden).map(|i| (i % 7) as f32 - 3.0).collect();
    let mut values = layer.gate().unwrap().route(&x, 3, None).unwrap().logits;
    let mut y = vec![0.0; x.len()];
    let mut scratch = Scratch::default();
    let mut bytes = 0;
    for expert in 0..spec.experts {
        let expert = layer.expert(expert).unwrap();
        expert.forward(&x, &mut y, &mut scratch).unwrap();
        bytes += expert.weight_bytes() as u64;
        values.extend(&y);
    }
    assert_eq!(bytes, spec.weights.experts.bytes);
    if let Some(shared) = layer.shared().unwrap() {
        shared.forward(&x, &mut y, &mut scratch).unwrap();
        values.extend(&y);
    }
    values.into_iter().map(f32::to_bits).collect()
}

fn same_answers(a: &Path, b: &Path, what: &str) {
    for dtype in [Format::F32, Format::Bf16] {
        assert_eq!(answers(a, dtype), answers(b, dtype), "{what} {dtype}");
    }
}

fn layer_error(directory: &Path) -> String {
    let checkpoint = Checkpoint::open(directory).unwrap();
    checkpoint.layer(1, Format::F32).unwrap_err().to_string()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// The number of an F8_E4M3 byte, by the format's definition in f64.
fn e4m3(byte: u8) -> f32 {
    let (sign, exponent, mantissa) = (byte >> 7, i32::from(byte >> 3 & 15), f64::from(byte & 7));
    let size = if exponent == 0 {
        mantissa / 8.0 * 2_f64.powi(-6)
    } else {
        (1.0 + mantissa / 8.0) * 2_f64.powi(exponent - 7)
    };
    (if sign == 1 { -size } else { size }) as f32
}

const BLOCK: [usize; 2] = [12, 10];

/// How the scales of F8 weights are stored.
#[derive(Clone, Copy, PartialEq)]
enum Scales {
    F32,
    Powers,
}

/// The case with random F8 weights in place of those of its experts, or with their products with
/// their scales as F32.
fn fp8(case: &str, scales: Scales, multiplied: bool) -> tempfile::TempDir {
    let directory = variation(case, |tensors| {
        let names: Vec<String> = tensors.0.keys().cloned().collect();
        let experts = names.iter().filter(|name| name.contains("_proj.weight"));
        for (at, name) in experts.enumerate() {
            let tensor = tensors.0.get_mut(name).unwrap();
            let (rows, columns) = (tensor.1[0], tensor.1[1]);
            // No NaN: 0x7f and 0xff are left out.
            let bytes: Vec<u8> = (0..rows * columns)
                .map(|i| ((i * 37 + at * 11) % 127) as u8 | (((i / 3) % 2) as u8) << 7)
                .collect();
            let shape = [rows.div_ceil(BLOCK[0]), columns.div_ceil(BLOCK[1])];
            let powers: Vec<u8> = (0..shape[0] * shape[1])
                .map(|i| 118 + (i % 5) as u8)
                .collect();
            let scale: Vec<f32> = powers
                .iter()
                .map(|power| match scales {
                    Scales::Powers => 2_f32.powi(i32::from(*power) - 127),
                    Scales::F32 => 0.001 * f32::from(*power),
                })
                .collect();
            if multiplied {
                let product = |(i, byte): (usize, &u8)| {
                    let block = i / columns / BLOCK[0] * shape[1] + i % columns / BLOCK[1];
                    e4m3(*byte) * scale[block]
                };
                let values: Vec<f32> = bytes.iter().enumerate().map(product).collect();
                *tensor = (Dtype::F32, vec![rows, columns], f32s(&values));
                continue;
            }
            *tensor = (Dtype::F8_E4M3, vec![rows, columns], bytes);
            let stored: Tensor = match scales {
                Scales::F32 => (Dtype::F32, shape.to_vec(), f32s(&scale)),
                Scales::Powers if at % 2 == 0 => (Dtype::U8, shape.to_vec(), powers),
                Scales::Powers => (Dtype::F8_E8M0, shape.to_vec(), powers),
            };
            tensors.0.insert(format!("{name}_scale_inv"), stored);
        }
    });
    let path = directory.path().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    let block = format!(
        r#""quantization_config": {{"quant_method": "fp8", "weight_block_size": {BLOCK:?}}}, "model_type""#
    );
    fs::write(&path, config.replacen("\"model_type\"", &block, 1)).unwrap();
    directory
}

#[test]
fn f8_weights_are_multiplied_by_the_scale_of_their_block() {
    for case in ["deepseek_v3", "qwen3_moe"] {
        for scales in [Scales::F32, Scales::Powers] {
            let (small, wide) = (fp8(case, scales, false), fp8(case, scales, true));
            same_answers(small.path(), wide.path(), case);
        }
    }
    let seen = describe(fp8("qwen3_moe", Scales::F32, false).path()).unwrap();
    let [rows, columns] = BLOCK;
    let format = format!("FP8, {rows}x{columns} blocks");
    assert_eq!(seen.moe_layers[1].formats, [format]);
    let weights = seen.moe_layers[1].stored;
    // A byte a weight, and scales of blocks of 12 by 10 in [16, 32] twice and [32, 16].
    assert_eq!(weights.expert.bytes, 3 * 512 + 4 * (2 * 8 + 6));
    assert_eq!(seen.moe_layers[1].bf16.expert.bytes, 2 * 3 * 512);
}

#[test]
fn f8_scales_that_do_not_fit_are_named() {
    let name = "model.layers.1.mlp.experts.3.up_proj.weight_scale_inv";
    let said = |change: &dyn Fn(&mut Tensors)| {
        let directory = fp8("qwen3_moe", Scales::Powers, false);
        let path = directory.path().join("model.safetensors");
        let mut tensors = Tensors::read(&path);
        change(&mut tensors);
        tensors.write(&path);
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        match checkpoint.layer(1, Format::F32) {
            Err(error) => error.to_string(),
            Ok(layer) => layer.expert(3).err().unwrap().to_string(),
        }
    };
    let gone = said(&|tensors| drop(tensors.0.remove(name)));
    assert!(
        gone.starts_with(&format!("tensor \"{name}\" is missing")),
        "{gone}"
    );
    let turned = said(&|tensors| tensors.0.get_mut(name).unwrap().1.reverse());
    let words = "has shape [4, 2], expected [2, 4], a scale for every 12 by 10 of 16 by 32 weights";
    assert!(turned.contains(name) && turned.ends_with(words), "{turned}");
    let whole = said(&|tensors| tensors.0.get_mut(name).unwrap().0 = Dtype::I8);
    assert!(
        whole.ends_with("is I8, expected F32, BF16, U8 or F8_E8M0"),
        "{whole}"
    );
    let nan = said(&|tensors| tensors.0.get_mut(name).unwrap().2[5] = 255);
    assert!(
        nan.ends_with("holds 255 at element 5, expected E8M0 scales, 0 to 254"),
        "{nan}"
    );
}

#[test]
fn mxfp4_is_the_same_as_its_numbers_in_bf16() {
    const NUMBERS: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let wide = variation("gpt_oss_mxfp4", |tensors| {
        for matrix in ["gate_up_proj", "down_proj"] {
            let name = format!("model.layers.1.mlp.experts.{matrix}");
            let (_, shape, blocks) = tensors.0.remove(&format!("{name}_blocks")).unwrap();
            let (_, _, scales) = tensors.0.remove(&format!("{name}_scales")).unwrap();
            let [experts, rows, inner] = [shape[0], shape[1], shape[2] * 32];
            let element = |at: usize| {
                let nibble = blocks[at / 2] >> (4 * (at % 2)) & 15;
                let size = NUMBERS[usize::from(nibble & 7)];
                let scaled = size * 2_f32.powi(i32::from(scales[at / 32]) - 127);
                if nibble > 7 { -scaled } else { scaled }
            };
            // Turned around: the bf16 layout has inputs before outputs.
            let mut bytes = Vec::new();
            for expert in 0..experts {
                for input in 0..inner {
                    for row in 0..rows {
                        let value = element((expert * rows + row) * inner + input);
                        bytes.extend(half::bf16::from_f32(value).to_le_bytes());
                    }
                }
            }
            let tensor = (Dtype::BF16, vec![experts, inner, rows], bytes);
            tensors.0.insert(name, tensor);
        }
    });
    same_answers(&golden("gpt_oss_mxfp4"), wide.path(), "mxfp4");
    let seen = describe(&golden("gpt_oss_mxfp4")).unwrap();
    let formats = |seen: &expertmesh_checkpoint::Inspection| seen.moe_layers[1].formats.clone();
    assert_eq!(formats(&seen), ["MXFP4"]);
    assert_eq!(formats(&describe(&golden("gpt_oss")).unwrap()), ["BF16"]);
    let (stored, loaded) = (seen.moe_layers[1].stored, seen.moe_layers[1].f32);
    let (matrices, biases) = (3 * 64 * 64, 3 * 64);
    assert_eq!(stored.expert.parameters, matrices + biases);
    assert_eq!(
        stored.expert.bytes,
        matrices / 2 + matrices / 32 + 2 * biases
    );
    assert_eq!(loaded.expert.bytes, 2 * matrices + 4 * biases);
}

#[test]
fn mxfp4_that_does_not_fit_is_named() {
    let (blocks, scales) = (
        "model.layers.1.mlp.experts.down_proj_blocks",
        "model.layers.1.mlp.experts.down_proj_scales",
    );
    let with =
        |change: &dyn Fn(&mut Tensors)| variation("gpt_oss_mxfp4", |tensors| change(tensors));
    let gone = with(&|tensors| drop(tensors.0.remove(scales)));
    assert!(layer_error(gone.path()).contains(scales));
    let turned = with(&|tensors| tensors.0.get_mut(scales).unwrap().1.reverse());
    let said = layer_error(turned.path());
    assert!(
        said.ends_with("expected [4, 64, 2], a scale for every 32 of 64 inputs"),
        "{said}"
    );
    let wide = with(&|tensors| tensors.0.get_mut(blocks).unwrap().0 = Dtype::I8);
    let said = layer_error(wide.path());
    assert!(
        said.ends_with("is I8, expected U8, two MXFP4 numbers a byte"),
        "{said}"
    );
    let nan = with(&|tensors| tensors.0.get_mut(scales).unwrap().2[0] = 255);
    let layer = Checkpoint::open(nan.path())
        .unwrap()
        .layer(1, Format::F32)
        .unwrap();
    let said = layer.expert(0).err().unwrap().to_string();
    assert!(said.contains("holds 255 at element 0"), "{said}");
    assert!(layer.expert(1).is_ok());
}

/// Joins the tensors `experts.{e}.{part}.weight` of `parts` into one, expert after expert.
fn stack(tensors: &mut Tensors, prefix: &str, parts: &[&str], name: &str, experts: usize) {
    let (mut data, mut shape) = (Vec::new(), vec![0, 0]);
    for expert in 0..experts {
        shape[0] = 0;
        for part in parts {
            let tensor = format!("{prefix}experts.{expert}.{part}.weight");
            let (_, part, bytes) = tensors.0.remove(&tensor).unwrap();
            shape = vec![shape[0] + part[0], part[1]];
            data.extend(bytes);
        }
    }
    shape.insert(0, experts);
    let tensor = (Dtype::BF16, shape, data);
    tensors.0.insert(format!("{prefix}{name}"), tensor);
}

fn rename(tensors: &mut Tensors, from: &str, to: &str) {
    let all = std::mem::take(&mut tensors.0).into_iter();
    tensors
        .0
        .extend(all.map(|(name, tensor)| (name.replace(from, to), tensor)));
}

#[test]
fn raw_state_dicts_are_read_too() {
    let raw = |case: &str, change: &dyn Fn(&mut Tensors)| {
        let raw = variation(case, |tensors| change(tensors));
        same_answers(raw.path(), &golden(case), case);
    };
    raw("phimoe", &|tensors| {
        rename(tensors, "block_sparse_moe.gate.", "mlp.router.");
        rename(tensors, "block_sparse_moe.", "mlp.");
        let prefix = "model.layers.1.mlp.";
        stack(tensors, prefix, &["w1", "w3"], "experts.gate_up_proj", 8);
        stack(tensors, prefix, &["w2"], "experts.down_proj", 8);
    });
    raw("granitemoe", &|tensors| {
        rename(tensors, "input_linear.weight", "experts.gate_up_proj");
        rename(tensors, "output_linear.weight", "experts.down_proj");
        rename(tensors, "router.layer.weight", "router.weight");
    });
    raw("nemotron_h", &|tensors| {
        rename(tensors, "backbone.", "model.");
        let prefix = "model.layers.1.mixer.";
        stack(tensors, prefix, &["up_proj"], "experts.up_proj", 8);
        stack(tensors, prefix, &["down_proj"], "experts.down_proj", 8);
    });
    raw("ernie4_5_moe", &|tensors| {
        rename(tensors, "mlp.moe_statics", "mlp.gate.moe_statics");
        let prefix = "model.layers.1.mlp.";
        stack(
            tensors,
            prefix,
            &["gate_proj", "up_proj"],
            "experts.gate_up_proj",
            8,
        );
        stack(tensors, prefix, &["down_proj"], "experts.down_proj", 8);
    });
}

#[test]
fn f32_tensors_stay_f32_where_the_family_keeps_them() {
    // A bias and gate between two bf16 numbers: rounding them would change what the gate answers.
    let nudged = |case: &str, name: &str| {
        variation(case, |tensors| {
            let (dtype, _, data) = tensors.0.get_mut(name).unwrap();
            assert_eq!(*dtype, Dtype::F32);
            data.chunks_exact_mut(4).for_each(|raw| raw[1] ^= 0x55);
        })
    };
    let gate = |directory: &Path, dtype| {
        let layer = Checkpoint::open(directory)
            .unwrap()
            .layer(1, dtype)
            .unwrap();
        let gate = layer.gate().unwrap();
        let x: Vec<f32> = (0..32).map(|i| (i % 7) as f32 - 3.0).collect();
        gate.route(&x, 1, None).unwrap().logits
    };
    for (case, name) in [
        ("ernie4_5_moe", "model.layers.1.mlp.gate.weight"),
        ("hunyuan_v1_moe", "model.layers.1.mlp.gate.wg.weight"),
    ] {
        let nudged = nudged(case, name);
        assert_eq!(
            gate(nudged.path(), Format::Bf16),
            gate(nudged.path(), Format::F32),
            "{case}"
        );
        assert_ne!(
            gate(nudged.path(), Format::F32),
            gate(&golden(case), Format::F32),
            "{case}"
        );
    }
    let name = "model.layers.1.mlp.gate.e_score_correction_bias";
    let kept = nudged("deepseek_v3", name);
    let layer = Checkpoint::open(kept.path())
        .unwrap()
        .layer(1, Format::Bf16)
        .unwrap();
    assert_eq!(layer.spec().weights.gate.bytes, 16 * 32 * 2 + 16 * 4);
    assert!(layer.gate().is_ok());
}
