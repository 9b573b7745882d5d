//! Tensor files written and read back, and layers out of a seed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking"
)]

use std::fs;

use expertmesh_checkpoint::{
    LayerSource, NamedTensor, SyntheticLayer, SyntheticSpec, TensorData, TensorFile, write,
};
use expertmesh_experts::{ExpertError, ExpertKind, ExpertSource, Scratch};
use expertmesh_kernels::Format;

fn tensor<'a>(name: &'a str, shape: &[usize], data: TensorData<'a>) -> NamedTensor<'a> {
    NamedTensor {
        name,
        shape: shape.to_vec(),
        data,
    }
}

#[test]
fn what_is_written_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.safetensors");
    let output = [1.5f32, -0.0, f32::MIN_POSITIVE, 3e38];
    let all = [
        tensor("output", &[2, 2], TensorData::F32(&output)),
        tensor("executed_expert", &[3], TensorData::I32(&[-1, 0, i32::MAX])),
        tensor("token_ids", &[1], TensorData::I64(&[i64::MIN])),
        tensor("fate", &[2, 1], TensorData::U8(&[0, 4])),
        tensor("aux.loss", &[], TensorData::F32(&[2.0])),
        tensor("empty", &[0, 5], TensorData::F32(&[])),
    ];
    write(&path, &all).unwrap();
    let first = fs::read(&path).unwrap();
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.names().len(), 6);
    let (shape, values) = file.f32("output").unwrap();
    assert_eq!(shape, [2, 2]);
    assert_eq!(values.map_bits(), output.to_vec().map_bits());
    assert_eq!(
        file.i64("executed_expert").unwrap(),
        (vec![3], vec![-1, 0, i64::from(i32::MAX)])
    );
    assert_eq!(file.i64("token_ids").unwrap(), (vec![1], vec![i64::MIN]));
    assert_eq!(file.u8("fate").unwrap(), (vec![2, 1], vec![0, 4]));
    assert_eq!(file.f32("aux.loss").unwrap(), (vec![], vec![2.0]));
    assert_eq!(file.f32("empty").unwrap(), (vec![0, 5], vec![]));
    let said = file.mask("fate").unwrap_err().to_string();
    assert!(
        said.ends_with("holds 4 at element 1, expected a mask of 0 and 1"),
        "{said}"
    );

    // Over the open file: the old mapping keeps its bytes, and the new file has the same.
    write(&path, &all).unwrap();
    assert_eq!(file.u8("fate").unwrap().1, [0, 4]);
    assert_eq!(fs::read(&path).unwrap(), first);
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        1,
        "no partial file is left"
    );
}

trait MapBits {
    fn map_bits(&self) -> Vec<u32>;
}

impl MapBits for Vec<f32> {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|value| value.to_bits()).collect()
    }
}

#[test]
fn what_cannot_be_written_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.safetensors");
    let one = || tensor("a", &[1], TensorData::U8(&[1]));
    for (tensors, words) in [
        (vec![one(), one()], "tensor \"a\" is given twice"),
        (
            vec![tensor("b", &[2, 3], TensorData::F32(&[0.0]))],
            "has shape [2, 3], but 1 elements",
        ),
        (
            vec![tensor("b", &[usize::MAX, 2], TensorData::U8(&[]))],
            "but 0 elements",
        ),
        (
            vec![tensor("__metadata__", &[1], TensorData::U8(&[1]))],
            "safetensors reserves",
        ),
    ] {
        let said = write(&path, &tensors).unwrap_err().to_string();
        assert!(
            said.contains(words) && said.contains("out.safetensors"),
            "{said}"
        );
        assert!(!path.exists());
    }
    let nowhere = directory.path().join("missing/out.safetensors");
    let said = write(&nowhere, &[one()]).unwrap_err().to_string();
    assert!(
        said.starts_with("cannot write ") && said.contains("missing/out"),
        "{said}"
    );
}

const SPEC: SyntheticSpec = SyntheticSpec {
    hidden: 16,
    ffn: 24,
    experts: 4,
    top_k: 2,
    kind: ExpertKind::Swiglu,
    seed: 7,
    layer: 0,
    dtype: Format::F32,
};

fn answer(spec: SyntheticSpec) -> (Vec<u32>, Vec<f32>, Vec<f32>) {
    let layer = SyntheticLayer::new(spec).unwrap();
    let x: Vec<f32> = (0..5 * spec.hidden)
        .map(|i| ((i * 7) % 11) as f32 - 5.0)
        .collect();
    let route = layer.gate().unwrap().route(&x, 5, None).unwrap();
    let mut y = vec![0.0; x.len()];
    let expert = layer.expert(3).unwrap();
    expert.forward(&x, &mut y, &mut Scratch::default()).unwrap();
    assert_eq!(
        expert.weight_bytes() as u64,
        layer.spec().weights.expert.bytes
    );
    assert!(layer.shared().unwrap().is_none());
    (route.experts, route.weights, y)
}

#[test]
fn a_synthetic_layer_follows_from_its_numbers() {
    for kind in [ExpertKind::Swiglu, ExpertKind::Mlp, ExpertKind::Identity] {
        for dtype in [Format::F32, Format::Bf16] {
            let spec = SyntheticSpec {
                kind,
                dtype,
                ..SPEC
            };
            assert_eq!(answer(spec), answer(spec));
            let other = answer(SyntheticSpec { seed: 8, ..spec });
            assert_ne!(answer(spec).1, other.1, "another seed, another gate");
            assert_eq!(answer(spec).2 == other.2, kind == ExpertKind::Identity);
            let next = answer(SyntheticSpec { layer: 1, ..spec });
            assert_ne!(answer(spec).1, next.1, "another layer, another gate");
            assert_eq!(answer(spec).2 == next.2, kind == ExpertKind::Identity);
        }
    }
}

#[test]
fn synthetic_sizes_are_checked() {
    for (spec, words) in [
        (
            SyntheticSpec { hidden: 0, ..SPEC },
            "hidden is 0, expected 1 to 1048576",
        ),
        (
            SyntheticSpec { ffn: 0, ..SPEC },
            "ffn is 0, expected 1 to 1048576",
        ),
        (
            SyntheticSpec { experts: 0, ..SPEC },
            "experts is 0, expected 1 to 1048576",
        ),
        (
            SyntheticSpec { top_k: 5, ..SPEC },
            "top_k is 5, expected 1 to 4, the number of experts",
        ),
        (
            SyntheticSpec { top_k: 0, ..SPEC },
            "top_k is 0, expected 1 to 4, the number of experts",
        ),
    ] {
        assert_eq!(SyntheticLayer::new(spec).unwrap_err().to_string(), words);
    }
    let identity = SyntheticSpec {
        kind: ExpertKind::Identity,
        ffn: 0,
        ..SPEC
    };
    assert_eq!(
        SyntheticLayer::new(identity)
            .unwrap()
            .spec()
            .weights
            .expert
            .bytes,
        0
    );
    let layer = SyntheticLayer::new(SPEC).unwrap();
    assert!(matches!(
        ExpertSource::load(&layer, 4).err(),
        Some(ExpertError::NoSuchExpert {
            expert: 4,
            experts: 4
        })
    ));
    assert!(ExpertSource::load(&layer, 3).is_ok());
}
