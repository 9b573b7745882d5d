//! Checkpoints in the forms that they come in, and what is said about those that do not fit.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking"
)]

mod common;

use std::fs;
use std::path::Path;

use common::{PLAIN, Tensors, golden, variation};
use expertmesh_checkpoint::{Checkpoint, LayerSource, describe};
use expertmesh_experts::Scratch;
use expertmesh_kernels::Format;
use safetensors::Dtype;

/// The bits of what gate, shared expert and every routed expert of layer 1 answer to three rows.
fn answers(directory: &Path, dtype: Format) -> Vec<u32> {
    let layer = Checkpoint::open(directory)
        .unwrap()
        .layer(1, dtype)
        .unwrap();
    let (hidden, experts) = (layer.spec().hidden, layer.spec().experts);
    let x: Vec<f32> = (0..3 * hidden).map(|i| (i % 7) as f32 - 3.0).collect();
    let mut values = layer.gate().unwrap().route(&x, 3, None).unwrap().logits;
    let mut y = vec![0.0; x.len()];
    let mut scratch = Scratch::default();
    for expert in 0..experts {
        layer
            .expert(expert)
            .unwrap()
            .forward(&x, &mut y, &mut scratch)
            .unwrap();
        values.extend(&y);
    }
    if let Some(shared) = layer.shared().unwrap() {
        shared.forward(&x, &mut y, &mut scratch).unwrap();
        values.extend(&y);
    }
    values.into_iter().map(f32::to_bits).collect()
}

fn open_error(directory: &Path) -> String {
    Checkpoint::open(directory).unwrap_err().to_string()
}

fn layer_error(directory: &Path) -> String {
    Checkpoint::open(directory)
        .unwrap()
        .layer(1, Format::F32)
        .unwrap_err()
        .to_string()
}

/// Splits a golden into two shards with an index, whose JSON `change` may rewrite.
fn sharded(case: &str, change: impl FnOnce(String) -> String) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::copy(
        golden(case).join("config.json"),
        directory.path().join("config.json"),
    )
    .unwrap();
    let mut shards = [Tensors::default(), Tensors::default()];
    let names = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let mut map = Vec::new();
    let all = Tensors::read(&golden(case).join("model.safetensors")).0;
    for (at, (name, tensor)) in all.into_iter().enumerate() {
        map.push(format!("\"{name}\": \"{}\"", names[at % 2]));
        shards[at % 2].0.insert(name, tensor);
    }
    for (shard, name) in shards.iter().zip(names) {
        shard.write(&directory.path().join(name));
    }
    let index = format!(
        "{{\"metadata\": {{\"total_size\": 1}}, \"weight_map\": {{{}}}}}",
        map.join(",")
    );
    fs::write(
        directory.path().join("model.safetensors.index.json"),
        change(index),
    )
    .unwrap();
    directory
}

#[test]
fn shards_give_the_same_bits_as_one_file() {
    for case in PLAIN {
        let split = sharded(case, |index| index);
        assert_eq!(
            answers(split.path(), Format::Bf16),
            answers(&golden(case), Format::Bf16)
        );
        assert_eq!(describe(split.path()).unwrap().files, 2);
    }
}

#[test]
fn an_index_is_not_believed() {
    let second = "model-00002-of-00002.safetensors";
    let cases: [(&dyn Fn(String) -> String, &str); 7] = [
        (
            &|i| i.replace(second, "model-00003-of-00002.safetensors"),
            "which is not there",
        ),
        (
            &|i| i.replace(second, "../model.safetensors"),
            "file in the same directory",
        ),
        (
            &|i| i.replace(second, "/etc/passwd"),
            "file in the same directory",
        ),
        (&|i| i.replace(second, ".."), "file in the same directory"),
        (
            &|i| i.replace(second, "x\\\\y"),
            "file in the same directory",
        ),
        (
            &|i| i.replace("gate.weight", "gate.wight"),
            "whose header does not name it",
        ),
        (&|_| "{}".to_owned(), "missing field `weight_map`"),
    ];
    for (change, words) in cases {
        let said = open_error(sharded("mixtral", change).path());
        assert!(said.starts_with("bad weight index "), "{said}");
        assert!(
            said.contains("model.safetensors.index.json") && said.contains(words),
            "{said}"
        );
    }
}

#[test]
fn f32_arithmetic_on_bf16_weights_is_exact() {
    for case in PLAIN {
        let wide = variation(case, |tensors| *tensors = tensors.widened(Dtype::F32));
        assert_eq!(
            answers(wide.path(), Format::F32),
            answers(&golden(case), Format::F32)
        );
        // Every weight is a bf16 number, so rounding the f32 file gives the bf16 one back.
        assert_eq!(
            answers(wide.path(), Format::Bf16),
            answers(&golden(case), Format::Bf16)
        );

        let bytes = |directory: &Path, dtype| {
            let layer = Checkpoint::open(directory)
                .unwrap()
                .layer(1, dtype)
                .unwrap();
            let (said, held) = (
                layer.spec().weights,
                layer.expert(0).unwrap().weight_bytes(),
            );
            assert_eq!(said.expert.bytes, held as u64);
            said.expert.bytes / said.expert.parameters
        };
        assert_eq!(bytes(&golden(case), Format::F32), 2);
        assert_eq!(bytes(wide.path(), Format::F32), 4);
        assert_eq!(bytes(wide.path(), Format::Bf16), 2);
    }
}

#[test]
fn f16_weights_are_widened() {
    let half = variation("qwen2_moe", |tensors| {
        *tensors = tensors.widened(Dtype::F16)
    });
    let back = variation("qwen2_moe", |tensors| {
        // Only through f32: what f16 cannot hold was rounded by the test, not by the crate.
        *tensors = tensors.widened(Dtype::F16);
        for (dtype, _, data) in tensors.0.values_mut() {
            *dtype = Dtype::F32;
            let halves = data
                .chunks_exact(2)
                .map(|raw| half::f16::from_le_bytes([raw[0], raw[1]]));
            *data = halves
                .flat_map(|value| value.to_f32().to_le_bytes())
                .collect();
        }
    });
    assert_eq!(
        answers(half.path(), Format::F32),
        answers(back.path(), Format::F32)
    );
    assert_eq!(
        answers(half.path(), Format::Bf16),
        answers(back.path(), Format::Bf16)
    );
}

#[test]
fn stacked_experts_are_the_same_experts() {
    for (case, [gate, up, down]) in [
        ("mixtral", ["w1", "w3", "w2"]),
        ("qwen3_moe", ["gate_proj", "up_proj", "down_proj"]),
    ] {
        let raw = variation(case, |tensors| {
            let (block, memory) = ("model.layers.1.block_sparse_moe.", "model.layers.1.mlp.");
            let mut all: Vec<_> = std::mem::take(&mut tensors.0).into_iter().collect();
            all.iter_mut()
                .for_each(|(name, _)| *name = name.replace(block, memory));
            let data = |name: String| {
                let name = format!("{memory}experts.{name}.weight");
                all.iter()
                    .find(|tensor| tensor.0 == name)
                    .unwrap()
                    .1
                    .2
                    .clone()
            };
            let (mut gate_up, mut downs) = (Vec::new(), Vec::new());
            for expert in 0..8 {
                gate_up.extend(data(format!("{expert}.{gate}")));
                gate_up.extend(data(format!("{expert}.{up}")));
                downs.extend(data(format!("{expert}.{down}")));
            }
            let name = |tail| format!("{memory}experts.{tail}");
            let bf16 = Dtype::BF16;
            tensors
                .0
                .insert(name("gate_up_proj"), (bf16, vec![8, 32, 32], gate_up));
            tensors
                .0
                .insert(name("down_proj"), (bf16, vec![8, 32, 16], downs));
            tensors.0.extend(
                all.into_iter()
                    .filter(|(name, _)| name.ends_with("gate.weight")),
            );
        });
        assert_eq!(
            answers(raw.path(), Format::F32),
            answers(&golden(case), Format::F32)
        );
    }
}

#[test]
fn tensors_that_do_not_fit_are_named_with_both_sides() {
    let up = "model.layers.1.block_sparse_moe.experts.5.w3.weight";
    let with = |change: &dyn Fn(&mut Tensors)| variation("mixtral", |tensors| change(tensors));

    let gone = with(&|tensors| drop(tensors.0.remove(up)));
    let said = layer_error(gone.path());
    assert!(
        said.starts_with(&format!("tensor \"{up}\" is missing from ")),
        "{said}"
    );
    assert!(said.ends_with("model.safetensors (24 tensors)"), "{said}");

    let turned = with(&|tensors| tensors.0.get_mut(up).unwrap().1.reverse());
    let said = layer_error(turned.path());
    assert!(
        said.ends_with(
            "has shape [32, 16], expected [16, 32], which is [expert ffn size, hidden_size] by \
             config.json"
        ) && said.contains(up),
        "{said}"
    );

    let whole = with(&|tensors| tensors.0.get_mut(up).unwrap().0 = Dtype::I16);
    let said = layer_error(whole.path());
    assert!(
        said.ends_with("is I16, expected BF16, F16, F32 or F8_E4M3") && said.contains(up),
        "{said}"
    );
}

#[test]
fn layers_and_experts_that_are_not_there_are_refused_with_those_that_are() {
    let checkpoint = Checkpoint::open(&golden("qwen3_moe")).unwrap();
    assert_eq!(
        (checkpoint.model_type(), checkpoint.moe_layers()),
        ("qwen3_moe", &[0, 1][..])
    );
    assert_eq!(
        checkpoint.layer(2, Format::F32).unwrap_err().to_string(),
        "layer 2 is not there: the model has 2 layers, numbered from 0 (layers with experts: 0-1)"
    );
    let layer = checkpoint.layer(1, Format::F32).unwrap();
    assert_eq!(
        layer.expert(8).err().unwrap().to_string(),
        "expert 8 is not there: the layer has 8 experts, numbered from 0"
    );

    let step = variation("qwen3_moe", |_| ());
    let path = step.path().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        config.replace("\"mlp_only_layers\": []", "\"mlp_only_layers\": [1]"),
    )
    .unwrap();
    assert_eq!(
        layer_error(step.path()),
        "layer 1 is not a mixture-of-experts layer (layers with experts: 0)"
    );
}

#[test]
fn directories_that_are_not_checkpoints_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert!(open_error(path).starts_with("cannot open "));
    assert!(open_error(path).contains("config.json"));
    fs::copy(
        golden("olmoe").join("config.json"),
        path.join("config.json"),
    )
    .unwrap();
    assert!(
        open_error(path).contains("expected model.safetensors or model.safetensors.index.json")
    );
    fs::write(path.join("model.safetensors"), b"").unwrap();
    assert!(open_error(path).ends_with("is empty, expected a safetensors file"));
    fs::remove_file(path.join("model.safetensors")).unwrap();
    fs::create_dir(path.join("model.safetensors")).unwrap();
    assert!(open_error(path).ends_with("is not a regular file, expected a safetensors file"));
}

#[test]
fn an_inspection_counts_what_is_there() {
    let seen = describe(&golden("qwen2_moe")).unwrap();
    assert_eq!(
        (
            seen.model_type.as_str(),
            seen.layers,
            seen.files,
            seen.tensors
        ),
        ("qwen2_moe", 2, 1, 29)
    );
    assert_eq!(
        (seen.hidden, seen.ffn, seen.experts, seen.top_k),
        (32, 16, 8, 3)
    );
    // The golden holds the second layer only.
    let [absent, present] = &seen.moe_layers[..] else {
        panic!("{seen:?}")
    };
    assert!(
        absent
            .problem
            .as_ref()
            .unwrap()
            .contains("model.layers.0.mlp.gate.weight")
    );
    assert_eq!(present.problem, None);
    let weights = present.stored;
    assert_eq!((weights.gate.parameters, weights.gate.bytes), (256, 512));
    assert_eq!(
        (weights.expert.parameters, weights.expert.bytes),
        (1536, 3072)
    );
    assert_eq!(weights.shared.parameters, 3 * 24 * 32 + 32);
    let file = fs::metadata(golden("qwen2_moe").join("model.safetensors"))
        .unwrap()
        .len();
    assert!(weights.total().bytes < file);

    let shares = seen.per_worker(3, Format::Bf16).unwrap();
    let experts: Vec<_> = shares.iter().map(|share| share.experts.clone()).collect();
    assert_eq!(experts, [0..3, 3..6, 6..8]);
    assert_eq!(shares[0].layer.bytes, 3 * 3072);
    assert_eq!(
        shares.iter().map(|share| share.model.bytes).sum::<u64>(),
        weights.experts.bytes
    );
    let many = seen.per_worker(10, Format::F32).unwrap();
    assert_eq!(many[9].experts, 8..8);
    assert_eq!(many[9].layer.bytes, 0);
    let none = seen.per_worker(0, Format::F32).unwrap_err().to_string();
    assert_eq!(none, "workers is 0, expected 1 to 65536");
}
