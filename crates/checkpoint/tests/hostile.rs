//! Files that someone damaged, by accident or not: an error or a valid answer, never a panic.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking"
)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use common::golden;
use expertmesh_checkpoint::{Checkpoint, LayerSource, TensorFile, describe};
use expertmesh_kernels::Format;
use proptest::prelude::*;

static MODEL: LazyLock<Vec<u8>> =
    LazyLock::new(|| fs::read(golden("qwen2_moe").join("model.safetensors")).unwrap());
static CONFIG: LazyLock<Vec<u8>> =
    LazyLock::new(|| fs::read(golden("qwen2_moe").join("config.json")).unwrap());

/// Cases whose configuration or layout is unlike the first one's.
const OTHERS: [&str; 9] = [
    "dbrx",
    "deepseek_v3",
    "ernie4_5_moe",
    "gpt_oss",
    "gpt_oss_mxfp4",
    "hunyuan_v1_moe",
    "nemotron_h",
    "nllb_moe",
    "switch_transformers",
];

/// Does with a checkpoint of these bytes all that can be done with one.
fn exercise(config: &[u8], model: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config.json"), config).unwrap();
    fs::write(directory.path().join("model.safetensors"), model).unwrap();
    let _ = load(directory.path());
    if let Ok(seen) = describe(directory.path()) {
        seen.per_worker(3, Format::F32).unwrap();
    }
    if let Ok(file) = TensorFile::open(&directory.path().join("model.safetensors")) {
        for name in file.names().map(str::to_owned).collect::<Vec<_>>() {
            let _ = (
                file.f32(&name),
                file.i64(&name),
                file.u8(&name),
                file.mask(&name),
            );
        }
    }
}

fn load(directory: &Path) -> Result<(), expertmesh_checkpoint::CheckpointError> {
    let checkpoint = Checkpoint::open(directory)?;
    // A damaged configuration may have other layers than the one that is there.
    let layer = checkpoint.moe_layers().last().copied().unwrap_or(1);
    let layer = checkpoint.layer(layer, Format::Bf16)?;
    layer.gate()?;
    layer.shared()?;
    layer.expert(0)?;
    layer.expert(layer.spec().experts - 1)?;
    Ok(())
}

/// Bytes of `original` with some overwritten, and perhaps the end cut off.
fn mutated(original: &[u8], changes: &[(usize, u8)], cut: Option<usize>, reach: usize) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for &(at, value) in changes {
        let reach = reach.min(bytes.len());
        bytes[at % reach] = value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut % original.len());
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    // Digits, brackets and quotes hit a JSON header harder than random bytes do.
    let value = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"0123456789[]{},:\"-e.".to_vec())
    ];
    prop::collection::vec((any::<usize>(), value), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damaged_weights_never_panic(
        changes in changes(),
        cut in prop::option::weighted(0.3, any::<usize>()),
    ) {
        let header = u64::from_le_bytes(MODEL[..8].try_into().unwrap());
        let reach = 8 + usize::try_from(header).unwrap();
        exercise(&CONFIG, &mutated(&MODEL, &changes, cut, reach));
    }

    #[test]
    fn damaged_configurations_never_panic(
        changes in changes(),
        cut in prop::option::weighted(0.1, any::<usize>()),
    ) {
        exercise(&mutated(&CONFIG, &changes, cut, usize::MAX), &MODEL);
    }

    #[test]
    fn damaged_checkpoints_of_other_families_never_panic(
        case in prop::sample::select(OTHERS.to_vec()),
        config_changes in changes(),
        model_changes in changes(),
    ) {
        let read = |name: &str| fs::read(golden(case).join(name)).unwrap();
        let (config, model) = (read("config.json"), read("model.safetensors"));
        exercise(&mutated(&config, &config_changes, None, usize::MAX), &model);
        let header = u64::from_le_bytes(model[..8].try_into().unwrap());
        let reach = 8 + usize::try_from(header).unwrap();
        exercise(&config, &mutated(&model, &model_changes, None, reach));
    }

    #[test]
    fn a_wrong_length_field_never_panics(length in any::<u64>(), small in any::<bool>()) {
        let mut model = MODEL.clone();
        let length = if small { length % (2 * MODEL.len() as u64) } else { length };
        model[..8].copy_from_slice(&length.to_le_bytes());
        exercise(&CONFIG, &model);
    }
}

#[test]
fn sizes_at_the_edge_of_what_a_configuration_may_say_are_answered_quickly() {
    let config = String::from_utf8(CONFIG.clone()).unwrap();
    for (field, value) in [
        ("\"num_experts\": 8", "\"num_experts\": 1048576"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 65536"),
        ("\"hidden_size\": 32", "\"hidden_size\": 1048576"),
        (
            "\"moe_intermediate_size\": 16",
            "\"moe_intermediate_size\": 1048576",
        ),
        (
            "\"num_experts\": 8",
            "\"num_experts\": 18446744073709551615",
        ),
    ] {
        let changed = config.replace(field, value);
        assert_ne!(changed, config);
        exercise(changed.as_bytes(), &MODEL);
    }
}
